"""No webhook reaches a private address by any spelling, unless the operator allows it."""

from __future__ import annotations

import ipaddress

import pytest

from wetread.adapters.notify.addresses import LOOPBACK, AddressPolicy, split_url
from wetread.core.errors import ComputationFailed, ConfigurationError, Unprocessable

FORBIDDEN = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::a00:1", "2002:0a00:0001::1",
]  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN)
def test_private_addresses_are_refused(address: str) -> None:
    assert not AddressPolicy().permits(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(Unprocessable) as refused:
        AddressPolicy().check(f"http://{host}:8080/hook")
    assert refused.value.code == "address_not_allowed"


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_are_permitted(address: str) -> None:
    assert AddressPolicy().permits(ipaddress.ip_address(address))


def test_the_embedded_profile_reaches_loopback_and_nothing_else_private() -> None:
    policy = AddressPolicy(LOOPBACK)
    policy.check("http://127.0.0.1:9/hook")
    policy.check("http://[::1]:9/hook")
    with pytest.raises(Unprocessable):
        policy.check("http://192.168.1.1/hook")


def test_a_name_that_resolves_to_a_private_address_is_refused_at_connection() -> None:
    policy = AddressPolicy(resolver=lambda _host, _port: ["10.0.0.5"])
    policy.check("https://intranet.example/hook")
    with pytest.raises(ComputationFailed) as refused:
        policy.pin("https://intranet.example/hook")
    assert refused.value.reason == "address_not_allowed"


def test_the_connection_is_pinned_to_a_permitted_answer() -> None:
    asked: list[tuple[str, int]] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["10.0.0.5", "8.8.8.8"]

    parts, port, address = AddressPolicy(resolver=resolver).pin("https://hook.example:8443/a?b=c")
    assert (parts.hostname, port, address) == ("hook.example", 8443, "8.8.8.8")
    assert asked == [("hook.example", 8443)]


@pytest.mark.parametrize(
    "url",
    [
        "", "hook.example", "ftp://hook.example/", "file:///etc/passwd", "http://", "http:///path", "http://u:p@h.example/",
        "http://h.example:99999/", "http://h.example:0/", "http://h.example/a b", "http://h.example/\r\nx: y", "http://[::1",
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        split_url(url)
    assert refused.value.code == "url"


def test_a_wrong_allow_list_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        AddressPolicy(["everything"])
