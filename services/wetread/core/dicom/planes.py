"""The image planes inside one DICOM object: where each lies, how it is stored, how to get its values.

Classic objects hold one plane; enhanced multi-frame ones hold many, described by functional groups
(PS3.3 C.7.6.16). Pixel data are not touched before ``PlaneImage.stored`` is called.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from wetread.core.detector import Array, FrameRef
from wetread.core.dicom.clocks import CLOCK_TAGS, Clocks, clocks_of
from wetread.core.dicom.dataset import first_number, first_text, numbers, texts, whole
from wetread.core.dicom.rescale import Rescale, rescale_of
from wetread.core.dicom.stacking import valid_orientation
from wetread.core.errors import NotProcessable
from wetread.core.ports.pixels import FrameDecoder, FrameLayout

_PIXEL_DATA_LITTLE = b"\xe0\x7f\x10\x00"
_PIXEL_DATA_BIG = b"\x7f\xe0\x00\x10"
_UNDEFINED_LENGTH = 0xFFFFFFFF

_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "ImageType",
    "InstanceNumber",
    "AcquisitionNumber",
    *CLOCK_TAGS,
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]

_GROUPS = [
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameContentSequence",
]
_FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")


@dataclass(frozen=True, slots=True)
class PlaneImage:
    """One plane as its headers describe it. Geometry is None where the object does not give it."""

    ref: FrameRef
    modality: str
    image_type: tuple[str, ...]
    origin: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    recency: tuple[int, int, str]
    frame_of_reference: str
    lossy: bool
    lossy_ratio: float | None
    layout: FrameLayout
    rescale: Rescale
    stored: Callable[[], Array]
    """Return the stored values, [row, column]. Raises NotProcessable("decode_error")."""
    clocks: Callable[[], Clocks]
    """Return what the headers say about the time of the image."""

    @property
    def placed(self) -> bool:
        """Whether the plane has a usable place in the patient."""
        return self.origin is not None and self.pixel_spacing is not None and valid_orientation(self.orientation)


class PixelElement:
    """The pixel data element of one object, opened once and cut into frames on demand."""

    def __init__(self, data: bytes, header: Dataset, offset: int, layout: FrameLayout, decoder: FrameDecoder) -> None:
        self._data, self._offset, self._layout, self._decoder = data, offset, layout, decoder
        self._frames = max(1, whole(header, "NumberOfFrames") or 1)
        self._syntax = UID(str(header.file_meta.TransferSyntaxUID))

    def frame(self, index: int) -> Array:
        """Return the stored values of a frame, [row, column] or [row, column, sample].

        Raises NotProcessable("decode_error").
        """
        layout = self._layout
        try:
            if self._syntax.is_encapsulated:
                stored = self._decoder.decode(self._fragments[index], str(self._syntax), layout)
            else:
                stored = self._plain(index)
        except (IndexError, ValueError, TypeError, EOFError) as error:
            raise NotProcessable("decode_error", "pixel data cannot be read") from error
        if stored.shape != (layout.rows, layout.columns, layout.samples)[: 2 if layout.samples == 1 else 3]:
            raise NotProcessable("decode_error", "decoded image is not of the declared size")
        return stored

    @cached_property
    def _value(self) -> tuple[int, int, str]:
        """Offset, length and VR of the pixel data value."""
        big, data, at = self._syntax == ExplicitVRBigEndian, self._data, self._offset
        if data[at : at + 4] != (_PIXEL_DATA_BIG if big else _PIXEL_DATA_LITTLE):
            raise NotProcessable("decode_error", "no pixel data")
        order: Literal["big", "little"] = "big" if big else "little"
        if self._syntax == ImplicitVRLittleEndian:
            return at + 8, int.from_bytes(data[at + 4 : at + 8], order), "OW"
        vr = data[at + 4 : at + 6].decode("latin-1")
        return at + 12, int.from_bytes(data[at + 8 : at + 12], order), vr

    @cached_property
    def _fragments(self) -> list[bytes]:
        start, _, _ = self._value
        return list(generate_frames(self._data[start:], number_of_frames=self._frames))

    def _plain(self, index: int) -> Array:
        start, length, vr = self._value
        layout, big = self._layout, self._syntax == ExplicitVRBigEndian
        size = layout.frame_bytes
        available = min(length, len(self._data) - start) if length != _UNDEFINED_LENGTH else 0
        if (index + 1) * size > available:
            raise NotProcessable("decode_error", "pixel data are truncated")
        kind = "i" if layout.signed else "u"
        dtype = np.dtype(f"{'>' if big else '<'}{kind}{layout.bits_allocated // 8}")
        if big and vr == "OW" and layout.bits_allocated == 8:
            # Bytes of 8-bit pixels are swapped in pairs inside big-endian words (PS3.5 8.1.1, annex A.3).
            words = np.frombuffer(self._data, ">u2", (size + 1) // 2, start + index * size).astype("<u2")
            flat = words.view(np.uint8)[:size].view(dtype)
        else:
            count = layout.rows * layout.columns * layout.samples
            flat = np.frombuffer(self._data, dtype, count, start + index * size)
        if layout.samples == 1:
            return flat.reshape(layout.rows, layout.columns)
        if layout.planar_configuration == 1:
            return np.moveaxis(flat.reshape(layout.samples, layout.rows, layout.columns), 0, 2)
        return flat.reshape(layout.rows, layout.columns, layout.samples)


def read_planes(data: bytes, decoder: FrameDecoder) -> list[PlaneImage]:
    """Return the planes of one PS3.10 object, in frame order.

    Raises NotProcessable: decode_error (not DICOM, no or unusable Image Pixel module), not_grayscale,
    rescale_missing.
    """
    header, data, offset = open_object(data, _TAGS)
    layout = _layout(header)
    pixels = PixelElement(data, header, offset, layout, decoder)
    modality = first_text(header, "Modality")
    planes = []
    for number, frame in enumerate(_frame_headers(header), start=1):
        ref = FrameRef(first_text(header, "SOPInstanceUID"), number)
        ratios = numbers(header, "LossyImageCompressionRatio")
        planes.append(
            PlaneImage(
                ref=ref,
                modality=modality,
                image_type=texts(frame, "FrameType") or texts(frame, "ImageType"),
                origin=_exactly(numbers(frame, "ImagePositionPatient", 3), 3),
                orientation=_exactly(numbers(frame, "ImageOrientationPatient", 6), 6),
                pixel_spacing=_spacing(frame),
                recency=(
                    whole(frame, "FrameAcquisitionNumber") or whole(frame, "AcquisitionNumber") or 0,
                    whole(header, "InstanceNumber") or 0,
                    f"{ref.sop_instance_uid}#{number:06d}",
                ),
                frame_of_reference=first_text(header, "FrameOfReferenceUID"),
                lossy=first_text(header, "LossyImageCompression") == "01",
                lossy_ratio=max(ratios) if ratios else None,
                layout=layout,
                rescale=rescale_of(frame, layout, modality=modality),
                stored=_Frame(pixels, number - 1),
                clocks=partial(clocks_of, frame),
            )
        )
    return planes


@dataclass(frozen=True, slots=True)
class _Frame:
    pixels: PixelElement
    index: int

    def __call__(self) -> Array:
        return self.pixels.frame(self.index)


def open_object(data: bytes, tags: Sequence[str]) -> tuple[Dataset, bytes, int]:
    """Return the header with *tags* only, the bytes that hold the pixel data element, and its offset in them.

    Raises NotProcessable("decode_error").
    """
    buffer = io.BytesIO(data)
    try:
        header = dcmread(buffer, stop_before_pixels=True, force=True, specific_tags=list(tags))
        syntax = header.file_meta.get("TransferSyntaxUID")
        if syntax is None:
            header.file_meta.TransferSyntaxUID = syntax = ImplicitVRLittleEndian
        if syntax == DeflatedExplicitVRLittleEndian:
            return _inflate(data, tags)
    except NotProcessable:
        raise
    except Exception as error:
        raise NotProcessable("decode_error", "not a readable DICOM object") from error
    return header, data, buffer.tell()


def _inflate(data: bytes, tags: Sequence[str]) -> tuple[Dataset, bytes, int]:
    """Rewrite a deflated object as explicit little endian, so that its pixel data have an offset."""
    whole_object = dcmread(io.BytesIO(data))
    whole_object.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    plain = io.BytesIO()
    whole_object.save_as(plain, implicit_vr=False, little_endian=True)
    return open_object(plain.getvalue(), tags)


def _layout(header: Dataset) -> FrameLayout:
    rows, columns = whole(header, "Rows"), whole(header, "Columns")
    allocated = whole(header, "BitsAllocated")
    if not rows or not columns or allocated is None:
        raise NotProcessable("decode_error", "no image")
    samples = whole(header, "SamplesPerPixel") or 1
    photometric = first_text(header, "PhotometricInterpretation").upper()
    if samples != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2", ""}:
        raise NotProcessable("not_grayscale", "colour where grey is expected")
    stored = whole(header, "BitsStored") or allocated
    high = whole(header, "HighBit")
    high = stored - 1 if high is None else high
    if allocated not in {8, 16, 32} or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise NotProcessable("decode_error", "unusable bit depth")
    return FrameLayout(
        rows=rows,
        columns=columns,
        samples=1,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=whole(header, "PixelRepresentation") == 1,
        photometric=photometric or "MONOCHROME2",
    )


def _frame_headers(header: Dataset) -> Iterator[Dataset]:
    """Yield one flat header per frame: functional groups over the object's own attributes."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        yield header
        for _ in range((whole(header, "NumberOfFrames") or 1) - 1):
            yield header
        return
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for groups in per_frame:
        flat = Dataset()
        for source in (header, *_items(shared[0]), *_items(groups)):
            for element in source:
                if element.VR != "SQ" or element.keyword == "ModalityLUTSequence":
                    flat[element.tag] = element
        yield flat


def _items(groups: Dataset) -> Iterator[Dataset]:
    for keyword in (*_GROUPS, *_FRAME_TYPES):
        sequence = groups.get(keyword)
        if sequence:
            yield sequence[0]


def _exactly(values: tuple[float, ...] | None, count: int) -> tuple[float, ...] | None:
    return None if values is None else values[:count]


def _spacing(frame: Dataset) -> tuple[float, ...] | None:
    spacing = _exactly(numbers(frame, "PixelSpacing", 2), 2)
    return spacing if spacing is not None and min(spacing) > 0 and first_number(frame, "PixelSpacing") else None
