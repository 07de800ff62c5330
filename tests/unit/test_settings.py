"""Settings: typed, safe by default, and handed to child processes without loss."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from wetread.adapters.auth.api_keys import ApiKeys
from wetread.core.errors import ConfigurationError, NotAuthenticated
from wetread.settings import Settings, is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_without_credentials_only_loopback(host: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="loopback"):
        Settings(host=host)
    assert Settings(host=host, api_keys_file=tmp_path / "keys").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    assert Settings(host=host).allow_private_webhooks


def test_environment_round_trip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, port=0, quiet_study=2.5, webhook_allow_private=False)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def write_keys(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_api_key_gives_the_tenant(tmp_path: Path) -> None:
    hashed = hashlib.sha256(b"sesame").hexdigest()
    keys = ApiKeys(write_keys(tmp_path / "keys", "# comment", "", f"{hashed} north pacs-1  # trailing"))
    assert keys.authenticate("Bearer sesame").tenant == "north"
    for wrong in (None, "", "Bearer", "Bearer open", "Basic sesame", hashed, f"Bearer {hashed}"):
        with pytest.raises(NotAuthenticated):
            keys.authenticate(wrong)


def test_a_malformed_key_file_names_the_line_but_not_its_content(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys", "# ok", "secret-in-clear north x")
    with pytest.raises(ConfigurationError, match="keys:2") as caught:
        ApiKeys(path)
    assert "secret" not in str(caught.value)
