"""Instances from metadata and bulk data: PS3.10 files as if they had been sent so (PS3.18 10.5.2, table 10.5.2-1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson
from pydicom.encaps import encapsulate

from wetread.core.dicom.attributes import as_float, text, values
from wetread.core.dicom.codestream import image_size, syntax_of
from wetread.core.dicom.dictionary import vr_of
from wetread.core.dicom.file_meta import file_meta
from wetread.core.dicom.json_encode import PIXEL_DATA, element, encode_data_set
from wetread.core.dicom.native_xml import from_xml
from wetread.core.dicom.transfer_syntax import EXPLICIT_LE, RLE, transfer_syntax
from wetread.core.dicomweb.media_types import DICOM_XML, OCTETS
from wetread.core.errors import InstanceRejected, InvalidInput, NotProcessable
from wetread.core.identifiers import is_uid
from wetread.core.ports.ingest import InstanceOutcome
from wetread.gateway import reasons
from wetread.gateway.bulkparts import BulkPart, BulkSpool, MetadataBody
from wetread.gateway.pictures import read_picture

_OPAQUE: Final[Mapping[str, str]] = {
    "image/dicom-rle": RLE,
    "image/jxl": "1.2.840.10008.1.2.4.112",
    "video/mpeg": "1.2.840.10008.1.2.4.100",
    "video/mp4": "1.2.840.10008.1.2.4.102",
    "video/H265": "1.2.840.10008.1.2.4.107",
}
"""Transfer syntax of types whose streams are not looked into, unless the part names another of the type."""

_PART_2: Final = {
    "1.2.840.10008.1.2.4.90": "1.2.840.10008.1.2.4.92",
    "1.2.840.10008.1.2.4.91": "1.2.840.10008.1.2.4.93",
}
_PICTURES: Final = ("image/png", "image/gif")
_PIXEL_LIMIT: Final = 1 << 30


def data_sets(body: MetadataBody) -> list[Any]:
    """Return the data sets of all metadata parts. Raises InvalidInput for what is not JSON, not XML, or no data set."""
    found: list[Any] = []
    for media, document in body.documents:
        if media == DICOM_XML:
            found.append(from_xml(document))
            continue
        try:
            parsed = orjson.loads(document)
        except orjson.JSONDecodeError as error:
            msg = "the metadata are not JSON"
            raise InvalidInput(msg) from error
        found += parsed if isinstance(parsed, list) else [parsed]
    if not found or any(not isinstance(each, Mapping) for each in found):
        msg = "the metadata are not a list of data sets"
        raise InvalidInput(msg)
    return found


def assemble(data: Mapping[str, Any], body: MetadataBody, spool: BulkSpool, *, limit: int) -> bytes | InstanceOutcome:
    """Return the PS3.10 file of one data set, or why there is none. ``limit``: bytes of an assembled instance."""
    builder = _Builder(data, body, spool, limit)
    try:
        return builder.file()
    except InstanceRejected as error:
        return replace(builder.identity, failure_reason=error.reason, comment=error.detail)
    except InvalidInput as error:
        return replace(builder.identity, failure_reason=reasons.CANNOT_UNDERSTAND, comment=error.detail)


class _Builder:
    def __init__(self, data: Mapping[str, Any], body: MetadataBody, spool: BulkSpool, limit: int) -> None:
        self._data = dict(data)
        self._body = body
        self._spool = spool
        self._limit = limit
        self._size = 0
        self.identity = InstanceOutcome(
            _uid(data, "00080016"), _uid(data, "00080018"), _uid(data, "0020000D"), _uid(data, "0020000E")
        )

    def file(self) -> bytes:
        """Return the file. Raises InstanceRejected, InvalidInput."""
        syntax, pixels = self._pixels()
        data_set = encode_data_set(self._data, self._bulk, pixels=pixels)
        identity = self.identity
        return file_meta(identity.sop_class_uid or "", identity.sop_instance_uid or "", syntax) + data_set

    def _parts(self, uri: str) -> Sequence[BulkPart]:
        # Never fetched: what is not in the request does not exist.
        parts = self._body.bulk.get(uri.strip())
        if not parts:
            raise InstanceRejected(reasons.CANNOT_UNDERSTAND, "a BulkDataURI has no part in this request")
        self._size += sum(part.length for part in parts)
        if self._size > self._limit:
            raise InstanceRejected(reasons.OUT_OF_RESOURCES, f"the instance is larger than {self._limit} bytes")
        return parts

    def _read(self, part: BulkPart) -> bytes:
        return self._spool.read(part.offset, part.length)

    def _bulk(self, uri: str, _tag: str) -> bytes:
        return b"".join(self._read(part) for part in self._parts(uri))

    def _pixels(self) -> tuple[str, bytes | None]:
        """Return the transfer syntax, and the pixel data element where it is not the plain value of its part."""
        entry = self._data.get(PIXEL_DATA)
        if not isinstance(entry, Mapping) or "BulkDataURI" not in entry:
            return EXPLICIT_LE, None
        parts = self._parts(str(entry["BulkDataURI"]))
        kinds = {part.media.type for part in parts}
        if len(kinds) > 1:
            raise InstanceRejected(reasons.CANNOT_UNDERSTAND, "the frames are of different media types")
        (kind,) = kinds
        frames = [self._read(part) for part in parts]
        if kind in _PICTURES:
            return EXPLICIT_LE, self._from_pictures(frames)
        if kind == OCTETS:
            vr = "OW" if (as_float(text(self._data, "00280100")) or 16) > 8 else "OB"
            return EXPLICIT_LE, element(0x7FE00010, vr, b"".join(frames))
        syntax = _syntax(kind, parts[0], frames[0])
        self._describe(frames, syntax)
        self._count(len(frames), kind)
        value = encapsulate(frames, has_bot=len(frames) > 1)
        head = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"
        return syntax, head + value + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"

    def _from_pictures(self, files: Sequence[bytes]) -> bytes:
        pictures = [read_picture(file, _PIXEL_LIMIT) for file in files]
        if len({(picture.rows, picture.columns, picture.samples, picture.bits) for picture in pictures}) > 1:
            raise InstanceRejected(reasons.CANNOT_UNDERSTAND, "the pictures differ in size or kind")
        first = pictures[0]
        self._set(
            {
                "00280002": first.samples,
                "00280004": "RGB" if first.samples == 3 else "MONOCHROME2",
                "00280010": first.rows,
                "00280011": first.columns,
                "00280100": first.bits,
                "00280101": first.bits,
                "00280102": first.bits - 1,
                "00280103": 0,
            },
            always=True,
        )
        if first.samples == 3:
            self._set({"00280006": 0}, always=True)
        self._count(len(pictures), "image/png")
        return element(0x7FE00010, "OW" if first.bits > 8 else "OB", b"".join(each.values for each in pictures))

    def _describe(self, frames: Sequence[bytes], syntax: str) -> None:
        """Add what the code stream says and the metadata leave out."""
        if syntax == RLE or (transfer_syntax(syntax).media_type or "").startswith("video/"):
            return
        try:
            size = image_size(frames[0])
        except NotProcessable:
            return
        allocated = 8 if size.bits <= 8 else 16
        self._set(
            {
                "00280002": size.components,
                "00280004": "MONOCHROME2" if size.components == 1 else _photometric(syntax),
                "00280010": size.rows,
                "00280011": size.columns,
                "00280100": allocated,
                "00280101": size.bits,
                "00280102": size.bits - 1,
                "00280103": 0,
            },
            always=False,
        )
        if size.components == 3:
            self._set({"00280006": 0}, always=False)

    def _count(self, frames: int, kind: str) -> None:
        if frames > 1 and not kind.startswith("video/"):
            self._set({"00280008": frames}, always=False)

    def _set(self, found: Mapping[str, int | str], *, always: bool) -> None:
        for key, value in found.items():
            entry = self._data.get(key)
            if always or not (isinstance(entry, Mapping) and entry.get("Value")):
                self._data[key] = {"vr": vr_of(int(key, 16)), "Value": [value]}


def _syntax(kind: str, part: BulkPart, frame: bytes) -> str:
    """Return the transfer syntax of a compressed frame: what its code stream is, or what its part says it is.

    A name that makes a lossy stream lossless is refused.
    """
    named = part.media.transfer_syntax or ""
    opaque = _OPAQUE.get(kind)
    if opaque is not None:
        return named if transfer_syntax(named).media_type == kind else opaque
    found = syntax_of(frame)
    if kind == "image/jpx":
        found = _PART_2.get(found, "")
    known = transfer_syntax(found)
    if not found or known.media_type != kind:
        raise InstanceRejected(reasons.CANNOT_UNDERSTAND, "a frame is not of the media type of its part")
    asked = transfer_syntax(named)
    if not named or asked.media_type != kind:
        return found
    if known.lossy and not asked.lossy:
        raise InstanceRejected(reasons.CANNOT_UNDERSTAND, "a lossy frame is named a lossless one")
    return named


def _photometric(syntax: str) -> str:
    """Return the photometric interpretation that colour of a code stream has when nothing else is said (PS3.5 8.2)."""
    if syntax in ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"):
        return "YBR_FULL_422"
    return "RGB"


def _uid(data: Mapping[str, Any], tag: str) -> str | None:
    entry = data.get(tag)
    if not isinstance(entry, Mapping):
        return None
    found = values({tag: entry}, tag)
    value = found[0] if found and isinstance(found[0], str) else ""
    return value if is_uid(value) else None


def instances(body: MetadataBody, spool: BulkSpool, *, limit: int) -> Iterator[bytes | InstanceOutcome]:
    """Yield the instances of a request one after the other; raises InvalidInput before the first."""
    found = data_sets(body)
    return (assemble(data, body, spool, limit=limit) for data in found)
