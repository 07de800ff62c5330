"""Stored instances in another transfer syntax: Explicit VR Little Endian for every client (PS3.18 8.7.3.4)."""

from __future__ import annotations

import io

import pydicom
from pydicom.uid import UID

from wetread.core.dicom.json_model import little_endian
from wetread.core.dicom.transfer_syntax import EXPLICIT_LE, transfer_syntax
from wetread.gateway.pixels import Undecodable


def to_explicit_little_endian(stored: bytes) -> bytes:
    """Return a PS3.10 file with the same values, decompressed and in Explicit VR Little Endian.

    Raises Undecodable when no decoder understands the pixel data.
    """
    data = pydicom.dcmread(io.BytesIO(stored))
    try:
        if transfer_syntax(str(data.file_meta.TransferSyntaxUID)).encapsulated and "PixelData" in data:
            data.decompress(as_rgb=False, generate_instance_uid=False)
        elif data.original_encoding[1] is False:
            _swap_pixels(data)
        data.file_meta.TransferSyntaxUID = UID(EXPLICIT_LE)
        target = io.BytesIO()
        pydicom.dcmwrite(target, data, implicit_vr=False, little_endian=True, enforce_file_format=True)
    except Exception as error:
        msg = "the stored instance cannot be converted to Explicit VR Little Endian"
        raise Undecodable(msg) from error
    return target.getvalue()


def _swap_pixels(data: pydicom.Dataset) -> None:
    """Bring other-word values of a big endian data set into little endian order."""
    for element in data.iterall():
        if element.VR in ("OW", "OF", "OL", "OD", "OV") and isinstance(element.value, bytes):
            element.value = little_endian(element.value, str(element.VR), little=False)
