"""Failure and warning reasons of stored instances, (0008,1197) and (0008,1196) (PS3.18 annex I.2)."""

from __future__ import annotations

from typing import Final

PROCESSING_FAILURE: Final = 0x0110
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
OUT_OF_RESOURCES: Final = 0xA700
ATTRIBUTE_MISSING: Final = 0xA900  # 43264: required attribute missing or invalid
STUDY_MISMATCH: Final = 0xA901  # 43265: not the study of the request's URL
CANNOT_UNDERSTAND: Final = 0xC000
TRANSFER_SYNTAX_NOT_SUPPORTED: Final = 0xC122  # 49442
CONFLICT: Final = 0xB00E  # 45070: same UID, different content
BEING_STORED: Final = 0xB00F  # 45071: another request stores the instance at this moment

WARNING_DISCARDED: Final = 0xB006
WARNING_MISMATCH: Final = 0xB007
