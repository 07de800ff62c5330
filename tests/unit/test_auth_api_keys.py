"""API keys: scopes, expiry, withdrawal without a restart; and which kind of credential goes where."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from wetread.adapters.auth.api_keys import ApiKeys
from wetread.adapters.auth.bearer import Bearer
from wetread.core.access import TENANT_SCOPES, Caller, Scope
from wetread.core.errors import ConfigurationError, NotAuthenticated

END_OF_JANUARY = 1_769_904_000.0  # 2026-02-01T00:00:00Z


def line(key: str, *rest: str) -> str:
    return " ".join([hashlib.sha256(key.encode()).hexdigest(), *rest])


def write_keys(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def ask(keys: ApiKeys, authorization: str | None) -> Caller:
    return asyncio.run(keys.authenticate(authorization))


def test_a_key_gives_tenant_name_and_all_scopes_of_a_tenant(tmp_path: Path) -> None:
    lines = ("# comment", "", line("sesame", "north", "pacs-1") + "  # trailing")
    keys = ApiKeys(write_keys(tmp_path / "keys", *lines))
    assert ask(keys, "Bearer sesame") == Caller("north", "pacs-1", TENANT_SCOPES)
    assert Scope.METRICS_READ not in TENANT_SCOPES
    hashed = hashlib.sha256(b"sesame").hexdigest()
    for wrong in (None, "", "Bearer", "Bearer ", "Bearer open", "Basic sesame", hashed, f"Bearer {hashed}"):
        with pytest.raises(NotAuthenticated):
            ask(keys, wrong)


def test_a_key_may_name_its_scopes_and_its_last_day(tmp_path: Path) -> None:
    now = [END_OF_JANUARY - 1]
    lines = (
        line("a", "north", "sender", "dicom.write"),
        line("b", "north", "guest", "dicom.read,worklist.read", "until=2026-01-31"),
        line("c", "north", "temp", "until=2026-01-31"),
    )
    keys = ApiKeys(write_keys(tmp_path / "keys", *lines), clock=lambda: now[0])
    assert ask(keys, "Bearer a").scopes == {Scope.DICOM_WRITE}
    assert ask(keys, "Bearer b") == Caller(
        "north", "guest", frozenset({Scope.DICOM_READ, Scope.WORKLIST_READ}), END_OF_JANUARY
    )
    assert ask(keys, "Bearer c").scopes == TENANT_SCOPES
    now[0] += 1
    assert ask(keys, "Bearer a")
    for ended in ("b", "c"):
        with pytest.raises(NotAuthenticated):
            ask(keys, f"Bearer {ended}")


@pytest.mark.parametrize(
    "wrong",
    [
        "secret-in-clear north x",
        line("k", "North", "x"),
        line("k", "north", "x", "dicom.everything"),
        line("k", "north", "x", "dicom.read", "until=2026-02-30"),
        line("k", "north", "x", "dicom.read", "until=tomorrow"),
        line("k", "north"),
    ],
)
def test_a_malformed_key_file_names_the_line_but_not_its_content(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="keys:2") as caught:
        ApiKeys(write_keys(tmp_path / "keys", "# ok", wrong))
    assert wrong.split()[0] not in str(caught.value)


def test_a_withdrawn_key_is_refused_without_a_restart(tmp_path: Path) -> None:
    now = [0.0]
    path = write_keys(tmp_path / "keys", line("old", "north", "a"))
    keys = ApiKeys(path, clock=lambda: now[0])
    write_keys(path, line("new-key", "north", "a2"))
    now[0] += 3
    assert ask(keys, "Bearer new-key").name == "a2"
    with pytest.raises(NotAuthenticated):
        ask(keys, "Bearer old")


@pytest.mark.parametrize("damage", ["half a line", None])
def test_a_file_that_cannot_be_read_leaves_the_keys_as_they_were(tmp_path: Path, damage: str | None) -> None:
    now = [0.0]
    path = write_keys(tmp_path / "keys", line("k", "north", "a"))
    keys = ApiKeys(path, clock=lambda: now[0])
    path.unlink() if damage is None else write_keys(path, damage)
    now[0] += 3
    assert ask(keys, "Bearer k").name == "a"


def test_what_looks_like_a_token_is_not_tried_as_a_key() -> None:
    class Recognises:
        def __init__(self, name: str) -> None:
            self.name = name

        async def authenticate(self, authorization: str | None) -> Caller:
            return Caller("north", self.name)

    both = Bearer(Recognises("key"), Recognises("token"))
    for authorization, kind in (
        ("Bearer eyJhbGciOi.J9.sig", "token"),
        ("Bearer k1", "key"),
        ("Bearer a.b.c", "key"),
        (None, "key"),
    ):
        assert asyncio.run(both.authenticate(authorization)).name == kind
    for alone, other in ((Bearer(None, Recognises("token")), "k1"), (Bearer(Recognises("key"), None), "eyJ.a.b")):
        with pytest.raises(NotAuthenticated):
            asyncio.run(alone.authenticate(f"Bearer {other}"))
