"""Images small enough to write by hand: one layer, as a Docker archive."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def _layer(files: Mapping[str, bytes], links: Mapping[str, str], folders: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for name in folders:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            layer.addfile(folder)
        for name, content in files.items():
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(content), 0o755
            layer.addfile(file, io.BytesIO(content))
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            layer.addfile(link)
    return buffer.getvalue()


def docker_archive(
    reference: str,
    *,
    command: Sequence[str],
    files: Mapping[str, bytes],
    links: Mapping[str, str] | None = None,
    folders: Sequence[str] = (),
) -> bytes:
    """A one-layer image as a Docker archive; the same input gives the same bytes."""
    layer = _layer(files, links or {}, folders)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "llmfleet"}],
        "created": "1970-01-01T00:00:00Z",
    }
    raw = json.dumps(config, sort_keys=True).encode()
    name = hashlib.sha256(raw).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in (
            (name, raw),
            ("layer.tar", layer),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def pause(reference: str, binary: Path) -> bytes:
    """The image that holds a pod's namespaces."""
    return docker_archive(reference, command=["/pause"], files={"pause": binary.read_bytes()})


def busybox(reference: str, binary: Path) -> bytes:
    """A shell with the usual small tools, for tests."""
    applets = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout
    links = {f"bin/{name}": "/bin/busybox" for name in sorted(applets.split()) if name != "busybox"}
    return docker_archive(
        reference,
        command=["/bin/sh"],
        files={"bin/busybox": binary.read_bytes()},
        links=links,
        folders=["bin", "etc", "root", "tmp"],
    )
