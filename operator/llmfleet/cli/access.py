"""The cluster as ``kubectl`` sees it: the same kubeconfig, context and namespace."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import urllib3
import yaml
from kubernetes import client, config, watch
from kubernetes.config import kube_config
from pydantic import ValidationError

from llmfleet.api import GROUP, PLURAL, VERSION, clean_line
from llmfleet.api.deployment import LLMDeployment, parse
from llmfleet.cli.commands import Commands
from llmfleet.cli.leading import LEASE, Leadership, count_pods, find_problem

JSON = dict[str, Any]
WATCH_SECONDS = 300
RETRY_SECONDS = 2.0
NOT_FOUND = 404
FORBIDDEN = 403
OPERATOR_NAMESPACE: Final = os.environ.get("LLMFLEET_OPERATOR_NAMESPACE") or "llmfleet-system"
"""Where the Lease is looked for by those who may not list those of all namespaces."""
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL.pattern}(\.{_LABEL.pattern})*")
"""RFC 1123, as Kubernetes checks names."""
_NAMES: Final = "names are of lower-case letters, digits and '-'"
FOREIGN: Final = (
    "the answer is not one of Kubernetes: does the server in the kubeconfig lead to a login page?"
)
_NOT_INSTALLED: Final = (
    "the cluster does not know LLMDeployments: is llmfleet installed there, its CRD included, and"
    " is this the context that is meant?"
)
PASSING = frozenset({408, 410, 429})
"""Statuses of a server that is slow, busy, or has forgotten where a watch was."""


_ANY_ANSWER: Final = (
    client.ApiException, urllib3.exceptions.HTTPError,
    AttributeError, KeyError, TypeError, ValueError,
)  # fmt: skip
"""What comes of asking, the answer being no JSON, or another one than Kubernetes gives."""


class AccessError(Exception):
    """The cluster did not do what was asked; the message is a sentence for people.

    The cluster's words in it are cleaned.
    """

    def __init__(self, message: str) -> None:
        super().__init__(clean_line(message))


class NotInstalledError(AccessError):
    """The cluster does not know of LLMDeployments."""


class Cluster:
    """LLMDeployments of one context.

    Args:
        context: of the kubeconfig; None: the current one.
        namespace: None: the context's.

    Raises:
        AccessError: there is no such context, or no kubeconfig, or it cannot be read.
    """

    def __init__(self, context: str | None, namespace: str | None) -> None:
        try:
            chosen = _find_context(context)
            config.load_kube_config(context=chosen["name"])
            own = chosen["context"].get("namespace") or "default"
        except (config.ConfigException, yaml.YAMLError, UnicodeError, OSError) as error:
            raise AccessError(f"the kubeconfig cannot be read: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # The loader trusts it to be built as kubectl builds it.
            what = f"{type(error).__name__}: {error}"
            raise AccessError(
                f"the kubeconfig is not built as kubectl builds it: {what}"
            ) from error
        self.namespace = namespace or own
        if not _LABEL.fullmatch(self.namespace):
            raise AccessError(f"a namespace cannot be called '{self.namespace}': {_NAMES}")
        self.commands = Commands(
            context=context, namespace=None if self.namespace == own else self.namespace
        )
        self._objects = client.CustomObjectsApi()
        self._core = client.CoreV1Api()

    def get(self, name: str) -> tuple[JSON, LLMDeployment]:
        """One LLMDeployment, as stored and as read.

        Raises:
            AccessError: it is not there, or may not be read.
        """
        raw = self.find(name)
        if raw is None:
            raise AccessError(f"LLMDeployment {name} in namespace {self.namespace} is not there")
        return raw, read(raw)

    def find(self, name: str) -> JSON | None:
        """One LLMDeployment as stored; None when there is none.

        Raises:
            AccessError: it may not be read, or nothing can have that name.
        """
        # Without one, or with a dot, the request's path would be another's.
        if not _SUBDOMAIN.fullmatch(name):
            raise AccessError(f"an LLMDeployment cannot be called '{name}': {_NAMES}")
        with _explained(f"LLMDeployment {name} in namespace {self.namespace}"):
            return self._read(name)

    def list(self, *, everywhere: bool) -> list[JSON]:
        """All of the namespace, or of the cluster.

        Raises:
            AccessError: they may not be read, or the CRD is not installed.
        """
        with _explained("the list of LLMDeployments"):
            if everywhere:
                answer = self._objects.list_cluster_custom_object(GROUP, VERSION, PLURAL)
            else:
                answer = self._objects.list_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, PLURAL
                )
        if not isinstance(answer, dict) or not isinstance(answer.get("items"), list):
            raise AccessError(FOREIGN)
        return list(answer["items"])

    def leadership(self, *, everywhere: bool = False) -> Leadership:
        """Whether an operator leads; where none does, what pods there are.

        Never fails: not to know it keeps nobody from what he asked for.

        Args:
            everywhere: pods of all namespaces are wanted, not of one.
        """
        try:
            problem = find_problem(*self._leases())
        except _ANY_ANSWER as error:
            where = f"{OPERATOR_NAMESPACE}/{LEASE}"
            return Leadership(unknown=clean_line(_sentence(f"the Lease {where}", error)))
        if problem is None:
            return Leadership()
        label = {"label_selector": "llmfleet.dev/deployment", "_preload_content": False}
        try:
            if everywhere:
                answer = self._core.list_pod_for_all_namespaces(**label)
            else:
                answer = self._core.list_namespaced_pod(self.namespace, **label)
            return Leadership(problem=problem, ready=count_pods(json.loads(answer.data)["items"]))
        except _ANY_ANSWER:
            return Leadership(problem=problem)

    def _leases(self) -> tuple[Sequence[JSON], datetime]:
        """The operators' Leases, and the time by the clock of whoever answered."""
        api = client.CoordinationV1Api()
        try:
            answer = api.list_lease_for_all_namespaces(
                field_selector=f"metadata.name={LEASE}", _preload_content=False
            )
            found: Sequence[JSON] = json.loads(answer.data)["items"]
        except client.ApiException as error:
            if error.status != FORBIDDEN:
                raise
            answer = api.read_namespaced_lease(LEASE, OPERATOR_NAMESPACE, _preload_content=False)
            found = [json.loads(answer.data)]
        said = answer.headers.get("Date")
        return found, parsedate_to_datetime(said) if said else datetime.now(UTC)

    def annotate(self, raw: JSON, annotations: Mapping[str, str | None]) -> None:
        """Set or, with None, remove annotations of exactly the object that was read.

        Raises:
            AccessError: it changed meanwhile, or may not be changed.
        """
        meta = raw["metadata"]
        # The uid makes the patch fail on another object that took the name meanwhile.
        body = {"metadata": {"uid": meta["uid"], "annotations": dict(annotations)}}
        with _explained(f"LLMDeployment {meta['name']}"):
            answer = self._objects.patch_namespaced_custom_object(
                GROUP, VERSION, meta["namespace"], PLURAL, meta["name"], body
            )
        _check_object(answer)

    def forget(self, name: str) -> bool:
        """Delete the memory of a name; whether there was one.

        Raises:
            AccessError: it may not be deleted.
        """
        try:
            answer = self._core.delete_namespaced_config_map(
                f"{name}-llmfleet-memory", self.namespace
            )
        except client.ApiException as error:
            if error.status == NOT_FOUND:
                return False
            raise AccessError(_sentence("the memory", error)) from error
        # A Status, or what was deleted; clients differ in whether they make a model of it.
        if not (answer.get("kind") if isinstance(answer, dict) else getattr(answer, "kind", None)):
            raise AccessError(FOREIGN)
        return True

    def follow(self, name: str) -> Iterator[tuple[JSON, LLMDeployment] | None]:
        """Every state of an LLMDeployment from now on; None, and no more, once it is deleted.

        A broken connection is taken up again for as long as the caller asks for more; a refusal
        would come again, so it ends the watch.

        Raises:
            AccessError: it is not there, or may not be read or watched.
        """
        yield self.get(name)
        interrupted = False
        while True:
            began = time.monotonic()
            try:
                if interrupted:  # a watch does not say what was deleted before it began
                    raw = self._read(name)
                    yield None if raw is None else (raw, read(raw))
                    if raw is None:
                        return
                for state in self._watch(name):
                    yield state
                    if state is None:
                        return
            except (client.ApiException, urllib3.exceptions.HTTPError) as error:
                if _is_refusal(error):
                    what = f"watching LLMDeployment {name} in namespace {self.namespace}"
                    raise AccessError(_sentence(what, error)) from error
            # A watch may also end well at once, and again and again.
            time.sleep(max(0.0, began + RETRY_SECONDS - time.monotonic()))
            interrupted = True

    def _watch(self, name: str) -> Iterator[tuple[JSON, LLMDeployment] | None]:
        for event in watch.Watch().stream(
            self._objects.list_namespaced_custom_object,
            GROUP, VERSION, self.namespace, PLURAL,
            field_selector=f"metadata.name={name}", timeout_seconds=WATCH_SECONDS,
        ):  # fmt: skip
            deleted = event["type"] == "DELETED"
            yield None if deleted else (event["object"], read(event["object"]))

    def _read(self, name: str) -> JSON | None:
        try:
            answer = self._objects.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name
            )
        except client.ApiException as error:
            if error.status == NOT_FOUND and _is_installed(error):
                return None
            raise
        return _check_object(answer)


def _find_context(name: str | None) -> JSON:
    """A context by name; None: the current one, which a kubeconfig need not have."""
    # list_kube_config_contexts would ask for the current one in any case.
    merged = kube_config.KubeConfigMerger(kube_config.KUBE_CONFIG_DEFAULT_LOCATION).config
    if merged is None:
        raise AccessError("there is no kubeconfig: set KUBECONFIG to its file")
    contexts: dict[str, JSON] = {each["name"]: each.value for each in merged.value["contexts"]}
    names = ", ".join(contexts) or "none"
    wanted = name or merged.value.get("current-context")
    if not wanted:
        raise AccessError(
            f"the kubeconfig has no current context: choose one with --context, of {names}"
        )
    if wanted not in contexts:
        raise AccessError(f"the kubeconfig has no context {wanted}; it has {names}")
    return contexts[wanted]


def _check_object(answer: Any) -> JSON:
    """An object, which is not what a login page before the API server says with status 200."""
    if isinstance(answer, dict):
        meta = answer.get("metadata")
        if isinstance(meta, dict) and isinstance(meta.get("name"), str):
            return answer
    raise AccessError(FOREIGN)


def read(raw: JSON) -> LLMDeployment:
    """The resource as the models see it.

    Raises:
        AccessError: it was stored under another version of the CRD.
    """
    try:
        return parse(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise AccessError(
            f"{raw['metadata']['name']} is not what this version knows ({field}: {first['msg']}):"
            " use the CLI of the operator's version"
        ) from error


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except client.ApiException as error:
        if error.status == NOT_FOUND and not _is_installed(error):
            raise NotInstalledError(_NOT_INSTALLED) from error
        raise AccessError(_sentence(what, error)) from error
    except urllib3.exceptions.HTTPError as error:
        raise AccessError(f"the API server does not answer: {error}") from error


def _is_installed(error: client.ApiException) -> bool:
    """Whether a 404 is about an object: of paths that it does not know a server says only so."""
    try:
        return bool(json.loads(error.body)["kind"] == "Status")
    except (TypeError, ValueError, KeyError, RecursionError):
        return False


def _is_refusal(error: Exception) -> bool:
    """Whether the API server would answer the same again: 4xx, except those that pass."""
    status = getattr(error, "status", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in PASSING


def _sentence(what: str, error: Any) -> str:
    try:
        said = json.loads(error.body)["message"]
    except (AttributeError, TypeError, ValueError, KeyError, RecursionError):
        said = getattr(error, "reason", None) or type(error).__name__
    status = getattr(error, "status", None)
    if status == NOT_FOUND:
        return f"{what} is not there: {said}"
    if status == FORBIDDEN:
        return f"you may not: {said}"
    return f"{what}: {said}"
