"""Headers and single planes of the source images, for the encodings of a result."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut

from wetread.core.detector import FloatArray
from wetread.core.errors import ComputationFailed, CorruptRecord
from wetread.core.ports.objects import ObjectStore
from wetread.core.ports.studies import StoredInstance

_HEADER_BYTES: Final = (64 << 10, 1 << 20, 16 << 20)
"""How much is read for a header. Slides carry colour profiles and a position per frame, and gigabytes of pixels."""
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_PIXEL_TAGS: Final = (0x7FE00010, 0x7FE00008, 0x7FE00009)


class SourceImages:
    """Reads stored instances. A header costs 64 KiB of reading, not the whole instance, when it fits."""

    def __init__(self, objects: ObjectStore, instances: Sequence[StoredInstance]) -> None:
        self._objects = objects
        self._instances = instances

    def headers(self) -> list[Dataset]:
        """Return the data sets without pixel data, in the order of the instances.

        Raises ComputationFailed (``crashed``) for an instance that cannot be read any more.
        """
        return [self._header(instance) for instance in self._instances]

    def plane(self, index: int) -> FloatArray:
        """Return the rescaled pixels of a plane, [row, column] (CT: HU)."""
        one = len(self._instances) == 1
        dataset = dcmread(io.BytesIO(self._objects.read(self._instances[0 if one else index].ref)), force=True)
        pixels = dataset.pixel_array
        if pixels.ndim == 3 and int(dataset.get("NumberOfFrames", 1) or 1) > 1:
            pixels = pixels[index if one else 0]
        return np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float32)

    def _header(self, instance: StoredInstance) -> Dataset:
        length = instance.ref.length
        for size in _HEADER_BYTES if instance.transfer_syntax_uid != _DEFLATED else ():
            if length <= size:
                break
            dataset = self._parse(self._objects.read(instance.ref, 0, size), cut=True)
            if dataset is not None:
                return dataset
        dataset = self._parse(self._objects.read(instance.ref), cut=False)
        if dataset is None:
            msg = "crashed"
            raise ComputationFailed(msg, "a source instance has no readable header")
        return dataset

    @staticmethod
    def _parse(data: bytes, *, cut: bool) -> Dataset | None:
        """Return the data set up to the pixel data; None when *cut* bytes end before it."""
        buffer = io.BytesIO(data)
        try:
            dataset = dcmread(buffer, stop_before_pixels=True, force=True)
        except (InvalidDicomError, EOFError, CorruptRecord, ValueError, OSError):
            return None
        if "SOPInstanceUID" not in dataset or (cut and buffer.tell() >= len(data) - 8):
            return None
        for tag in _PIXEL_TAGS:
            if tag in dataset:
                del dataset[tag]
        return dataset
