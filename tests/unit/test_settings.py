"""Settings: typed, safe by default, and handed to child processes without loss."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from wetread.adapters.auth.api_keys import ApiKeys
from wetread.bootstrap.house import open_house
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


def test_the_dicom_port_binds_loopback_without_peers(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="DIMSE_PEERS"):
        Settings(dimse_host="0.0.0.0")
    assert Settings(dimse_host="0.0.0.0", dimse_peers=tmp_path / "peers.yaml").dimse_host == "0.0.0.0"


@pytest.mark.parametrize("given", [("certificate",), ("key",), ("authorities",)])
def test_tls_files_go_together(given: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="DIMSE_TLS"):
        Settings(**{f"dimse_tls_{name}": tmp_path / name for name in given})


def test_a_service_whose_extra_is_missing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base install does not bring pynetdicom."""
    monkeypatch.setitem(sys.modules, "pynetdicom", None)
    for name in [name for name in sys.modules if name.startswith("wetread.dimse.")]:
        monkeypatch.delitem(sys.modules, name)
    with (
        open_house(Settings(data=tmp_path), ["dimse"]) as house,
        pytest.raises(ConfigurationError, match=r"pip install 'wetread\[dimse\]'"),
    ):
        house.services(["dimse"])
