"""The routes of the gateway: every resource of the DICOMweb studies service under its base path (PS3.18 10)."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from wetread.gateway.admission import Endpoint
from wetread.gateway.bulkdata import BulkEndpoints
from wetread.gateway.capabilities import CapabilitiesEndpoint
from wetread.gateway.changefeed import ChangeFeedEndpoints
from wetread.gateway.deleting import DeleteEndpoint
from wetread.gateway.qido import SearchEndpoints
from wetread.gateway.rendered import RenderEndpoints
from wetread.gateway.retrieval import RetrieveEndpoints
from wetread.gateway.uri import UriEndpoint


def routes(
    base_path: str,
    stow: Endpoint,
    search: SearchEndpoints,
    retrieve: RetrieveEndpoints,
    bulk: BulkEndpoints,
    rendered: RenderEndpoints,
    capabilities: CapabilitiesEndpoint,
    delete: DeleteEndpoint,
    changes: ChangeFeedEndpoints,
    uri: UriEndpoint,
) -> APIRouter:
    """Return the router; its paths are complete. STOW reads the request stream itself."""
    router = APIRouter()
    study = f"{base_path}/studies/{{study}}"
    series = f"{study}/series/{{series}}"
    instance = f"{series}/instances/{{instance}}"
    frames = f"{instance}/frames/{{frames}}"

    for path in (base_path, f"{base_path}/"):
        router.add_route(path, capabilities.__call__, methods=["OPTIONS"])

    # One route per path: the Allow header of a 405 then names all its methods.
    async def studies(request: Request) -> Response:
        return await (stow(request) if request.method == "POST" else search.studies(request))

    async def one_study(request: Request) -> Response:
        return await (stow(request) if request.method == "POST" else entity(request))

    async def entity(request: Request) -> Response:
        return await (delete(request) if request.method == "DELETE" else retrieve.instances(request))

    router.add_route(f"{base_path}/studies", studies, methods=["GET", "POST"])
    router.add_route(study, one_study, methods=["GET", "POST", "DELETE"])
    router.add_route(f"{base_path}/series", search.series, methods=["GET"])
    router.add_route(f"{base_path}/instances", search.instances, methods=["GET"])
    router.add_route(f"{study}/series", search.series, methods=["GET"])
    router.add_route(f"{study}/instances", search.instances, methods=["GET"])
    router.add_route(f"{series}/instances", search.instances, methods=["GET"])

    for path in (series, instance):
        router.add_route(path, entity, methods=["GET", "DELETE"])
    for path in (study, series, instance):
        router.add_route(f"{path}/metadata", retrieve.metadata, methods=["GET"])
        router.add_route(f"{path}/bulkdata", bulk.bulkdata, methods=["GET"])
        router.add_route(f"{path}/pixeldata", bulk.pixeldata, methods=["GET"])
    router.add_route(frames, retrieve.frames, methods=["GET"])
    router.add_route(f"{instance}/bulkdata/{{path:path}}", retrieve.bulkdata, methods=["GET"])

    for path in (study, series, instance, frames):
        router.add_route(f"{path}/rendered", rendered.rendered, methods=["GET"])
        router.add_route(f"{path}/thumbnail", rendered.thumbnail, methods=["GET"])
    router.add_route(f"{base_path}/wado", uri.__call__, methods=["GET"])
    router.add_route(f"{base_path}/changefeed", changes.page, methods=["GET"])
    router.add_route(f"{base_path}/changefeed/latest", changes.latest, methods=["GET"])
    return router
