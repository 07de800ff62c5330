"""Column types that mean the same on SQLite and PostgreSQL: 64-bit integers, text ordered by code point."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, String
from sqlalchemy import Text as PlainText
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeDecorator


class _PostgresText(TypeDecorator[str]):
    """TEXT in the collation "C", which orders and searches prefixes as SQLite does, whatever the database's locale.

    PostgreSQL refuses U+0000 in text. DICOM pads with it (PS3.5 6.2), so it carries no meaning and is left out.
    """

    impl = postgresql.TEXT
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(collation="C")

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002 - signature of SQLAlchemy
        return value.replace("\x00", "") if isinstance(value, str) and "\x00" in value else value


Integer: Final = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
"""A length passes 2^31 (whole-slide files), a frame counter may."""

Text: Final = PlainText().with_variant(_PostgresText(), "postgresql")
"""JSON and free text. JSON stays text: no query looks into it, and jsonb refuses what DICOM allows (U+0000)."""

ShortText: Final = String().with_variant(_PostgresText(), "postgresql")
"""Identifiers and DICOM values."""
