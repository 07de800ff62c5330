"""Every network of an installation: what a server of models has to hold."""

from __future__ import annotations

from wetread.core.ports.inference import NetworkFile
from wetread.detection.registry import discover
from wetread.pathology.tile_model import installed_tile_models


def installed_networks(detectors: str) -> list[NetworkFile]:
    """Return the networks of all detectors, also of the folders *detectors*, and of all tile models.

    Raises ConfigurationError.
    """
    networks = [network for found in discover(detectors).values() for network in found.networks]
    return [*networks, *(model.network for model in installed_tile_models().values())]
