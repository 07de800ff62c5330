"""Tile models: folders of ``models/`` with a ``tile-model.yaml``, pinned weights and a card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import wetread
from wetread.core.errors import ConfigurationError, NotFound
from wetread.core.identifiers import digest
from wetread.core.manifest import Card, Licence, Manifest, ModelFile, Resources, Semver, TensorSpecs
from wetread.core.ports.inference import DetectorInfo, NetworkFile

_MANIFEST: Final = "tile-model.yaml"
MEASURED: Final = ("tissue_area", "tiles_done", "tiles_failed", "class_share", "nuclei_density")
"""What a slide's finding holds: keys of the code dictionary."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TileSize(_Strict):
    """What the network was trained on: pixels square, micrometres per pixel."""

    size: Annotated[int, Field(ge=32, le=4096)]
    mpp: Annotated[float, Field(ge=0.05, le=50)]


class TileModelManifest(_Strict):
    """``tile-model.yaml``: one input ``image`` uint8 [n, size, size, 3]; outputs ``probability``, ``embedding``."""

    schema_: Literal["wetread.tile-model/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    version: Semver
    title: str
    intended_use: str
    not_for: tuple[str, ...]
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    target: str
    """The class that regions, annotations and the overlay show."""
    tile: TileSize
    tensors: TensorSpecs
    model: ModelFile
    resources: Resources
    licence: Licence
    parameters: dict[str, bool | int | float | None] = Field(default_factory=dict)
    """What a workflow may set in ``with:``, with defaults: see ``pathology.task``."""


@dataclass(frozen=True, slots=True)
class InstalledTileModel:
    """A tile model folder that passed its checks."""

    manifest: TileModelManifest
    card: Card
    network: NetworkFile


def models_folder() -> Path:
    """Return the folder of bundled models: of the wheel, or of the repository this package runs from."""
    package = Path(wetread.__file__).resolve().parent
    shared = package / "_share" / "models"
    return shared if shared.is_dir() else package.parent.parent / "models"


def load_tile_model(name: str, folder: Path | None = None) -> InstalledTileModel:
    """Read *name* below *folder* (default: the bundled models).

    Raises NotFound (no such model), ConfigurationError (its files contradict one another).
    """
    root = models_folder() if folder is None else folder
    home = root / name
    if Path(name).name != name or not (home / _MANIFEST).is_file():
        raise NotFound(f"no tile model is called {name[:64]!r}")
    try:
        manifest = TileModelManifest.model_validate(YAML(typ="safe").load((home / _MANIFEST).read_text("utf-8")))
        card = Card.model_validate(json.loads((home / "model-card.json").read_text("utf-8")))
        weights = hashlib.sha256((home / manifest.model.file).read_bytes()).hexdigest()
    except (OSError, YAMLError, ValueError, ValidationError) as error:
        raise ConfigurationError(f"the tile model {name} cannot be read: {type(error).__name__}") from error
    if weights != manifest.model.sha256:
        raise ConfigurationError(f"the weights of {name} are not those of its manifest")
    if (card.name, card.version) != (manifest.name, manifest.version) or manifest.target not in manifest.classes:
        raise ConfigurationError(f"manifest and card of {name} contradict each other")
    network = NetworkFile(
        manifest.name, home / manifest.model.file, weights, manifest.model.max_batch, manifest.tensors
    )
    return InstalledTileModel(manifest, card, network)


def installed_tile_models(folder: Path | None = None) -> Mapping[str, InstalledTileModel]:
    """Return the tile models below *folder* by name. Raises ConfigurationError: a broken one is never skipped."""
    root = models_folder() if folder is None else folder
    names = sorted(path.parent.name for path in root.glob(f"*/{_MANIFEST}"))
    return {name: load_tile_model(name, root) for name in names}


def detector_info(model: InstalledTileModel) -> DetectorInfo:
    """Return a tile model as rules, worklist and results see every detector."""
    tile = model.manifest
    manifest = Manifest.model_validate(
        {
            "schema": "wetread.detector/1",
            **tile.model_dump(include={"name", "version", "title", "intended_use", "not_for", "parameters"}),
            **tile.model_dump(include={"tensors", "model", "resources", "licence"}),
            "input": {"modality": ["SM"], "select": "pyramid"},
            "findings": [{"code": ["SCT", "85756007"], "measurements": list(MEASURED)}],
        }
    )
    sha = digest("wetread.model/1", manifest.model_dump(mode="json"), tile.tile.model_dump(), tile.model.sha256)
    return DetectorInfo(tile.name, tile.version, manifest, model.card, sha, kind="slide")
