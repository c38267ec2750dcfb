"""The nodes' network namespaces, and their links to the host and to each other.

Everything of the cluster, pods included, lives in its nodes' namespaces; only the nodes' own subnet
is reachable from the host, by way of the first one, and nothing in a namespace has a way out.
A further node is one veth pair away from the first, which routes between all of them.
"""

import subprocess
from pathlib import Path

from hack.cluster.node import Node, first_node
from hack.cluster.settings import Settings
from hack.cluster.shell import run

# What a lost node neither gets nor sends. Its address still answers ARP, so packets vanish without
# a word, as they do behind a cloud's router; a link that is down would be told to senders at once.
_SILENCE = (
    "-t raw {} PREROUTING -i uplink -j DROP",
    "-t mangle {} POSTROUTING -o uplink -j DROP",
)


def inside(node: Node) -> list[str]:
    """The prefix that runs a command in a node's namespace.

    nsenter, because `ip netns exec` mounts /sys anew and so hides the cgroups.
    """
    return ["nsenter", f"--net={node.namespace}", "--"]


def exists(node: Node) -> bool:
    """Whether the namespace is there and usable (after a reboot only an empty file may be left)."""
    if not node.namespace.exists():
        return False
    probe = subprocess.run(
        [*inside(node), "true"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return probe.returncode == 0


def create(settings: Settings) -> None:
    """Makes the first node's namespace and interface, link and host route; safe to repeat."""
    first = first_node(settings)
    if exists(first) and _linked(settings):
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
        run([*inside(first), "ip", *words.split()])
    _forward(first)
    run(["ip", "route", "replace", settings.node_subnet, "via", settings.link_node_ip])


def _forward(node: Node) -> None:
    script = (
        "echo 1 > /proc/sys/net/ipv4/ip_forward; "
        "[ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || "
        "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables"
    )
    run([*inside(node), "sh", "-c", script])


def join(node: Node) -> None:
    """Makes a further node's namespace and its link to the first node; safe to repeat."""
    first = first_node(node.settings)
    device = run([*inside(first), "ip", "link", "show", node.device], check=False)
    if not exists(node) or not device:
        leave(node)
        run(["ip", "netns", "add", node.unit])
        for place, words in (
            (first, f"link add {node.device} type veth peer name uplink netns {node.unit}"),
            (first, f"link set {node.device} up"),
            (node, "link set lo up"),
            (node, f"address add {node.ip}/32 dev uplink"),
            (node, "link set uplink up"),
            # All the rest is reached through the first node, further nodes too.
            (node, f"route add {first.ip} dev uplink"),
            (node, f"route add default via {first.ip}"),
            (first, f"route add {node.ip} dev {node.device} src {first.ip}"),
            (first, f"route add {node.pod_cidr} via {node.ip} src {first.ip}"),
        ):
            run([*inside(place), "ip", *words.split()])
        _forward(node)
    cut(node, off=False)


def cut(node: Node, *, off: bool = True) -> None:
    """Lets every packet from and to a further node vanish, or ends that."""
    for rule in _SILENCE:
        there = run([*inside(node), "iptables", *rule.format("-S").split()[:4]], check=False)
        present = " -j DROP" in there
        if present != off:
            run([*inside(node), "iptables", "-w", *rule.format("-I" if off else "-D").split()])


def leave(node: Node) -> None:
    """Removes a further node's namespace and the route to it; what is not there is no error."""
    first = first_node(node.settings)
    if exists(first):  # the routes go with the link
        run([*inside(first), "ip", "link", "delete", node.device], check=False)
    _delete_namespace(node.namespace)


def _delete_namespace(file: Path) -> None:
    if file.exists():
        run(["ip", "netns", "delete", file.name], check=False)
        file.unlink(missing_ok=True)


def _linked(settings: Settings) -> bool:
    """Whether the host's end of the link and its route are in place."""
    route = run(["ip", "-4", "route", "show", settings.node_subnet], check=False)
    return settings.link_device in route


def remove(settings: Settings) -> None:
    """Removes route, link and the namespaces of all nodes; what is not there is no error."""
    route = run(["ip", "-4", "route", "show", settings.node_subnet], check=False)
    if settings.link_device in route:
        run(
            ["ip", "route", "delete", settings.node_subnet, "dev", settings.link_device],
            check=False,
        )
    run(["ip", "link", "delete", settings.link_device], check=False)
    for file in _namespaces(settings):
        _delete_namespace(file)


def _namespaces(settings: Settings) -> list[Path]:
    """Those of all nodes, with a record or without one."""
    further = sorted(settings.namespace.parent.glob(f"{settings.name}-*"))
    return [file for file in (*further, settings.namespace) if file.exists()]


def foreign_route(settings: Settings) -> str | None:
    """A route of someone else to the subnet that we need, if there is one."""
    route = run(["ip", "-4", "route", "show", "root", settings.node_subnet], check=False).strip()
    return route if route and settings.link_device not in route else None


def leftovers(settings: Settings) -> list[str]:
    """What `remove` should have removed and did not."""
    left = [str(file) for file in _namespaces(settings)]
    if Path(f"/sys/class/net/{settings.link_device}").exists():
        left.append(f"network device {settings.link_device}")
    return left
