"""The files that Envoy watches: what each step writes, and which stats prove that Envoy took it."""

from __future__ import annotations

from collections.abc import Collection

from llmfleet_router import resources, routes
from llmfleet_router.bootstrap import PREVIEW, PUBLIC, ROUTE_FILES
from llmfleet_router.files import write_by_rename
from llmfleet_router.model import Routes
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

Proof = dict[str, str]
"""Stats by name, and the values they have once Envoy has applied a file."""


class XdsFiles:
    """Writes the files of one router; each with a version of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._version = 0
        self._preview: str | None = None
        """The revision in the preview's file, and what proves that Envoy has read it."""
        self._preview_proof: Proof = {}

    def write_initial(self) -> None:
        """Files for Envoy's start: no clusters, API paths answer 503."""
        self._clusters(Applied())
        self._routes(None, Applied())

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
        version = self._put("cds.json", resources.CLUSTER_TYPE, clusters)
        return {"cluster_manager.cds.version_text": version}

    def _endpoints(self, revision: str, applied: Applied) -> Proof:
        path = resources.endpoints_file(self._settings.xds_dir, revision)
        content = resources.build_endpoints(revision, applied.endpoints[revision])
        version = self._put(path.name, resources.ENDPOINT_TYPE, [content])
        names = [resources.cluster_name(revision)]
        if revision in applied.mirrors:
            names.append(resources.mirror_name(revision))
        return {f"cluster.{name}.version_text": version for name in names}

    def _routes(self, changed: Routes | None, applied: Applied) -> Proof:
        # The public port's first: it is what somebody waits for.
        public = self._table(PUBLIC, routes.build_public_table(changed, self._settings))
        return public | self._preview_routes(changed, applied)

    def _preview_routes(self, changed: Routes | None, applied: Applied) -> Proof:
        """Writes the preview's table, unless Envoy has confirmed the very file that is there."""
        shows = applied.routes.routing.preview if applied.routes else None
        wanted = changed.routing.preview if changed else None
        if applied.routes is None or not shows == wanted == self._preview:
            table = routes.build_preview_table(changed, self._settings)
            self._preview, self._preview_proof = wanted, self._table(PREVIEW, table)
        return self._preview_proof

    def _table(self, listener: str, table: resources.JSON) -> Proof:
        file, name = ROUTE_FILES[listener]
        version = self._put(file, routes.ROUTE_TYPE, [table])
        return {f"http.{listener}.rds.{name}.version_text": version}

    def _put(self, name: str, kind: str, content: list[resources.JSON]) -> str:
        self._version += 1
        version = str(self._version)
        body = resources.discovery(kind, version, content)
        write_by_rename(self._settings.xds_dir / name, body)
        return version
