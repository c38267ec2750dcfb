"""The files that Envoy watches: what each step writes, and which stats prove that Envoy took it."""

from __future__ import annotations

import time
from collections.abc import Collection

from llmfleet_router import resources, routes
from llmfleet_router.bootstrap import CLUSTER_FILE, PREVIEW, PUBLIC, ROUTE_FILES
from llmfleet_router.files import write_by_rename
from llmfleet_router.model import Routes
from llmfleet_router.served import (
    Proof,
    Served,
    proof_of_clusters,
    proof_of_endpoints,
    proof_of_table,
)
from llmfleet_router.settings import Settings
from llmfleet_router.updates import (
    AddClusters,
    Applied,
    RemoveClusters,
    SetEndpoints,
    SetRoutes,
    Step,
    after,
)


class XdsFiles:
    """Writes the files of one router; each with a version of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # What an agent wrote that is gone must not prove what this one writes.
        self._life = f"{time.time_ns():x}"
        self._version = 0
        self._preview: str | None = None
        """The revision in the preview's file, and what proves that Envoy has read it."""
        self._preview_proof: Proof = {}

    def write_initial(self) -> None:
        """Files that Envoy waits for before its first start: no clusters, API paths answer 503.

        What is there stays, whatever it says: Envoy may be serving it.
        """
        if not (self._settings.xds_dir / CLUSTER_FILE).exists():
            self._clusters(Applied())
        tables = {PUBLIC: routes.build_public_table, PREVIEW: routes.build_preview_table}
        for listener, build in tables.items():
            if not (self._settings.xds_dir / ROUTE_FILES[listener][0]).exists():
                self._table(listener, build(None, self._settings))

    def write_again(self, served: Served) -> Proof:
        """Writes what is there once more, with another version; says what proves it."""
        again = self._next_version()
        for name, content in served.files.items():
            write_by_rename(self._settings.xds_dir / name, {**content, "version_info": again})
        versions = {name for name in served.proof if name.endswith("version_text")}
        return {**served.proof, **dict.fromkeys(versions, again)}

    def write(self, step: Step, applied: Applied) -> Proof:
        """Writes what ``step`` changes of ``applied``, and says what proves it."""
        result = after(applied, step)
        match step:
            case AddClusters(endpoints=added):
                proof: Proof = {}
                for revision in added:
                    # The cluster reads its endpoints while it is being added.
                    proof |= self._endpoints(revision, result)
                return proof | self._clusters(result) | {"cluster_manager.warming_clusters": "0"}
            case SetEndpoints(revision=revision):
                return self._endpoints(revision, result)
            case SetRoutes(routes=changed):
                return self._routes(changed, applied)
            case RemoveClusters():
                return self._clusters(result)

    def delete_endpoints(self, revisions: Collection[str]) -> None:
        """Deletes the files of revisions whose clusters Envoy has removed."""
        for revision in revisions:
            path = resources.endpoints_file(self._settings.xds_dir, revision)
            path.unlink(missing_ok=True)

    def _clusters(self, applied: Applied) -> Proof:
        clusters = resources.build_clusters(applied.endpoints, applied.mirrors, self._settings)
        return proof_of_clusters(self._put(CLUSTER_FILE, resources.CLUSTER_TYPE, clusters))

    def _endpoints(self, revision: str, applied: Applied) -> Proof:
        path = resources.endpoints_file(self._settings.xds_dir, revision)
        content = resources.build_endpoints(revision, applied.endpoints[revision])
        version = self._put(path.name, resources.ENDPOINT_TYPE, [content])
        return proof_of_endpoints(revision, revision in applied.mirrors, version)

    def _routes(self, changed: Routes, applied: Applied) -> Proof:
        # The public port's first: it is what somebody waits for.
        public = self._table(PUBLIC, routes.build_public_table(changed, self._settings))
        return public | self._preview_routes(changed, applied)

    def _preview_routes(self, changed: Routes, applied: Applied) -> Proof:
        """Writes the preview's table, unless Envoy has confirmed the very file that is there."""
        shows = applied.routes.routing.preview if applied.routes else None
        wanted = changed.routing.preview
        if applied.routes is None or not shows == wanted == self._preview:
            table = routes.build_preview_table(changed, self._settings)
            self._preview, self._preview_proof = wanted, self._table(PREVIEW, table)
        return self._preview_proof

    def _table(self, listener: str, table: resources.JSON) -> Proof:
        file, _ = ROUTE_FILES[listener]
        return proof_of_table(listener, self._put(file, routes.ROUTE_TYPE, [table]))

    def _put(self, name: str, kind: str, content: list[resources.JSON]) -> str:
        version = self._next_version()
        body = resources.discovery(kind, version, content)
        write_by_rename(self._settings.xds_dir / name, body)
        return version

    def _next_version(self) -> str:
        self._version += 1
        return f"{self._life}.{self._version}"
