"""Plays what a cluster has besides its API server: controllers, kubelets and router agents.

One player serves all namespaces of a campaign. It scales Deployments, makes their pods ready (those
of a revision whose model is called broken crash instead), collects garbage, and answers for every
router pod on an address of its own in 127.0.0.0/8. KWOK with the real controller manager would do
the same at several seconds of processor time a plan; here a plan has to cost less than one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import ssl
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.faults.pods import (
    build_pod,
    build_replica_set,
    component,
    crashing_status,
    is_ready,
    owner,
    ready_status,
)

JSON = dict[str, Any]

AGENT_PORT = 9090
ROUTER_DELAY_SECONDS = 0.15
"""Routers take over a new command a little later, as real ones do, each at its own time."""
CONFIG_DELAY_SECONDS = 0.05
OWNER_LABEL = "llmfleet.dev/deployment"
WATCHED = {
    "llmdeployments": "/apis/llmfleet.dev/v1alpha1/llmdeployments",
    "deployments": "/apis/apps/v1/deployments",
    "replicasets": "/apis/apps/v1/replicasets",
    "pods": "/api/v1/pods",
    "services": "/api/v1/services",
    "configmaps": "/api/v1/configmaps",
    "serviceaccounts": "/api/v1/serviceaccounts",
    "secrets": "/api/v1/secrets",
    "controllerrevisions": "/apis/apps/v1/controllerrevisions",
    "poddisruptionbudgets": "/apis/policy/v1/poddisruptionbudgets",
    "roles": "/apis/rbac.authorization.k8s.io/v1/roles",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "networkpolicies": "/apis/networking.k8s.io/v1/networkpolicies",
}
_addresses = itertools.count(1 + 65536 * (os.getpid() % 64))
"""Begins elsewhere in every process, so that two campaigns can run at once."""


@dataclass
class Room:
    """One namespace as the player sees it, and what it has noticed there."""

    objects: dict[str, dict[str, JSON]] = field(default_factory=lambda: defaultdict(dict))
    """Plural → name → object."""
    uids: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    """(plural, name) → every uid it ever had."""
    served: dict[str, JSON] = field(default_factory=dict)
    """Router pod → the status.traffic and generation it has taken over."""
    served_uid: str | None = None
    """uid of the resource whose traffic command has had a ready pod to go to."""
    violations: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Something happened while the player was acting."""
    happened: asyncio.Event = field(default_factory=asyncio.Event)
    """Something happened, for those who wait."""
    acting: bool = False
    routing: bool = False
    commanded: asyncio.Event = field(default_factory=asyncio.Event)
    """Something happened while the routers were taking over a split."""


class Player:
    """Watches everything as an administrator and acts.

    Args:
        url: the API server.
        token: of an administrator.
        tls: trusts the API server's certificate.
        router_delay_seconds: after this, routers take over a new command.
    """

    def __init__(
        self,
        url: str,
        token: str,
        tls: ssl.SSLContext,
        router_delay_seconds: float = ROUTER_DELAY_SECONDS,
    ) -> None:
        self._url = url
        self._router_delay = router_delay_seconds
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=0),
            headers={"Authorization": f"Bearer {token}"},
            read_bufsize=8 * 2**20,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._agents: dict[str, web.AppRunner] = {}
        self._serial = itertools.count(1)
        self.rooms: dict[str, Room] = {}

    async def start(self) -> None:
        """Start all watches and wait for their lists."""
        synced = [asyncio.Event() for _ in WATCHED]
        for (plural, path), event in zip(WATCHED.items(), synced, strict=True):
            self._spawn(self._follow(plural, path, event))
        await asyncio.gather(*(event.wait() for event in synced))

    async def stop(self) -> None:
        """End everything."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(runner.cleanup() for runner in self._agents.values()))
        await self._session.close()

    def enter(self, namespace: str) -> Room:
        """Begin to act in a namespace."""
        self.rooms[namespace] = Room()
        return self.rooms[namespace]

    async def leave(self, namespace: str) -> None:
        """Stop acting there."""
        room = self.rooms.pop(namespace, None)
        for name in list(room.served if room else ()):
            await self._stop_agent(f"{namespace}/{name}")

    async def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, JSON]:
        """One call as administrator: status and answer."""
        headers = {"Content-Type": content_type} if body is not None else {}
        data = json.dumps(body) if body is not None else None
        async with self._session.request(
            method, self._url + path, data=data, headers=headers
        ) as answer:
            return answer.status, json.loads(await answer.read() or b"{}")

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, plural: str, path: str, synced: asyncio.Event) -> None:
        version = None
        while True:
            if version is None:
                _, page = await self.request("GET", f"{path}?limit=0")
                version = page["metadata"]["resourceVersion"]
                synced.set()
            query = f"?watch=true&resourceVersion={version}&allowWatchBookmarks=true"
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.get(
                    self._url + path + query, timeout=aiohttp.ClientTimeout(total=None)
                ) as stream:
                    while line := await stream.content.readline():
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            version = None
                            break
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            self._see(plural, event["type"] == "DELETED", event["object"])

    def _see(self, plural: str, gone: bool, body: JSON) -> None:
        meta = body["metadata"]
        room = self.rooms.get(meta["namespace"])
        if room is None or (plural != "llmdeployments" and not _ours(body)):
            return
        held = room.objects[plural].get(meta["name"])
        if held is not None and _version(held) > _version(body):
            return  # the answer of an own write was quicker than the watch
        if gone:
            room.objects[plural].pop(meta["name"], None)
            if meta["uid"] == room.served_uid:
                room.served_uid = None
        else:
            room.objects[plural][meta["name"]] = body
            room.uids[(plural, meta["name"])].add(meta["uid"])
        if plural in {"llmdeployments", "deployments", "pods"}:
            self._look(room)
        room.happened.set()
        room.changed.set()
        room.commanded.set()
        if not room.acting:
            room.acting = True
            self._spawn(self._act(meta["namespace"], room))
        if not room.routing:
            room.routing = True
            self._spawn(self._route(meta["namespace"], room))

    def _look(self, room: Room) -> None:
        """Whatever is commanded, or served by a router, has a ready pod, once anything had one."""
        for resource in room.objects["llmdeployments"].values():
            ready = self._ready_revisions(room, resource["metadata"]["uid"])
            shares = (resource.get("status") or {}).get("traffic") or []
            wanted = {one["revision"] for one in shares if one["weight"]}
            uid = resource["metadata"]["uid"]
            if resource["spec"].get("replicas") == 0:
                room.served_uid = None  # nothing is wanted, so nothing has to be ready
            elif wanted and wanted <= ready:
                room.served_uid = uid
            elif room.served_uid == uid:
                room.violations.append(
                    f"traffic goes to {sorted(wanted)}, ready are {sorted(ready)}"
                )
            for name, taken in room.served.items():
                wanted = set(taken["split"])
                if not wanted <= ready and room.served_uid == uid == taken["uid"]:
                    room.violations.append(
                        f"router {name} sends to {sorted(wanted)}, ready are {sorted(ready)}"
                    )

    def _ready_revisions(self, room: Room, uid: str) -> set[str]:
        """Revisions of this incarnation of the resource that have a ready pod."""
        mine = {
            deployment["metadata"]["uid"]
            for deployment in room.objects["deployments"].values()
            if owner(deployment) == uid
        }
        return {
            str(pod["metadata"]["labels"].get("llmfleet.dev/revision"))
            for uid in mine
            for pod in _pods_of(room, uid)
            if component(pod) == "engine" and is_ready(pod)
        }

    async def _act(self, namespace: str, room: Room) -> None:
        try:
            while room.changed.is_set():
                room.changed.clear()
                await self._collect_garbage(namespace, room)
                for deployment in list(room.objects["deployments"].values()):
                    await self._scale(namespace, room, deployment)
        finally:
            room.acting = False

    async def _route(self, namespace: str, room: Room) -> None:
        """Apart from ``_act``: pods come and go while routers still serve the split of before."""
        try:
            while room.commanded.is_set():
                room.commanded.clear()
                await self._update_routers(namespace, room)
        finally:
            room.routing = False

    async def _collect_garbage(self, namespace: str, room: Room) -> None:
        """Background deletion: whatever has an owner that is gone."""
        living = {
            one["metadata"]["uid"] for bodies in room.objects.values() for one in bodies.values()
        }
        for plural, bodies in room.objects.items():
            for body in list(bodies.values()):
                owners = body["metadata"].get("ownerReferences") or []
                if not owners or any(owner["uid"] in living for owner in owners):
                    continue
                if not await self._exists(namespace, owners[0]):
                    await self._delete(namespace, room, plural, body)

    async def _exists(self, namespace: str, owner: JSON) -> bool:
        """Ask the API server: another watch may just not have brought the owner yet."""
        path = _path(f"{owner['kind'].lower()}s", namespace, owner["name"])
        status, found = await self.request("GET", path)
        return status == 200 and found["metadata"]["uid"] == owner["uid"]

    async def _delete(self, namespace: str, room: Room, plural: str, body: JSON) -> None:
        name, uid = body["metadata"]["name"], body["metadata"]["uid"]
        options = {"preconditions": {"uid": uid}, "gracePeriodSeconds": 0}
        await self.request("DELETE", _path(plural, namespace, name), options)
        if room.objects[plural].get(name, {}).get("metadata", {}).get("uid") == uid:
            room.objects[plural].pop(name)
        if plural == "pods":
            room.served.pop(name, None)
            await self._stop_agent(f"{namespace}/{name}")
            self._look(room)

    async def _scale(self, namespace: str, room: Room, deployment: JSON) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        template = json.dumps(spec["template"], sort_keys=True)
        for pod in _pods_of(room, meta["uid"]):
            if pod["metadata"]["annotations"]["template"] != template:
                await self._replace(namespace, room, deployment, template, pod)
        mine = _pods_of(room, meta["uid"])
        mine.sort(key=lambda pod: (is_ready(pod), pod["metadata"]["name"]), reverse=True)
        for pod in mine[spec.get("replicas", 1) :]:
            await self._delete(namespace, room, "pods", pod)
        for _ in range(spec.get("replicas", 1) - len(mine)):
            await self._make_pod(namespace, room, deployment, template)

    async def _replace(
        self, namespace: str, room: Room, deployment: JSON, template: str, pod: JSON
    ) -> None:
        """Roll one pod to another template: an engine goes when its successor is ready.

        A router's successor is not ready before it serves, so of routers the old one goes first.
        """
        if component(pod) == "engine":
            await self._make_pod(namespace, room, deployment, template)
        await self._delete(namespace, room, "pods", pod)

    async def _make_pod(self, namespace: str, room: Room, deployment: JSON, template: str) -> None:
        replica_set = await self._find_replica_set(namespace, room, deployment, template)
        if replica_set is None:
            return
        name = f"{deployment['metadata']['name']}-{next(self._serial)}"
        body = build_pod(name, replica_set, template)
        status, made = await self.request("POST", _path("pods", namespace), body)
        if status != 201:
            if status not in {403, 404}:  # the namespace is on its way out
                room.violations.append(f"the pod {name} was refused: {made.get('message')}")
            return
        room.objects["pods"][name] = made
        await self._report(namespace, room, made)

    async def _find_replica_set(
        self, namespace: str, room: Room, deployment: JSON, template: str
    ) -> JSON | None:
        """The one of the Deployment's present template; made if need be."""
        uid = deployment["metadata"]["uid"]
        for found in room.objects["replicasets"].values():
            if owner(found) == uid and found["metadata"]["annotations"]["template"] == template:
                return found
        name = f"{deployment['metadata']['name']}-rs{next(self._serial)}"
        body = build_replica_set(name, deployment, template)
        status, made = await self.request("POST", _path("replicasets", namespace), body)
        if status != 201:
            if status not in {403, 404}:  # the namespace is on its way out
                room.violations.append(f"the ReplicaSet {name} was refused: {made.get('message')}")
            return None
        room.objects["replicasets"][name] = made
        return made

    async def _report(self, namespace: str, room: Room, pod: JSON) -> None:
        """The kubelet's report: running and ready, or crashing."""
        name = pod["metadata"]["name"]
        if component(pod) == "router":
            address = await self._start_agent(namespace, name)
            status = ready_status(pod, address, ready=False)
        elif "models/broken" in json.dumps([pod["spec"], pod["metadata"]["annotations"]]):
            status = crashing_status(pod)
        else:
            status = ready_status(pod, "10.0.0.1", ready=True)
        await self._put_status(namespace, room, name, status)

    async def _put_status(self, namespace: str, room: Room, name: str, status: JSON) -> None:
        path = f"{_path('pods', namespace, name)}/status"
        code, stored = await self.request(
            "PATCH", path, {"status": status}, "application/merge-patch+json"
        )
        if code == 200 and name in room.objects["pods"]:
            room.objects["pods"][name] = stored

    async def _start_agent(self, namespace: str, name: str) -> str:
        number = next(_addresses)
        address = f"127.{64 + number // 65536 % 64}.{number // 256 % 256}.{number % 256}"
        app = web.Application()

        async def state(_: web.Request) -> web.Response:
            room = self.rooms.get(namespace)
            taken = room.served.get(name) if room else None
            split = taken["split"] if taken else {}
            return web.json_response(
                {
                    "schema": 1,
                    "trafficGeneration": taken["generation"] if taken else None,
                    "revisions": [
                        {"revision": one, "effective": weight} for one, weight in split.items()
                    ],
                }
            )

        app.router.add_get("/llmfleet/state", state)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, address, AGENT_PORT).start()
        self._agents[f"{namespace}/{name}"] = runner
        return address

    async def _stop_agent(self, key: str) -> None:
        if (runner := self._agents.pop(key, None)) is not None:
            await runner.cleanup()

    async def _update_routers(self, namespace: str, room: Room) -> None:
        for resource in list(room.objects["llmdeployments"].values()):
            command = _command(resource)
            if command is None:
                continue
            for pod in list(room.objects["pods"].values()):
                name = pod["metadata"]["name"]
                if component(pod) != "router" or name not in room.objects["pods"]:
                    continue
                address = (pod.get("status") or {}).get("podIP")
                taken = room.served.get(name, {}).get("generation")
                if not address or taken == command["generation"]:
                    continue
                await asyncio.sleep(self._router_delay)
                if name not in room.objects["pods"]:
                    continue
                starts = not is_ready(pod)  # and begins with what is commanded by then
                latest = room.objects["llmdeployments"].get(resource["metadata"]["name"])
                room.served[name] = (starts and _command(latest or {})) or command
                self._look(room)
                if starts:
                    ready = ready_status(pod, address, ready=True)
                    await self._put_status(namespace, room, name, ready)


def _command(resource: JSON) -> JSON | None:
    """What the routers of a resource shall serve."""
    status = resource.get("status") or {}
    if status.get("trafficGeneration") is None or not status.get("traffic"):
        return None
    return {
        "generation": status["trafficGeneration"],
        "split": {one["revision"]: one["weight"] for one in status["traffic"] if one["weight"]},
        "uid": resource["metadata"]["uid"],
    }


def _path(plural: str, namespace: str, name: str = "") -> str:
    base, _, _ = WATCHED[plural].rpartition("/")
    return f"{base}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def _ours(body: JSON) -> bool:
    labels = body["metadata"].get("labels") or {}
    return OWNER_LABEL in labels


def _version(body: JSON) -> int:
    return int(body["metadata"]["resourceVersion"])


def _pods_of(room: Room, deployment_uid: str) -> list[JSON]:
    """Pods of a Deployment's ReplicaSets."""
    made = {
        each["metadata"]["uid"]
        for each in room.objects["replicasets"].values()
        if owner(each) == deployment_uid
    }
    return [pod for pod in room.objects["pods"].values() if owner(pod) in made]
