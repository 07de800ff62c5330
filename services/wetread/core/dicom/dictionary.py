"""The data dictionary as the walker and the search need it (PS3.6; private blocks as known to pydicom)."""

from __future__ import annotations

from functools import lru_cache

from pydicom.datadict import dictionary_VR, keyword_for_tag, private_dictionary_VR, tag_for_keyword


@lru_cache(maxsize=16384)
def vr_of(tag: int) -> str:
    """Return the VR of a standard attribute, possibly ambiguous such as ``US or SS``; ``UN`` when unknown."""
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UL" if tag & 0xFFFF == 0 else "UN"


@lru_cache(maxsize=16384)
def private_vr(tag: int, creator: str) -> str:
    """Return the VR of a private attribute of a known creator; ``UN`` otherwise."""
    try:
        return str(private_dictionary_VR(tag, creator))
    except KeyError:
        return "UN"


@lru_cache(maxsize=4096)
def tag_of(keyword: str) -> int | None:
    """Return the tag of a keyword."""
    return tag_for_keyword(keyword)


@lru_cache(maxsize=4096)
def keyword_of(tag: int) -> str:
    """Return the keyword of a tag; empty when unknown."""
    return keyword_for_tag(tag)
