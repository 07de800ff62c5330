"""Settings: typed, safe by default, and handed to child processes without loss."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from wetread.bootstrap.house import open_house
from wetread.core.errors import ConfigurationError
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
    settings = Settings(data=tmp_path, port=0, quiet_study=2.5, webhook_allow_private=False, qido_empty_status=204)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"oidc_issuer": "http://idp.example", "oidc_audience": "w"}, "https URL"),
        ({"oidc_issuer": "https://idp.example/?x=1", "oidc_audience": "w"}, "https URL"),
        ({"oidc_issuer": "https://idp.example"}, "go together"),
        ({"oidc_audience": "w"}, "go together"),
        ({"oidc_algorithms": "none"}, "algorithms are"),
        ({"oidc_algorithms": "RS256,HS256"}, "algorithms are"),
        ({"oidc_algorithms": " , "}, "algorithms are"),
    ],
)
def test_settings_of_the_issuer_that_would_weaken_it_are_refused(values: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(**values)


def test_an_issuer_allows_other_addresses_than_loopback() -> None:
    settings = Settings(host="0.0.0.0", oidc_issuer="https://idp.example/realms/x", oidc_audience="wetread")
    assert settings.authentication
    assert Settings(oidc_issuer="http://127.0.0.1:1", oidc_audience="w").oidc_issuer


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
