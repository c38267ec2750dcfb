"""The operator's environment (docs/contract.md, Operator), read once at start."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from llmfleet.cluster.prometheus_access import PrometheusAccess
from llmfleet.planning.snapshot import Labels, NetworkSettings, OperatorSettings

VARIABLES: Final = {
    "LLMFLEET_RUNTIME_IMAGE_GPU": "image of engine pods with accelerators (required)",
    "LLMFLEET_RUNTIME_IMAGE_CPU": "image of engine pods with accelerator type cpu (required)",
    "LLMFLEET_ROUTER_IMAGE": "image of router pods (required)",
    "LLMFLEET_ALLOW_FILE_SOURCES": "allow file:// sources: true|false (default false)",
    "LLMFLEET_NETWORK_POLICIES": "make NetworkPolicies: true|false (default true)",
    "LLMFLEET_OPERATOR_POD_LABELS": "NAME=VALUE,… of operator pods (default: none, any pod)",
    "LLMFLEET_PROMETHEUS_NAMESPACE_LABELS": "NAME=VALUE,… of the namespace Prometheus runs in"
    " (default kubernetes.io/metadata.name=monitoring; none = every namespace)",
    "LLMFLEET_PROMETHEUS_POD_LABELS": "NAME=VALUE,… of Prometheus' pods (default: none, any pod)",
    "LLMFLEET_PROMETHEUS_URL": "Prometheus, for what is not built yet: autoscaling (default: none)",
    "LLMFLEET_PROMETHEUS_TOKEN_FILE": "file of a bearer token for it (default: none)",
    "LLMFLEET_PROMETHEUS_BASIC_AUTH_DIR": "folder with the files username and password for it"
    " (default: none)",
    "LLMFLEET_PROMETHEUS_CA_FILE": "certificates of who may vouch for it (default: the system's)",
    "LLMFLEET_PROMETHEUS_CLIENT_CERTIFICATE_DIR": "folder with the files tls.crt and tls.key that"
    " are shown to it (default: none)",
    "LLMFLEET_PROMETHEUS_HEADERS": "headers sent to it, as a JSON object (default: none)",
    "LLMFLEET_PROMETHEUS_MATCHERS": "labels that its series must have beside the object's, as a"
    " JSON object (default: none)",
    "LLMFLEET_NOTIFY_URL": "webhook that gets every Event as a CloudEvent (default: none)",
    "LLMFLEET_POD_NAME": "name of this pod, for Events (default: the host name)",
    "LLMFLEET_POD_UID": "uid of this pod, its identity in the Lease (default: host name and pid)",
    "LLMFLEET_POD_NAMESPACE": "namespace of this pod and of the Lease (default: default)",
    "LLMFLEET_WATCH_NAMESPACES": "namespaces to serve, separated by commas (default: all)",
    "LLMFLEET_LEADER_ELECTION": "whether to wait for the Lease (true|false, default true)",
    "LLMFLEET_LOG_LEVEL": "debug|info|warning|error (default info)",
    "LLMFLEET_LOG_FORMAT": "json|console (default json)",
    "LLMFLEET_METRICS_ADDRESS": "HOST:PORT of /metrics, /healthz, /readyz (default 0.0.0.0:8080)",
}

_REQUIRED: Final = (
    "LLMFLEET_RUNTIME_IMAGE_GPU",
    "LLMFLEET_RUNTIME_IMAGE_CPU",
    "LLMFLEET_ROUTER_IMAGE",
)
_LEVELS: Final = ("debug", "info", "warning", "error")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, token."""
_HEADER_VALUE: Final = re.compile("([!-~]([ -~]*[!-~])?)?")
"""RFC 9110, field-value, of ASCII alone."""
_LABEL: Final = re.compile("[a-zA-Z_][a-zA-Z0-9_]*")
"""Prometheus' label names."""
_TAKEN_LABEL: Final = re.compile("__name__|llmdeployment.*")
"""Which metrics of which object are asked for is no setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the process was started with."""

    settings: OperatorSettings
    pod_name: str
    identity: str
    namespace: str
    watch_namespaces: tuple[str, ...]
    leader_election: bool
    log_level: str
    log_format: str
    metrics_host: str
    metrics_port: int
    prometheus: PrometheusAccess | None
    notify_url: str | None


def read_environment(variables: Mapping[str, str]) -> Environment:
    """Parse the variables of ``VARIABLES``.

    Raises:
        ValueError: a sentence naming every variable that is missing or wrong, and the fix.
    """
    problems = [
        f"{name} is not set: {VARIABLES[name]}" for name in _REQUIRED if not variables.get(name)
    ]
    host, _, port = (variables.get("LLMFLEET_METRICS_ADDRESS") or "0.0.0.0:8080").rpartition(":")
    if not port.isdigit():
        problems.append("LLMFLEET_METRICS_ADDRESS must be HOST:PORT")
    allow_file = _boolean(variables, "LLMFLEET_ALLOW_FILE_SOURCES", False, problems)
    election = _boolean(variables, "LLMFLEET_LEADER_ELECTION", True, problems)
    network = _network(variables, problems)
    level = _choice(variables, "LLMFLEET_LOG_LEVEL", _LEVELS, "info", problems)
    log_format = _choice(variables, "LLMFLEET_LOG_FORMAT", ("json", "console"), "json", problems)
    prometheus = _prometheus(variables, problems)
    notify = _url(variables, "LLMFLEET_NOTIFY_URL", problems)
    if problems:
        raise ValueError("; ".join(problems))
    host_name = socket.gethostname()
    namespaces = (variables.get("LLMFLEET_WATCH_NAMESPACES") or "").split(",")
    return Environment(
        settings=OperatorSettings(
            runtime_image_gpu=variables["LLMFLEET_RUNTIME_IMAGE_GPU"],
            runtime_image_cpu=variables["LLMFLEET_RUNTIME_IMAGE_CPU"],
            router_image=variables["LLMFLEET_ROUTER_IMAGE"],
            allow_file_sources=allow_file,
            network=network,
        ),
        pod_name=variables.get("LLMFLEET_POD_NAME") or host_name,
        identity=variables.get("LLMFLEET_POD_UID") or f"{host_name}-{os.getpid()}",
        namespace=variables.get("LLMFLEET_POD_NAMESPACE") or "default",
        watch_namespaces=tuple(sorted({name.strip() for name in namespaces} - {""})),
        leader_election=election,
        log_level=level,
        log_format=log_format,
        metrics_host=host,
        metrics_port=int(port),
        prometheus=prometheus,
        notify_url=notify,
    )


def _prometheus(variables: Mapping[str, str], problems: list[str]) -> PrometheusAccess | None:
    lead = "LLMFLEET_PROMETHEUS_"
    url = _url(variables, f"{lead}URL", problems)
    headers = _texts(variables, f"{lead}HEADERS", _HEADER, problems)
    matchers = _texts(variables, f"{lead}MATCHERS", _LABEL, problems)
    odd = [name for name, text in headers.items() if not _HEADER_VALUE.fullmatch(text)]
    if odd:
        problems.append(
            f"{lead}HEADERS: the value of {', '.join(map(repr, odd))} must be ASCII, without"
            " blanks around it"
        )
    taken = [name for name in matchers if _TAKEN_LABEL.fullmatch(name)]
    if taken:
        problems.append(
            f"{lead}MATCHERS: {', '.join(map(repr, taken))} is what the operator itself asks for:"
            " leave it out"
        )
    token, basic = _path(variables, f"{lead}TOKEN_FILE"), _path(variables, f"{lead}BASIC_AUTH_DIR")
    if token is not None and basic is not None:
        problems.append(f"{lead}TOKEN_FILE and {lead}BASIC_AUTH_DIR are both set: leave one out")
    if (token or basic) and "authorization" in {name.lower() for name in headers}:
        problems.append(
            f"{lead}HEADERS has Authorization beside a token or a password: leave one out"
        )
    if url is None:
        return None
    return PrometheusAccess(
        url=url,
        token_file=token,
        basic_auth=basic,
        ca_file=_path(variables, f"{lead}CA_FILE"),
        client_certificate=_path(variables, f"{lead}CLIENT_CERTIFICATE_DIR"),
        headers=headers,
        matchers=tuple(sorted(matchers.items())),
    )


def _url(variables: Mapping[str, str], name: str, problems: list[str]) -> str | None:
    url = variables.get(name, "").strip() or None  # a Secret's text ends with a line end
    if url is not None and not url.startswith(("http://", "https://")):
        problems.append(f"{name} must begin with http:// or https://")
    elif url is not None and not _has_host(url):
        problems.append(f"{name} must have a host, and a port of at most 65535 if any")
    return url


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _path(variables: Mapping[str, str], name: str) -> Path | None:
    text = variables.get(name)
    return Path(text) if text else None


def _texts(
    variables: Mapping[str, str], name: str, key: re.Pattern[str], problems: list[str]
) -> dict[str, str]:
    """A JSON object of texts whose names are of one form, and whose values are of one line."""
    try:
        found = json.loads(variables.get(name) or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        problems.append(f'{name} must be a JSON object, such as {{"NAME": "VALUE"}}')
        return {}
    wrong = [
        each
        for each, text in found.items()
        if not (key.fullmatch(each) and isinstance(text, str) and text.isprintable())
    ]
    if wrong:
        problems.append(f"{name}: {', '.join(map(repr, wrong))} must be a name and a line of text")
    return {each: text for each, text in found.items() if each not in wrong}


def _network(variables: Mapping[str, str], problems: list[str]) -> NetworkSettings | None:
    wanted = _boolean(variables, "LLMFLEET_NETWORK_POLICIES", True, problems)
    monitoring = "kubernetes.io/metadata.name=monitoring"
    settings = NetworkSettings(
        operator_namespace=variables.get("LLMFLEET_POD_NAMESPACE") or "default",
        operator_pod_labels=_labels(variables, "LLMFLEET_OPERATOR_POD_LABELS", "", problems),
        prometheus_namespace_labels=_labels(
            variables, "LLMFLEET_PROMETHEUS_NAMESPACE_LABELS", monitoring, problems
        ),
        prometheus_pod_labels=_labels(variables, "LLMFLEET_PROMETHEUS_POD_LABELS", "", problems),
    )
    return settings if wanted else None


def _labels(variables: Mapping[str, str], name: str, default: str, problems: list[str]) -> Labels:
    pairs = [part.strip().partition("=") for part in variables.get(name, default).split(",")]
    if any(part and not (middle and value) for part, middle, value in pairs):
        problems.append(f"{name} must be NAME=VALUE, several separated by commas")
    return tuple(sorted((part, value) for part, _, value in pairs if part))


def _boolean(variables: Mapping[str, str], name: str, default: bool, problems: list[str]) -> bool:
    words = {True: "true", False: "false"}
    return _choice(variables, name, ("true", "false"), words[default], problems) == "true"


def _choice(
    variables: Mapping[str, str],
    name: str,
    allowed: tuple[str, ...],
    default: str,
    problems: list[str],
) -> str:
    value = (variables.get(name) or default).lower()
    if value not in allowed:
        problems.append(f"{name} is {value!r}, it must be one of {', '.join(allowed)}")
    return value
