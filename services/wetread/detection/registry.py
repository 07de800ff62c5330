"""The installed detectors: folders with a manifest, a card, a ``detector.py`` and weights whose hashes match.

Bundled folders lie in ``models/`` of the repository or in ``wetread/_share/models`` of an installed wheel. Folders
of others are named by ``WETREAD_DETECTORS``; their code runs only when an operator has pinned its hash.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import wetread
from wetread.core.detector import BaseDetector
from wetread.core.errors import ConfigurationError
from wetread.core.identifiers import digest
from wetread.core.manifest import Card, Manifest, ModelFile, NetworkManifest, TensorSpecs
from wetread.core.ports.inference import DetectorInfo, NetworkFile

PINS: Final = "detectors.sha256"
"""File in a folder of third-party detectors: ``sha256sum`` lines of the ``NAME/detector.py`` that may run."""

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class InstalledDetector:
    """One detector folder that passed validation."""

    info: DetectorInfo
    folder: Path
    networks: tuple[NetworkFile, ...]


def bundled_folder() -> Path:
    """Return the folder of bundled detectors: of the wheel, or of the repository this package runs from."""
    package = Path(wetread.__file__).resolve().parent
    shared = package / "_share" / "models"
    return shared if shared.is_dir() else package.parent.parent / "models"


def discover(extra: str = "", *, bundled: Path | None = None) -> Mapping[str, InstalledDetector]:
    """Return the installed detectors by name; *extra* lists third-party folders, separated by ``:``.

    Raises ConfigurationError: a folder whose manifest, card, name or hashes are wrong is never skipped silently.
    """
    found: dict[str, InstalledDetector] = {}
    root = bundled_folder() if bundled is None else bundled
    third_party = [Path(part).resolve() for part in extra.split(":") if part]
    for place, pinned in [(root, False), *((folder, True) for folder in third_party)]:
        if pinned and not place.is_dir():
            raise ConfigurationError("a folder named by WETREAD_DETECTORS does not exist")
        for folder in _folders(place):
            if pinned:
                _check_pin(folder)
            detector = read_folder(folder)
            if detector.info.name in found:
                raise ConfigurationError(f"two detectors are called {detector.info.name!r}")
            found[detector.info.name] = detector
    return found


def read_folder(folder: Path) -> InstalledDetector:
    """Read and check one detector folder. Raises ConfigurationError."""
    manifest = _validated(Manifest, _yaml(folder / "detector.yaml"), folder)
    card = _validated(Card, _json(folder / "model-card.json"), folder)
    if manifest.name != folder.name:
        raise ConfigurationError(f"detector folder {folder.name!r} holds a manifest named {manifest.name!r}")
    if (card.name, card.version) != (manifest.name, manifest.version):
        raise ConfigurationError(f"the card of {manifest.name} is about {card.name} {card.version}")
    networks = _networks(manifest, folder)
    model_digest = digest(
        "wetread.model/1",
        _described(manifest),
        [point.model_dump(mode="json") for point in card.operating_points],
        card.default_operating_point,
        _sha256(folder / "detector.py"),
        [network.sha256 for network in networks],
    )
    info = DetectorInfo(manifest.name, manifest.version, manifest, card, model_digest)
    return InstalledDetector(info, folder, networks)


def _described(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as its digest sees it: a need that came later and is not there changes no detector."""
    described = manifest.model_dump(mode="json")
    for later in ("priors", "cine"):
        if described["input"][later] is None:
            del described["input"][later]
    return described


def load(installed: InstalledDetector) -> BaseDetector:
    """Import the folder's ``detector.py`` under a module name of its own and build its ``Detector``.

    Raises ConfigurationError when it cannot be imported or defines no detector.
    """
    module = companion(installed, "detector")
    kind = getattr(module, "Detector", None)
    if not (isinstance(kind, type) and issubclass(kind, BaseDetector)):
        raise ConfigurationError(f"detector.py of {installed.info.name} defines no Detector")
    return kind(installed.info.manifest, installed.info.card)


def companion(installed: InstalledDetector, name: str) -> ModuleType:
    """Import ``NAME.py`` of the folder under a module name of its own. Raises ConfigurationError."""
    full = f"wetread_{name}_{installed.info.name.replace('-', '_')}_{installed.info.model_digest[:8]}"
    module = sys.modules.get(full)
    path = installed.folder / f"{name}.py"
    if module is not None and module.__file__ == str(path):
        return module
    spec = importlib.util.spec_from_file_location(full, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigurationError(f"{name}.py of {installed.info.name} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    writes_bytecode = sys.dont_write_bytecode
    # A __pycache__ inside models/ would be a stray model folder to Triton.
    sys.dont_write_bytecode = True
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[full]
        raise ConfigurationError(f"{name}.py of {installed.info.name} cannot be imported") from error
    finally:
        sys.dont_write_bytecode = writes_bytecode
    return module


def _folders(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from sorted(path.parent for path in root.glob("*/detector.yaml"))


def _networks(manifest: Manifest, folder: Path) -> tuple[NetworkFile, ...]:
    found = []
    if manifest.model is not None:
        if manifest.tensors is None:
            raise ConfigurationError(f"{manifest.name} has a model but names no tensors")
        found.append(_network_file(manifest.name, manifest.model, manifest.tensors, folder))
    for name in manifest.networks:
        network = read_network(folder.parent / name)
        found.append(_network_file(network.name, network.model, network.tensors, folder.parent / name))
    return tuple(found)


def read_network(folder: Path) -> NetworkManifest:
    """Read and check the ``network.yaml`` of a folder without code. Raises ConfigurationError."""
    network = _validated(NetworkManifest, _yaml(folder / "network.yaml"), folder)
    if network.name != folder.name:
        raise ConfigurationError(f"network folder {folder.name!r} holds a manifest named {network.name!r}")
    return network


def _network_file(name: str, model: ModelFile, tensors: TensorSpecs, folder: Path) -> NetworkFile:
    path = (folder / model.file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ConfigurationError(f"the weights of {name} lie outside its folder")
    if _sha256(path) != model.sha256:
        raise ConfigurationError(f"the weights of {name} are not those of its manifest")
    return NetworkFile(name, path, model.sha256, model.max_batch, tensors)


def _check_pin(folder: Path) -> None:
    try:
        lines = (folder.parent / PINS).read_text("utf-8").splitlines()
    except OSError:
        lines = []
    pins = {tuple(line.split(maxsplit=1)) for line in lines}
    if (_sha256(folder / "detector.py"), f"{folder.name}/detector.py") not in pins:
        raise ConfigurationError(f"the code of {folder.name} is not pinned in {PINS}: it is not run")


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigurationError(f"{path.parent.name}/{path.name} cannot be read") from error


def _yaml(path: Path) -> Any:
    try:
        return YAML(typ="safe").load(path.read_text("utf-8"))
    except (OSError, YAMLError, ValueError) as error:
        raise ConfigurationError(f"{path.parent.name}/{path.name} cannot be read") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path.parent.name}/{path.name} cannot be read") from error


def _validated(kind: type[_Model], data: Any, folder: Path) -> _Model:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(f"{folder.name}: {_places(error.errors())}") from error


def _places(errors: Sequence[Any]) -> str:
    return "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in errors)
