"""The node's network namespace and its link to the host.

Everything of the cluster, pods included, lives in the namespace; only the node's own subnet is
reachable from the host, and nothing in the namespace has a way out.
"""

import subprocess
from pathlib import Path

from hack.cluster.settings import Settings
from hack.cluster.shell import run


def inside(settings: Settings) -> list[str]:
    """The prefix that runs a command in the namespace.

    nsenter, because `ip netns exec` mounts /sys anew and so hides the cgroups.
    """
    return ["nsenter", f"--net={settings.namespace}", "--"]


def exists(settings: Settings) -> bool:
    """Whether the namespace is there and usable (after a reboot only an empty file may be left)."""
    if not settings.namespace.exists():
        return False
    probe = subprocess.run(
        [*inside(settings), "true"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return probe.returncode == 0


def create(settings: Settings) -> None:
    """Makes namespace, node interface, link and host route; safe to repeat."""
    if exists(settings) and _linked(settings):
        return
    remove(settings)
    name, device = settings.name, settings.link_device
    run(["ip", "netns", "add", name])
    run(["ip", "link", "add", device, "type", "veth", "peer", "name", "host", "netns", name])
    run(["ip", "address", "add", f"{settings.link_host_ip}/30", "dev", device])
    run(["ip", "link", "set", device, "up"])
    gateway = settings.node_ip.rpartition(".")[0] + ".1"
    for words in (
        "link set lo up",
        f"address add {settings.link_node_ip}/30 dev host",
        "link set host up",
        # A bridge as the node's own interface: some kernels have no dummy devices.
        "link add node0 type bridge",
        f"address add {settings.node_ip}/24 dev node0",
        "link set node0 up",
        # Components ask for a default route to find the node's address; nobody answers there.
        f"route add default via {gateway} dev node0",
    ):
        run([*inside(settings), "ip", *words.split()])
    script = (
        "echo 1 > /proc/sys/net/ipv4/ip_forward; "
        "[ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || "
        "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables"
    )
    run([*inside(settings), "sh", "-c", script])
    run(["ip", "route", "replace", settings.node_subnet, "via", settings.link_node_ip])


def _linked(settings: Settings) -> bool:
    """Whether the host's end of the link and its route are in place."""
    route = run(["ip", "-4", "route", "show", settings.node_subnet], check=False)
    return settings.link_device in route


def remove(settings: Settings) -> None:
    """Removes route, link and namespace; what is not there is no error."""
    route = run(["ip", "-4", "route", "show", settings.node_subnet], check=False)
    if settings.link_device in route:
        run(
            ["ip", "route", "delete", settings.node_subnet, "dev", settings.link_device],
            check=False,
        )
    run(["ip", "link", "delete", settings.link_device], check=False)
    if settings.namespace.exists():
        run(["ip", "netns", "delete", settings.name], check=False)
        settings.namespace.unlink(missing_ok=True)


def foreign_route(settings: Settings) -> str | None:
    """A route of someone else to the subnet that we need, if there is one."""
    route = run(["ip", "-4", "route", "show", "root", settings.node_subnet], check=False).strip()
    return route if route and settings.link_device not in route else None


def leftovers(settings: Settings) -> list[str]:
    """What `remove` should have removed and did not."""
    left = []
    if settings.namespace.exists():
        left.append(str(settings.namespace))
    if Path(f"/sys/class/net/{settings.link_device}").exists():
        left.append(f"network device {settings.link_device}")
    return left
