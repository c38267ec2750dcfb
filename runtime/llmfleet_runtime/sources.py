"""Turns a source (``hf://``, ``pvc://``, ``file://``) into a folder that vLLM can read.

Blocking: the supervisor runs it in a thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import structlog

from llmfleet_runtime.config import Weights
from llmfleet_runtime.downloads import DownloadMeter
from llmfleet_runtime.errors import ExitCode, Failure, Reason

log = structlog.get_logger("llmfleet_runtime")

DEFAULT_MODELS_ROOT = Path("/models")
RETRY_SECONDS = (2.0, 5.0, 10.0, 20.0)
"""Pauses after downloads that broke off; then the container ends, and its next one goes on."""
_NOT_WEIGHTS = ["*.pth", "*.gguf", "*.onnx", "*.msgpack", "*.h5", "original/*", "consolidated*"]


def _fail(reason: Reason, message: str, *, retriable: bool = False) -> Failure:
    return Failure(reason, message, exit_code=ExitCode.SOURCE, retriable=retriable)


def fetch(
    weights: Weights,
    *,
    models_root: Path,
    environment: Mapping[str, str],
    required_file: str = "config.json",
    meter: DownloadMeter | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """The local folder of these weights, downloaded first if they are on a hub.

    A download that breaks off is begun again and goes on with what is in the cache.

    Raises:
        Failure: exit code 3; ``ModelNotFound``, ``ModelUnreadable``, ``DownloadFailed`` or
            ``Unauthorized``, in a sentence with the fix.
    """
    scheme, _, rest = weights.source.partition("://")
    match scheme:
        case "hf":
            meter = meter or DownloadMeter(cache_folder(environment))
            path = _download(rest, weights.revision, environment, meter, sleep)
        case "pvc":
            path = _below(models_root, rest, weights.source)
        case "file":
            path = Path("/" + rest.lstrip("/"))
        case _:
            raise _fail(
                Reason.MODEL_NOT_FOUND,
                f"{weights.source}: {scheme}:// sources are not supported yet: use"
                " hf://ORG/NAME, pvc://CLAIM/PATH or file:///PATH",
            )
    check_readable(path, weights.source, required_file)
    return path


def _below(root: Path, rest: str, source: str) -> Path:
    path = root / rest
    if ".." in path.parts or path == root:
        raise _fail(Reason.MODEL_NOT_FOUND, f"{source} leaves its claim: name a path inside it")
    return path


def check_readable(path: Path, source: str, required_file: str = "config.json") -> None:
    """Checks that the folder holds a checkpoint this user can read.

    Raises:
        Failure: ``ModelNotFound`` or ``ModelUnreadable``, exit code 3.
    """
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except FileNotFoundError as error:
        near = _nearest_existing(path)
        listing = ", ".join(sorted(e.name for e in near.iterdir())[:8]) or "nothing"
        raise _fail(
            Reason.MODEL_NOT_FOUND,
            f"{source}: {path} does not exist; {near} holds {listing}: correct the path",
        ) from error
    except NotADirectoryError as error:
        raise _fail(
            Reason.MODEL_NOT_FOUND, f"{source}: {path} is a file: name the folder it lies in"
        ) from error
    except PermissionError as error:
        raise _fail(
            Reason.MODEL_UNREADABLE,
            f"{source}: {path} is not readable by uid {os.getuid()}: chmod it a+rX",
        ) from error
    if required_file not in names:
        raise _fail(
            Reason.MODEL_NOT_FOUND,
            f"{source}: {path} holds no {required_file}, but"
            f" {', '.join(names[:8]) or 'nothing'}: correct the path",
        )
    for name in names:
        file = path / name
        if file.is_file() and not os.access(file, os.R_OK):
            raise _fail(
                Reason.MODEL_UNREADABLE,
                f"{source}: {file} is not readable by uid {os.getuid()}: chmod it a+r"
                " (safetensors writes mode 0600)",
            )


def _nearest_existing(path: Path) -> Path:
    for parent in path.parents:
        try:
            if parent.is_dir():
                return parent
        except PermissionError:
            continue
    return Path("/")


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps what it downloads."""
    home = Path(environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(environment.get("HF_HUB_CACHE") or home / "hub")


def _download(
    repository: str,
    revision: str | None,
    environment: Mapping[str, str],
    meter: DownloadMeter,
    sleep: Callable[[float], None],
) -> Path:
    """Downloads one commit, again and again as long as bytes come between failures."""
    meter.begin(_size(repository, revision, environment))
    tries, most = 0, meter.sample()
    while True:
        try:
            return _download_once(repository, revision, environment)
        except Failure as failure:
            tries, before, most = tries + 1, most, meter.sample()
            if most > before:
                tries = 1
            if not failure.retriable or tries > len(RETRY_SECONDS):
                raise
            log.warning("download_again", message=failure.message, bytes=most, tries=tries)
        sleep(RETRY_SECONDS[tries - 1])


def _size(repository: str, revision: str | None, environment: Mapping[str, str]) -> int | None:
    """Bytes of what is to be downloaded; None where the hub does not say."""
    from huggingface_hub import HfApi  # noqa: PLC0415

    try:
        found: Any = HfApi().model_info(
            repository,
            revision=revision,
            token=environment.get("HF_TOKEN") or False,
            files_metadata=True,
            timeout=10.0,
        )
        return sum(
            int(each.size)
            for each in found.siblings
            if not any(fnmatch(each.rfilename, pattern) for pattern in _NOT_WEIGHTS)
        )
    except Exception:  # noqa: BLE001 - the download itself says what is wrong
        return None


def _download_once(repository: str, revision: str | None, environment: Mapping[str, str]) -> Path:
    """Downloads one commit with huggingface_hub, which resumes and verifies by itself."""
    # Imported late: it costs a second, and most sources are volumes.
    from huggingface_hub import errors, snapshot_download  # noqa: PLC0415

    name = f"hf://{repository}@{revision}"
    token = environment.get("HF_TOKEN")
    hint = (
        "check the key `token` of model.secretRef"
        if token
        else "set model.secretRef if it is private"
    )
    try:
        # vLLM's own rule: .bin weights only where there are no safetensors.
        path = snapshot_download(
            repository, revision=revision, token=token or False, ignore_patterns=_NOT_WEIGHTS
        )
    except errors.GatedRepoError as error:
        raise _fail(
            Reason.UNAUTHORIZED, f"{name} is gated: accept its terms, then {hint}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise _fail(
            Reason.MODEL_NOT_FOUND, f"{name}: no such commit: correct model.revision"
        ) from error
    except errors.RepositoryNotFoundError as error:
        # The hub answers 401 both to a bad token and to a repository that is private or absent.
        status = getattr(error.response, "status_code", None)
        reason = Reason.UNAUTHORIZED if status in {401, 403} and token else Reason.MODEL_NOT_FOUND
        raise _fail(reason, f"{name}: not found or not visible ({status}): {hint}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in {401, 403}:
            raise _fail(Reason.UNAUTHORIZED, f"{name}: refused with {status}: {hint}") from error
        raise _fail(
            Reason.DOWNLOAD_FAILED, f"{name}: the hub answered {status}", retriable=True
        ) from error
    except errors.HFValidationError as error:
        raise _fail(Reason.MODEL_NOT_FOUND, f"{name}: {error}") from error
    except Exception as error:  # any of a dozen network errors of the hub's HTTP library
        raise _fail(
            Reason.DOWNLOAD_FAILED,
            f"{name}: {type(error).__name__}: {error}".split("\n", maxsplit=1)[0],
            retriable=True,
        ) from error
    return Path(path)
