"""The local cluster: real Kubernetes on this machine, as processes (local) or in Docker (kind).

up      start it, or repair it; builds what is missing first
down    stop it and remove all it made; programs, images and caches stay
status  what runs; exit code 1 when the cluster is not healthy
env     shell exports for kubectl and helm: eval "$(python -m hack.cluster env)"
build   only build the programs, those that only tests need too
images  build our images, load them, start Prometheus
load    load another image, from a Docker or OCI archive file
node    a node beside the first one (local): node add|stop|lose|remove NAME
lock    resolve requirements/ anew
"""

import argparse
import fcntl
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hack.cluster import golang, kind, lock
from hack.cluster.console import Steps
from hack.cluster.errors import ClusterError
from hack.cluster.further_nodes import FurtherNodes
from hack.cluster.images import Images
from hack.cluster.kind import KindCluster
from hack.cluster.local import LocalCluster
from hack.cluster.settings import Settings, read_settings
from hack.cluster.shell import run


def choose_flavour() -> str:
    """`local` or `kind`, from LLMFLEET_CLUSTER; by default kind if a Docker engine answers.

    Raises:
        ClusterError: LLMFLEET_CLUSTER has another value.
    """
    asked = os.environ.get("LLMFLEET_CLUSTER", "")
    if asked not in {"", "kind", "local"}:
        raise ClusterError(f"LLMFLEET_CLUSTER is {asked!r}; use kind or local, or leave it unset")
    return asked or ("kind" if kind.docker_answers() else "local")


def environment(settings: Settings, flavour: str) -> str:
    """Shell exports that make plain kubectl and helm work on the cluster."""
    exports = {
        "KUBECONFIG": settings.kubeconfig,
        "LLMFLEET_VOLUMES": settings.volumes,
        "LLMFLEET_IMAGES": settings.images_json,
    }
    if flavour == "local":
        exports["LLMFLEET_AUDIT_LOG"] = settings.audit_log
    lines = [f"export {name}={shlex.quote(str(path))}" for name, path in exports.items()]
    return "\n".join((*lines, f'export PATH={shlex.quote(str(settings.binaries))}:"$PATH"'))


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Holds the lock of a cluster: two changes of the same one come after each other."""
    settings.cache.mkdir(parents=True, exist_ok=True)
    with (settings.cache / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another command on this cluster to end …", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def change_nodes(words: list[str], settings: Settings, flavour: str) -> None:
    """Performs `node add|stop|lose|remove NAME`.

    Raises:
        ClusterError: The words are others, or the cluster cannot have further nodes.
    """
    if len(words) != 2 or words[0] not in {"add", "stop", "lose", "remove"}:
        raise ClusterError("say `python -m hack.cluster node add NAME`, or stop, lose or remove")
    if flavour != "local":
        raise ClusterError("kind gets no further nodes here: set LLMFLEET_CLUSTER=local")
    nodes = FurtherNodes(LocalCluster(settings))
    match words:
        case ["add", name]:
            nodes.add(name)
        case ["stop", name]:
            nodes.stop(name)
        case ["lose", name]:
            nodes.lose(name)
        case [_, name]:
            nodes.remove(name)


def change(command: str, words: list[str], settings: Settings, flavour: str) -> None:
    """Performs a command that changes the cluster or its caches."""
    local, other = LocalCluster(settings), KindCluster(settings)
    match command, flavour:
        case "up", "local":
            local.up()
        case "up", _:
            other.up()
        case "down", "local":
            local.down()
        case "down", _:
            other.down()
        case "images", "local":
            Images(local).load_all()
        case "images", _:
            other.load_images()
        case "node", _:
            change_nodes(words, settings, flavour)
        case "load", _ if len(words) != 1:
            raise ClusterError("load needs an archive: python -m hack.cluster load IMAGE.tar")
        case "load", "local":
            print(run([*local.ctr(), "images", "import", words[0]]), end="")
        case "load", _:
            run(["kind", "load", "image-archive", "--name", kind.NAME, words[0]])
        case _:
            products = golang.PRODUCTS if flavour == "local" else golang.KIND_PRODUCTS
            outdated = golang.outdated(settings, (*products, *golang.TEST_PRODUCTS))
            golang.build(settings, outdated, Steps(total=len(outdated)))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="hack.cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = ["up", "down", "status", "env", "build", "images", "load", "node", "lock"]
    parser.add_argument("command", choices=commands)
    parser.add_argument("words", nargs="*", help="load: an archive; node: what to do, and its name")
    arguments = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    settings = read_settings()
    try:
        flavour = choose_flavour()
        match arguments.command:
            case "env":
                print(environment(settings, flavour))
            case "status":
                cluster = LocalCluster(settings) if flavour == "local" else KindCluster(settings)
                return 0 if cluster.status() else 1
            case "lock":
                for path in lock.write_locks(settings.repository):
                    print(path)
            case command:
                with alone(settings):
                    change(command, arguments.words, settings, flavour)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
