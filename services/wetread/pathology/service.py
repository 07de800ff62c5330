"""The slide service: requests, progress, results and the page of slides in the archive. Numeric work is elsewhere."""

from __future__ import annotations

from fastapi import APIRouter

from wetread.core.service import Service
from wetread.pathology.endpoints import router
from wetread.pathology.page import pages
from wetread.pathology.ports import SlidePorts


def build(ports: SlidePorts) -> Service:
    """Build the service; opens nothing."""
    routes = APIRouter()
    routes.include_router(router(ports))
    routes.include_router(pages(ports))
    return Service(name="pathology", http=routes)
