"""A bundle's ``inference.json`` as steps of ours. It is read as data: nothing that begins with ``$`` is ever evaluated.

A step outside the closed list, or an argument that has no counterpart here, is refused by its name. An argument that
is an expression cannot be known without running it: then only the network comes in, and the card says why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from wetread.detection.importing.errors import ImportRefused
from wetread.detection.recipes.segmentation import Normalise, Orient, Scale, Spacing, Step, Steps

_SILENT: Final = frozenset(
    {
        "LoadImaged",
        "EnsureChannelFirstd",
        "EnsureTyped",
        "Compose",
        "Invertd",
        "SaveImaged",
        "Activationsd",
        "AsDiscreted",
    }
)
_AXES: Final = re.compile(r"[RL][AP][SI]")
_CHANNEL: Final = re.compile(r"[\w .,()/+-]{1,64}")
_MODALITIES: Final = {"CT": "CT", "MR": "MR", "MRI": "MR"}


class Unknowable(Exception):  # noqa: N818 - no error: the network comes in without steps
    """A value that only running the bundle would tell; the text says which."""


@dataclass(frozen=True, slots=True)
class BundleSteps:
    """The steps around the network of a bundle, and the modality that they are for."""

    steps: Steps
    modality: str


def steps_of(inference: Mapping[str, Any], metadata: Mapping[str, Any]) -> BundleSteps:
    """Map a bundle's steps. Raises Unknowable; ImportRefused (unknown_transform) for what has no counterpart here."""
    reader = _Reader(inference)
    image, output = _format(metadata, "inputs", "image"), _format(metadata, "outputs", "pred")
    modality = _MODALITIES.get(str(image.get("modality", "")).upper())
    if modality is None or image.get("num_channels") != 1:
        raise Unknowable("not one channel of CT or MR")
    before = tuple(step for item in reader.transforms("preprocessing") for step in _before(reader, item))
    window, overlap = _window(reader, image)
    activation, threshold = _after(reader)
    channels = _channels(output)
    return BundleSteps(Steps(before, window, overlap, activation, threshold, channels), modality)  # type: ignore[arg-type]


class _Reader:
    """Reads literals; ``@name`` stands for a literal of that name at the top of the file."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content

    def literal(self, value: Any, what: str) -> Any:
        if isinstance(value, str) and re.fullmatch(r"@\w+", value):
            if value[1:] not in self._content:
                raise Unknowable(f"{what} refers to what is not there")
            value = self._content[value[1:]]
        if isinstance(value, str) and value[:1] in {"$", "@"}:
            raise Unknowable(f"{what} is an expression")
        return [self.literal(item, what) for item in value] if isinstance(value, list) else value

    def argument(self, item: Mapping[str, Any], name: str, default: Any = None) -> Any:
        return self.literal(item.get(name, default), f"{target(item)} {name}")

    def number(self, item: Mapping[str, Any], name: str, default: float | None = None) -> float:
        value = self.argument(item, name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _unknown(item, name)
        return float(value)

    def transforms(self, part: str) -> list[Mapping[str, Any]]:
        found = self._content.get(part, {})
        found = found.get("transforms", []) if isinstance(found, Mapping) else found
        if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
            raise Unknowable(f"{part} is no list of steps")
        return [item for item in found if self.argument(item, "_disabled_", default=False) is not True]

    def inferer(self) -> Mapping[str, Any]:
        found = self._content.get("inferer", {})
        return found if isinstance(found, Mapping) else {}


def target(item: Mapping[str, Any]) -> str:
    """Return the class that an entry names, without its module."""
    return str(item.get("_target_", "")).rpartition(".")[2]


def _unknown(item: Mapping[str, Any], name: str) -> ImportRefused:
    return ImportRefused("unknown_transform", f"{target(item)[:60]} with this {name} has no counterpart here")


def _before(reader: _Reader, item: Mapping[str, Any]) -> tuple[Step, ...]:
    kind = target(item)
    if kind == "Orientationd":
        axes = str(reader.argument(item, "axcodes", "RAS")).upper()
        if not _AXES.fullmatch(axes):
            raise _unknown(item, "axcodes")
        return (Orient(axes),)
    if kind == "Spacingd":
        size = reader.argument(item, "pixdim")
        if not (
            isinstance(size, list) and len(size) == 3 and all(isinstance(v, int | float) and 0 < v < 1e3 for v in size)
        ):
            raise _unknown(item, "pixdim")
        mode = reader.argument(item, "mode", "bilinear")
        if (mode[0] if isinstance(mode, list) and mode else mode) not in {"bilinear", 1}:
            raise _unknown(item, "mode")
        x, y, z = (float(v) for v in size)
        return (Spacing((x, y, z)),)
    if kind == "ScaleIntensityRanged":
        low, high = (reader.number(item, name) for name in ("a_min", "a_max"))
        to_low, to_high = (reader.number(item, name, default) for name, default in (("b_min", 0.0), ("b_max", 1.0)))
        if high <= low or to_high <= to_low:
            raise _unknown(item, "a_max")
        return (Scale(low, high, to_low, to_high, clip=reader.argument(item, "clip", default=False) is True),)
    if kind == "ScaleIntensityd":
        if reader.argument(item, "factor") is not None:
            raise _unknown(item, "factor")
        return (Scale(None, None, reader.number(item, "minv", 0.0), reader.number(item, "maxv", 1.0)),)
    if kind == "NormalizeIntensityd":
        if any(reader.argument(item, name) is not None for name in ("subtrahend", "divisor")):
            raise _unknown(item, "subtrahend")
        return (Normalise(nonzero=reader.argument(item, "nonzero", default=False) is True),)
    if kind not in _SILENT:
        raise ImportRefused("unknown_transform", f"{kind[:60]} before the network has no counterpart here")
    return ()


def _window(reader: _Reader, image: Mapping[str, Any]) -> tuple[tuple[int, int, int], float]:
    item = reader.inferer()
    if target(item) == "SlidingWindowInferer":
        size, overlap = reader.argument(item, "roi_size"), reader.number(item, "overlap", 0.25)
        if reader.argument(item, "mode", "constant") != "constant":
            raise _unknown(item, "mode")
        if not 0 <= overlap < 1:
            raise _unknown(item, "overlap")
    else:
        size, overlap = image.get("spatial_shape"), 0.0
    if not (isinstance(size, list) and len(size) == 3 and all(isinstance(v, int) and 0 < v <= 512 for v in size)):
        raise Unknowable("the size of a window is not said")
    return (size[0], size[1], size[2]), overlap


def _after(reader: _Reader) -> tuple[str, float | None]:
    activation, threshold = "none", None
    for item in reader.transforms("postprocessing"):
        kind = target(item)
        if kind == "Activationsd":
            chosen = [name for name in ("softmax", "sigmoid") if reader.argument(item, name, default=False) is True]
            activation = chosen[0] if chosen else "none"
        elif kind == "AsDiscreted":
            if reader.argument(item, "argmax", default=False) is True:
                threshold = None
            else:
                threshold = reader.number(item, "threshold", 0.5)
        elif kind not in _SILENT:
            raise ImportRefused("unknown_transform", f"{kind[:60]} after the network has no counterpart here")
    return activation, threshold


def _channels(output: Mapping[str, Any]) -> tuple[str, ...]:
    names, count = output.get("channel_def"), output.get("num_channels")
    if not isinstance(names, Mapping) or not isinstance(count, int) or not 1 <= count <= 64:
        raise Unknowable("the output channels have no names")
    ordered = [str(names.get(str(k), "")) for k in range(count)]
    if not all(_CHANNEL.fullmatch(name) for name in ordered) or len(set(ordered)) != count:
        raise Unknowable("the output channels have no names")
    return tuple("background" if name.lower() == "background" else name for name in ordered)


def _format(metadata: Mapping[str, Any], side: str, name: str) -> Mapping[str, Any]:
    found: Any = metadata
    for key in ("network_data_format", side, name):
        found = found.get(key, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}
