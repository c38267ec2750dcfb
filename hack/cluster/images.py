"""Builds our images with buildah and loads them into containerd, without Docker or a registry."""

import contextlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hack.cluster import imagespec, preflight
from hack.cluster.console import Steps
from hack.cluster.errors import ClusterError
from hack.cluster.imagespec import ImageSpec
from hack.cluster.local import BUSYBOX_IMAGE, LocalCluster
from hack.cluster.shell import run, tail

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_KEPT = 3  # older references per image: revisions that were rolled out may still name them
# buildah compresses what it writes into an OCI folder, and compressed layers are not found again by
# their plain digest: only what is small, our own code, goes that way.
_SMALL_PUSH_BYTES = 32 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An image in buildah's storage: what it was built from, its id, and the reference it gets."""

    stamp: str
    identifier: str
    reference: str


class Images:
    """The images of one local cluster; buildah's storage is our own, under the cache folder."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._settings = cluster.settings
        self._folder = cluster.settings.cache / "images"
        self._storage = cluster.settings.cache / "buildah"

    def load_all(self) -> dict[str, str]:
        """Builds what changed, loads what is not loaded, and writes images.json.

        Raises:
            ClusterError: The cluster is down, the disk is short, or a build fails.
        """
        if not self._cluster.healthy():
            raise ClusterError("the cluster is not up: `make cluster-up` starts it")
        specs = imagespec.image_specs(os.environ.get("TORCH_INDEX_URL", ""))
        base = self._base_identifier()
        loaded = self._loaded()
        work = [spec for spec in specs if not self._is_loaded(spec, base, loaded)]
        if work or not base:
            self._check_disk(work)
        steps = Steps(total=bool(not base) + 2 * len(work) + 1)
        if not base:
            with steps.step(f"make the base image (Debian {imagespec.BASE_SUITE})"):
                base = self._make_base()
        references = {}
        for spec in specs:
            if spec in work:
                with steps.step(f"build image {spec.name}"):
                    built = self._build(spec, base)
                with steps.step(f"load image {spec.name} ({built.reference})"):
                    self._load(built)
                self._prune(spec, built)
            else:
                built = self._require_record(spec)
            references[spec.name] = built.reference
        references["base"] = self._load_base(base)
        references["busybox"] = BUSYBOX_IMAGE
        self._settings.images_json.write_text(json.dumps(references, indent=1) + "\n")
        with steps.step("start Prometheus"):
            self._cluster.start_prometheus(references["prometheus"])
        return references

    def add(self, spec: ImageSpec) -> str:
        """Builds and loads one more image, for tests, upon the ones that `load_all` built.

        Returns:
            Its reference by digest, as ``spec.engine.image`` wants it.

        Raises:
            ClusterError: The cluster is down, or the build fails.
        """
        built = self._build(spec, self._base_identifier())
        self._load(built)
        lines = run([*self._cluster.ctr(), "images", "list", f"name=={built.reference}"])
        digest = next(word for word in lines.split() if word.startswith("sha256:"))
        reference = f"{built.reference.rpartition(':')[0]}@{digest}"
        if reference not in self._loaded():
            run([*self._cluster.ctr(), "images", "tag", built.reference, reference])
        return reference

    def identifier(self, name: str) -> str:
        """The id of an image that `load_all` built, for ``FROM``.

        Raises:
            ClusterError: It has not been built yet.
        """
        built = self._record(name)
        if built is None:
            raise ClusterError(f"image {name} has not been built: run `make images`")
        return built.identifier

    # ── what is there ───────────────────────────────────────────────────────────────────────────

    def _record(self, name: str) -> Built | None:
        try:
            return Built(**json.loads((self._folder / f"{name}.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _require_record(self, spec: ImageSpec) -> Built:
        built = self._record(spec.name)
        if built is None:
            raise ClusterError(f"the record of image {spec.name} vanished; run the command again")
        return built

    def _loaded(self) -> set[str]:
        return set(run([*self._cluster.ctr(), "images", "list", "-q"]).split())

    def _is_loaded(self, spec: ImageSpec, base: str, loaded: set[str]) -> bool:
        built = self._record(spec.name)
        if built is None or not base:
            return False
        stamp = imagespec.stamp_of(self._settings.repository, spec, base)
        return built.stamp == stamp and built.reference in loaded

    def _check_disk(self, work: list[ImageSpec]) -> None:
        needed = 1.0
        for spec in work:
            built = self._record(spec.name)
            needed += spec.disk_gib if built is None else spec.disk_gib / 2
        preflight.require_disk(self._settings.cache, needed, "building and loading the images")

    # ── building ────────────────────────────────────────────────────────────────────────────────

    def _buildah(self, *words: str, check: bool = True) -> str:
        return run([*self._buildah_prefix(), *words], check=check)

    def _buildah_prefix(self) -> list[str]:
        run_root = self._settings.run / "buildah"
        return ["buildah", "--root", str(self._storage), "--runroot", str(run_root)]

    def _base_identifier(self) -> str:
        built = self._record("base")
        return built.identifier if built and built.stamp == _base_stamp() else ""

    def _make_base(self) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        archive = self._folder / "base.tar"
        include = "--include=" + ",".join(imagespec.BASE_PACKAGES)
        line = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            include,
            imagespec.BASE_SUITE,
            str(archive),
        ]
        try:
            run(line)
            container = self._buildah("from", "scratch").strip()
            try:
                self._buildah("add", "--quiet", container, str(archive), "/")
                identifier = self._buildah("commit", "--quiet", container, imagespec.BASE).strip()
            finally:
                self._buildah("rm", container, check=False)
        finally:
            archive.unlink(missing_ok=True)
        self._remember("base", _base_stamp(), identifier)
        return identifier

    def _remember(self, name: str, stamp: str, identifier: str) -> Built:
        reference = f"localhost/llmfleet/{name}:{identifier[:12]}"
        built = Built(stamp=stamp, identifier=identifier, reference=reference)
        record = {"stamp": stamp, "identifier": identifier, "reference": reference}
        (self._folder / f"{name}.json").write_text(json.dumps(record) + "\n")
        return built

    def _build(self, spec: ImageSpec, base: str) -> Built:
        repository = self._settings.repository
        stamp = imagespec.stamp_of(repository, spec, base)
        built = self._record(spec.name)
        if built and built.stamp == stamp and self._in_storage(built):
            return built
        identifier_file = self._folder / f"{spec.name}.id"
        line = [*self._buildah_prefix(), "bud", "--isolation", "chroot", "--layers"]
        line += ["--file", str(repository / spec.dockerfile), "--iidfile", str(identifier_file)]
        line += ["--tag", f"localhost/llmfleet/{spec.name}:latest"]
        line += ["--target", spec.target] if spec.target else []
        line += self._pip_options()
        for key, value in (("BASE_IMAGE", imagespec.BASE), *spec.arguments):
            line += ["--build-arg", f"{key}={value}"]
        log = self._folder / f"{spec.name}.log"
        with log.open("w") as output:
            done = subprocess.run(
                [*line, str(repository)],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        if done.returncode:
            said = tail(log.read_text(errors="replace"), lines=6)
            raise ClusterError(f"building image {spec.name} failed (log: {log}): {said}")
        return self._remember(
            spec.name, stamp, identifier_file.read_text().strip().removeprefix("sha256:")
        )

    def _pip_options(self) -> list[str]:
        """The host's certificates and pip cache, and its pip settings, for use during a build."""
        cache = self._settings.cache / "pip"
        cache.mkdir(parents=True, exist_ok=True)
        options = ["--volume", f"{cache}:/tmp/.cache/pip", "--build-arg", "PIP_NO_CACHE_DIR="]
        certificates = Path(os.environ.get("PIP_CERT") or _CERTIFICATES)
        if certificates.exists():
            options += ["--volume", f"{certificates.parent}:{certificates.parent}:ro"]
            options += ["--build-arg", f"PIP_CERT={certificates}"]
        if index := os.environ.get("PIP_INDEX_URL"):
            options += ["--build-arg", f"PIP_INDEX_URL={index}"]
        return options

    def _in_storage(self, built: Built) -> bool:
        return built.identifier[:12] in self._buildah("images", "--quiet", check=False)

    # ── loading ─────────────────────────────────────────────────────────────────────────────────

    def _load_base(self, base: str) -> str:
        built = self._record("base") or self._remember("base", _base_stamp(), base)
        if built.reference not in self._loaded():
            self._load(built)
        return built.reference

    def _load(self, built: Built) -> None:
        if built.reference in self._loaded():
            return
        inspected = json.loads(self._buildah("inspect", "--type", "image", built.identifier))
        digests = [
            digest.removeprefix("sha256:") for digest in inspected["OCIv1"]["rootfs"]["diff_ids"]
        ]
        content = self._settings.containerd_root / "io.containerd.content.v1.content/blobs/sha256"
        present = [content / digest for digest in digests if (content / digest).exists()]
        known = sum(path.stat().st_size for path in present)
        if inspected_size(self._storage, built.identifier) - known < _SMALL_PUSH_BYTES:
            self._push_difference(built, present)
        else:
            self._push_whole(built)

    def _push_whole(self, built: Built) -> None:
        """Pipes the image, because an archive of it on disk would take as much space again."""
        line = [
            "push",
            "--quiet",
            built.identifier,
            f"docker-archive:/dev/stdout:{built.reference}",
        ]
        push = subprocess.Popen(
            [*self._buildah_prefix(), *line], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        done = subprocess.run(
            [*self._cluster.ctr(), "images", "import", "-"],
            stdin=push.stdout,
            capture_output=True,
            check=False,
        )
        if push.stdout:
            push.stdout.close()
        if push.wait() or done.returncode:
            said = tail(done.stderr.decode(errors="replace"))
            raise ClusterError(f"loading {built.reference} failed: {said}")

    def _push_difference(self, built: Built, present: list[Path]) -> None:
        """Sends only the layers that containerd lacks.

        Those it has are linked into an OCI folder, where buildah finds and skips them; they are
        then left out of the archive, since containerd looks layers up by digest in its own store.
        """
        with self._scratch() as folder:
            blobs = folder / "blobs/sha256"
            blobs.mkdir(parents=True)
            for path in present:
                os.link(path, blobs / path.name)
            line = [
                "push",
                "--quiet",
                "--disable-compression",
                built.identifier,
                f"oci:{folder}:new",
            ]
            self._buildah(*line)
            index = json.loads((folder / "index.json").read_text())
            for manifest in index["manifests"]:
                manifest["annotations"] = {"io.containerd.image.name": built.reference}
            (folder / "index.json").write_text(json.dumps(index))
            skipped = {path.name for path in present}
            archive = folder / "image.tar"
            with tarfile.open(archive, "w") as tar:
                for name in ("oci-layout", "index.json"):
                    tar.add(folder / name, arcname=name)
                for path in sorted(blobs.iterdir()):
                    if path.name not in skipped:
                        tar.add(path, arcname=f"blobs/sha256/{path.name}")
            run([*self._cluster.ctr(), "images", "import", str(archive)])

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder on containerd's own file system, so that blobs can be linked."""
        folder = Path(tempfile.mkdtemp(dir=self._settings.containerd_root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # ── housekeeping ────────────────────────────────────────────────────────────────────────────

    def _prune(self, spec: ImageSpec, built: Built) -> None:
        """Removes older versions, in containerd and in buildah's storage."""
        history = self._folder / f"{spec.name}.history"
        lines = history.read_text().split() if history.exists() else []
        newest = [built.reference, *(line for line in lines if line != built.reference)][
            : _KEPT + 1
        ]
        history.write_text("\n".join(newest) + "\n")
        in_use = set(self._cluster.kubectl("get", "pods", "-A", "-o", "jsonpath={..image}").split())
        loaded = sorted(self._loaded())
        old = imagespec.superseded(loaded, name=spec.name, in_use=in_use, newest=newest)
        if old:
            run([*self._cluster.ctr(), "images", "remove", *old])
        # Dangling images in our own storage are earlier builds and intermediate layers of theirs.
        self._buildah("rmi", "--prune", check=False)


def inspected_size(storage: Path, identifier: str) -> int:
    """Uncompressed bytes of an image's layers, from buildah's own records."""
    layers = json.loads((storage / "overlay-layers/layers.json").read_text())
    sizes = {layer["id"]: layer for layer in layers}
    images = json.loads((storage / "overlay-images/images.json").read_text())
    layer = next(image["layer"] for image in images if image["id"] == identifier)
    total = 0
    while layer:
        total += sizes[layer].get("diff-size", 0)
        layer = sizes[layer].get("parent", "")
    return total


def _base_stamp() -> str:
    return " ".join((imagespec.BASE_SUITE, *imagespec.BASE_PACKAGES))
