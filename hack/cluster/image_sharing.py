"""Gives a further node's containerd the images of the first one without a copy of them.

A containerd keeps its images' content and unpacked layers in folders whose names two small
databases know. The databases are copied and the folders linked to, so a node of 7 GB of images is
there in a second; what is written for the node's own containers is written in folders of its own.
"""

import shutil
from pathlib import Path
from typing import Protocol

from hack.cluster.errors import ClusterError

_DATABASES = (
    "io.containerd.metadata.v1.bolt/meta.db",
    "io.containerd.snapshotter.v1.overlayfs/metadata.db",
)
_LINKED = (
    "io.containerd.content.v1.content/blobs/sha256",
    "io.containerd.snapshotter.v1.overlayfs/snapshots",
)
_ATTEMPTS = 20


class Readable(Protocol):
    """As much of a path as is needed to read a file."""

    def read_bytes(self) -> bytes:
        """All of it."""


def share_images(source: Path, target: Path) -> None:
    """Fills the root folder of a containerd that does not run yet.

    What it later removes are the links: neither its collector nor `shutil.rmtree` follows one.

    Args:
        source: Root folder of a containerd that may be running.
        target: Root folder of the other one, which has nothing in it.

    Raises:
        ClusterError: The source's databases do not rest long enough to be copied.
    """
    # First what is linked to by the databases last: a layer that goes meanwhile is a link too many.
    for name in _LINKED:
        folder = target / name
        folder.mkdir(parents=True, mode=0o700)
        for path in (source / name).iterdir():
            (folder / path.name).symlink_to(path)
    for name in _DATABASES:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(resting(source / name))
        shutil.copymode(source / name, path)


def resting(database: Readable) -> bytes:
    """A database's content at one moment: two readings that are equal had no write between them."""
    before = database.read_bytes()
    for _ in range(_ATTEMPTS):
        now = database.read_bytes()
        if now == before:
            return now
        before = now
    raise ClusterError(f"{database} is written all the time: end what starts containers, try again")
