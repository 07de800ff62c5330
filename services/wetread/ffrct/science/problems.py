"""What is wrong with an input, as data: stable code, place and advice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One reason why an input cannot be computed.

    ``code`` is stable and documented; ``pointer`` is a JSON pointer into the request (RFC 6901);
    ``advice`` tells the user what to change and names no patient.
    """

    code: str
    pointer: str
    advice: str
