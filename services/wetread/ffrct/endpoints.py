"""HTTP face of CT-derived FFR: one tree or network per call, or many; nothing is stored."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from pydantic.json_schema import models_json_schema

from wetread.core.errors import UnsupportedMediaType
from wetread.core.ruo import RUO_STATEMENT

from .api_models import MAX_BATCH, FfrBatch, FfrRequest, TreeDocument
from .errors import FfrTooLarge
from .parsing import parse_json, validate
from .physiology_file import shipped_physiology

MAX_BYTES = 32 * 2**20


async def json_body(request: Request) -> Any:
    """Parsed body; refuses other media types (415) and more than 32 MiB (413) while reading."""
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media != "application/json":
        raise UnsupportedMediaType("send application/json")
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BYTES:
            raise FfrTooLarge("the body exceeds 32 MiB")
        chunks.append(chunk)
    return parse_json(b"".join(chunks))


Body = Annotated[Any, Depends(json_body)]


def router() -> APIRouter:
    """Routes under ``/api/v1``. Errors are the coded ones of :mod:`.errors`, as problem+json."""
    routes = APIRouter(prefix="/api/v1", tags=["CT-derived FFR"])

    @routes.post(
        "/ffr",
        summary="Pressure, flow and FFR along a vessel tree",
        description=RUO_STATEMENT,
        openapi_extra=_body_schema(FfrRequest),
    )
    async def ffr(body: Body) -> dict[str, Any]:
        return await run_in_threadpool(_solve, body)

    @routes.post(
        "/ffr:batch",
        summary="Up to 1024 trees; one result or problem per item, in order",
        description=RUO_STATEMENT,
        openapi_extra=_body_schema(FfrBatch),
    )
    async def ffr_batch(body: Body) -> dict[str, Any]:
        if isinstance(body, dict) and isinstance(body.get("items"), list) and len(body["items"]) > MAX_BATCH:
            raise FfrTooLarge(f"{len(body['items'])} items; one call takes {MAX_BATCH}")
        batch = validate(FfrBatch, body)
        return {"disclaimer": RUO_STATEMENT, "items": await run_in_threadpool(_solve_batch, batch.items)}

    @routes.get("/ffr/schema", summary="JSON Schemas of the documents")
    async def schema() -> dict[str, Any]:
        return document_schemas()

    @routes.get("/ffr/constants", summary="Every physiological constant with unit, range, status and source")
    async def constants() -> dict[str, Any]:
        physiology = shipped_physiology()
        return {"disclaimer": RUO_STATEMENT, "sha256": physiology.sha256, "constants": physiology.entries}

    return routes


def _solve(body: Any) -> dict[str, Any]:
    from .solving import solve_request  # SciPy: the first request pays for it, not every start of every web process

    return solve_request(body)


def _solve_batch(items: list[Any]) -> list[dict[str, Any]]:
    from .solving import solve_batch

    return solve_batch(items)


def document_schemas() -> dict[str, Any]:
    """JSON Schema (2020-12) of the tree document and of both request bodies."""
    _, schema = models_json_schema(
        [(TreeDocument, "validation"), (FfrRequest, "validation"), (FfrBatch, "validation")],
        title="wetread CT-derived FFR",
    )
    return schema


def _body_schema(model: type[FfrRequest | FfrBatch]) -> dict[str, Any]:
    """The body is parsed by hand, so that its faults get the service's own codes; this documents it."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
