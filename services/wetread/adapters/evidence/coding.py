"""Our codes as highdicom's coded concepts."""

from __future__ import annotations

import logging

import highdicom as hd

from wetread.core.codes import concept, unit_code
from wetread.core.findings import Code

# Below WARNING highdicom names every source instance by its UID; no log of ours may.
logging.getLogger("highdicom").setLevel(logging.WARNING)


def to_concept(code: Code) -> hd.sr.CodedConcept:
    """Return *code* as a Code Sequence item (PS3.3 8.8)."""
    return hd.sr.CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def concept_code(key: str) -> hd.sr.CodedConcept:
    """Return the concept named *key* in the dictionary. Raises ConfigurationError."""
    return to_concept(concept(key).code)


def unit_concept(unit: str) -> hd.sr.CodedConcept:
    """Return a UCUM unit of the dictionary. Raises ConfigurationError."""
    return to_concept(unit_code(unit))
