"""The service ``health``: an HTTP face without routes of its own, for processes that otherwise have none."""

from __future__ import annotations

from fastapi import APIRouter

from wetread.core.service import Service


def build() -> Service:
    """Return the service. Probes and metrics come with every application that has an HTTP face."""
    return Service("health", http=APIRouter())
