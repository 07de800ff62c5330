"""File meta information for a data set that came without: over the network, or from a careless sender (PS3.10 7.1)."""

from __future__ import annotations

from typing import Final

IMPLEMENTATION_CLASS_UID: Final = "2.25.329800735698586629295641978511506172918"
"""(0002,0012), and the implementation that we announce in associations (PS3.7 D.3.3.2)."""


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return preamble, prefix and file meta information, Explicit VR Little Endian."""
    elements = b"".join(
        [
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", sop_class_uid.encode()),
            _element(0x0003, b"UI", sop_instance_uid.encode()),
            _element(0x0010, b"UI", transfer_syntax_uid.encode()),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
        ]
    )
    group_length = b"\x02\x00\x00\x00UL\x04\x00" + len(elements).to_bytes(4, "little")
    return bytes(128) + b"DICM" + group_length + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" if len(value) % 2 else b""
    tag = b"\x02\x00" + number.to_bytes(2, "little")
    if vr == b"OB":
        return tag + vr + b"\0\0" + len(value).to_bytes(4, "little") + value
    return tag + vr + len(value).to_bytes(2, "little") + value
