"""Settings: typed, safe by default, and handed to child processes without loss."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

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
