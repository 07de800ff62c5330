"""Status codes of DIMSE services (PS3.7 annex C, PS3.4 B.2.3, C.4) and how outcomes of the ingest become them."""

from __future__ import annotations

from typing import Final

from wetread.core.ports.ingest import InstanceOutcome

SUCCESS: Final = 0x0000
PENDING: Final = 0xFF00
CANCELLED: Final = 0xFE00
WARNING_SUBOPERATIONS: Final = 0xB000
PROCESSING_FAILURE: Final = 0x0110
DUPLICATE_INSTANCE: Final = 0x0111
NOT_AUTHORIZED: Final = 0x0124
OUT_OF_RESOURCES: Final = 0xA700
OUT_OF_RESOURCES_SUBOPERATIONS: Final = 0xA702
DESTINATION_UNKNOWN: Final = 0xA801
DOES_NOT_MATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000

_CONFLICT: Final = 0xB00E
"""Same UID, other content: a failure reason of the store response, whose DIMSE code is 0111 (PS3.7 C.4.1.8)."""
_BEING_STORED: Final = 0xB00F
"""Another request stores the instance: as a status of C-STORE this number would be a warning, hence a success."""

_COMMENT_LENGTH: Final = 64


def store_status(outcome: InstanceOutcome) -> tuple[int, str]:
    """Return status and error comment, (0000,0900) and (0000,0902), for what became of an instance."""
    reason = outcome.failure_reason
    if reason is None:
        return outcome.warning_reason or SUCCESS, outcome.comment[:_COMMENT_LENGTH]
    if reason == _CONFLICT:
        return DUPLICATE_INSTANCE, outcome.comment[:_COMMENT_LENGTH]
    if reason == _BEING_STORED:
        return PROCESSING_FAILURE, outcome.comment[:_COMMENT_LENGTH]
    if 0xA900 <= reason <= 0xA9FF:
        reason = DOES_NOT_MATCH
    return reason, outcome.comment[:_COMMENT_LENGTH]
