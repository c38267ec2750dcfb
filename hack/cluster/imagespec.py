"""Which images there are and what goes into them. Pure but for reading the checkout."""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

BASE = "localhost/llmfleet/base:latest"
BASE_SUITE = "bookworm"
BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates", "libgomp1", "libnuma1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """One image to build.

    Attributes:
        name: Its short name, and its key in images.json.
        dockerfile: Relative to the repository.
        target: The stage, or empty for the last.
        inputs: Files and folders whose content decides what comes out, relative to the repository.
        arguments: Build arguments that belong to it.
        disk_gib: Free space that a first build and load take.
    """

    name: str
    dockerfile: str
    target: str = ""
    inputs: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    disk_gib: float = 2.0


def image_specs(torch_index_url: str = "") -> tuple[ImageSpec, ...]:
    """The images of the local cluster, lightest first."""
    shared = ("LICENSE", "requirements/build.txt")
    arguments = (("DEVICE", "cpu"), ("TORCH_INDEX_URL", torch_index_url))
    return (
        ImageSpec(
            name="prometheus",
            dockerfile="hack/cluster/prometheus/Dockerfile",
            inputs=("hack/cluster/prometheus/discover.py",),
        ),
        ImageSpec(
            name="operator",
            dockerfile="Dockerfile",
            target="operator",
            inputs=(*shared, "requirements/operator.txt", "operator/llmfleet"),
        ),
        ImageSpec(
            name="router",
            dockerfile="Dockerfile",
            target="router",
            inputs=(
                *shared,
                "requirements/native.txt",
                "requirements/router.txt",
                "runtime/llmfleet_router",
            ),
        ),
        ImageSpec(
            name="runtime",
            dockerfile="Dockerfile",
            target="runtime",
            inputs=(
                *shared,
                "requirements/runtime-cpu-torch.txt",
                "requirements/runtime-cpu.txt",
                "runtime/llmfleet_runtime",
            ),
            arguments=arguments,
            disk_gib=8.0 if torch_index_url else 26.0,
        ),
    )


def stamp_of(repository: Path, spec: ImageSpec, base: str) -> str:
    """Hash of everything that decides an image: sources, locks, Dockerfile, arguments and base."""
    digest = hashlib.sha256(json.dumps([base, spec.target, spec.arguments]).encode())
    for path in _files(repository, (spec.dockerfile, *spec.inputs)):
        name = path.relative_to(repository).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    if "LICENSE" in spec.inputs:  # our own images are built from the project's metadata
        digest.update(json.dumps(_packaging(repository), sort_keys=True).encode())
    return digest.hexdigest()


def _files(repository: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        path = repository / name
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (p for p in found if p.is_file() and "__pycache__" not in p.parts)


def _packaging(repository: Path) -> Mapping[str, object]:
    """What of pyproject.toml ends up in a wheel; tools and dependencies may change freely."""
    whole = tomllib.loads((repository / "pyproject.toml").read_text())
    project = whole["project"]
    kept = {
        key: project[key]
        for key in ("name", "version", "scripts", "entry-points")
        if key in project
    }
    return {**kept, "setuptools": whole["tool"]["setuptools"], "build": whole["build-system"]}


def superseded(
    references: list[str], *, name: str, in_use: set[str], newest: list[str]
) -> list[str]:
    """The loaded references of an image that may go: neither in use by a pod nor among the newest.

    >>> superseded(["localhost/llmfleet/router:a", "localhost/llmfleet/router:b"],
    ...            name="router", in_use=set(), newest=["localhost/llmfleet/router:b"])
    ['localhost/llmfleet/router:a']
    """
    prefix = f"localhost/llmfleet/{name}:"
    ours = [reference for reference in references if reference.startswith(prefix)]
    old = [reference for reference in ours if reference not in in_use and reference not in newest]
    # containerd's CRI part keeps a second name, the image's id, whose first digits are our tag.
    by_identifier = tuple(f"sha256:{reference.removeprefix(prefix)}" for reference in old)
    return old + [reference for reference in references if reference.startswith(by_identifier)]
