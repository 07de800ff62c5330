"""The FFR service: a router without state."""

from __future__ import annotations

from wetread.core.service import Service

from .endpoints import router


def build() -> Service:
    """Build the service; opens nothing."""
    return Service(name="ffrct", http=router())
