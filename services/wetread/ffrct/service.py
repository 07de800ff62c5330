"""The FFR service: computation on trees, and requests, results and the page of studies in the archive."""

from __future__ import annotations

from fastapi import APIRouter

from wetread.core.service import Service

from .endpoints import router
from .ports import FfrPorts
from .study_endpoints import pages, study_router


def build(ports: FfrPorts | None = None) -> Service:
    """Build the service; opens nothing. Without *ports* it has the calls on trees only, which need no archive."""
    routes = APIRouter()
    routes.include_router(router())
    if ports is not None:
        routes.include_router(study_router(ports))
        routes.include_router(pages(ports))
    return Service(name="ffrct", http=routes)
