"""kubectl as functions: JSON in, JSON out, errors that carry kubectl's own words."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import yaml

from hack.kube.reading import COLLECTIONS, ReadError, read_list, read_log, read_object

JSON = dict[str, Any]
T = TypeVar("T")


class KubectlError(Exception):
    """kubectl refused or could not reach the API server; the message is what it said."""


class NotInTimeError(Exception):
    """What was waited for did not happen in time; the message says what was seen instead."""


def kubectl(*args: str, stdin: str | None = None, timeout_seconds: float = 60) -> str:
    """Runs kubectl and returns what it printed.

    Raises:
        KubectlError: it exited non-zero or took longer than ``timeout_seconds``.
    """
    try:
        done = subprocess.run(
            ["kubectl", *args],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise KubectlError(
            f"kubectl {' '.join(args)}: no end after {timeout_seconds:g} s"
        ) from error
    if done.returncode:
        raise KubectlError(done.stderr.strip() or f"kubectl {' '.join(args)} failed")
    return done.stdout


def apply(*documents: JSON, namespace: str | None = None, server_side: bool = False) -> str:
    """Applies manifests in one call."""
    where = ("-n", namespace) if namespace else ()
    mode = ("--server-side", "--field-manager=user") if server_side else ()
    return kubectl("apply", *where, *mode, "-f", "-", stdin=yaml.safe_dump_all(documents))


def get(kind: str, name: str, namespace: str | None = None) -> JSON | None:
    """One object, or None when there is none."""
    if kind in COLLECTIONS and namespace:
        with _told_as_kubectl_would():
            return read_object(kind, name, namespace)
    where = ("-n", namespace) if namespace else ()
    text = kubectl("get", kind, name, *where, "-o", "json", "--ignore-not-found")
    return json.loads(text) if text.strip() else None


def list_objects(kind: str, namespace: str | None = None, selector: str = "") -> list[JSON]:
    """All objects of a kind, in one namespace or in all."""
    if kind in COLLECTIONS:
        with _told_as_kubectl_would():
            return read_list(kind, namespace, selector)
    where = ("-n", namespace) if namespace else ("--all-namespaces",)
    chosen = ("-l", selector) if selector else ()
    items: list[JSON] = json.loads(kubectl("get", kind, *where, *chosen, "-o", "json"))["items"]
    return items


def last_log_line(pod: str, namespace: str) -> str:
    """What the only container of a pod wrote last; empty when it has not written yet."""
    with _told_as_kubectl_would():
        return read_log(pod, namespace, 1).strip()


@contextlib.contextmanager
def _told_as_kubectl_would() -> Iterator[None]:
    try:
        yield
    except ReadError as error:
        raise KubectlError(str(error)) from error


def delete(kind: str, name: str, namespace: str, *, wait: bool = True) -> None:
    """Deletes an object; none there is fine."""
    kubectl(
        "delete", kind, name, "-n", namespace, "--ignore-not-found", f"--wait={str(wait).lower()}",
        timeout_seconds=180,
    )  # fmt: skip


def wait_for(
    what: str,
    probe: Callable[[], T | None],
    *,
    timeout_seconds: float,
    describe: Callable[[], str] = lambda: "",
    every_seconds: float = 0.5,
) -> T:
    """Polls until ``probe`` returns something other than None or False.

    Args:
        what: Ends the sentence "waited for …".
        probe: Called until it answers; a KubectlError counts as no answer yet.
        timeout_seconds: Real time until giving up.
        describe: Says what there is instead, for the error.
        every_seconds: Pause between two looks.

    Raises:
        NotInTimeError: the deadline passed.
    """
    deadline = time.monotonic() + timeout_seconds
    last_error = ""
    while True:
        try:
            answer = probe()
        except KubectlError as error:
            answer, last_error = None, str(error)
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            seen = "; ".join(part for part in (_quietly(describe), last_error) if part)
            raise NotInTimeError(f"waited {timeout_seconds:g} s for {what}; instead: {seen}")
        time.sleep(every_seconds)


def _quietly(describe: Callable[[], str]) -> str:
    try:
        return describe()
    except KubectlError as error:
        return str(error)


def condition(obj: JSON | None, kind: str) -> JSON:
    """The condition of one type from an object's status; empty when absent."""
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


@contextlib.contextmanager
def port_forward(target: str, port: int, namespace: str) -> Iterator[int]:
    """Forwards a free local port to ``target`` (``svc/chat``, ``pod/x``) while the block runs.

    Yields:
        The local port on 127.0.0.1.

    Raises:
        KubectlError: kubectl ended, or was silent for 30 s.
    """
    process = subprocess.Popen(
        ["kubectl", "port-forward", "-n", namespace, target, f":{port}", "--address", "127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        env=os.environ,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        if not found:
            process.terminate()
            raise KubectlError(f"port-forward to {target}: {line}{process.stdout.read()}".strip())
        yield int(found[1])
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
