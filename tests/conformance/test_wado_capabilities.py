"""Retrieve Capabilities (PS3.18 8.9): the description names the resources that are really there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from tests.gateway_support import Parts, running

NS = "{http://wadl.dev.java.net/2009/02}"


@pytest.fixture
def site(tmp_path: Path):
    with running(tmp_path) as parts:
        yield parts


def ask(site: Parts, path: str = "/dicom-web/", **headers: str) -> Any:
    return site.client.options(path, headers=headers)


def test_8_9_wadl_names_every_resource_with_its_methods(site: Parts) -> None:
    response = ask(site)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/vnd.sun.wadl+xml")
    root = ET.fromstring(response.content)
    assert root.tag == f"{NS}application"
    (resources,) = root
    assert resources.get("base") == "http://testserver/dicom-web/"
    found = {each.get("path"): {m.get("name") for m in each.iter(f"{NS}method")} for each in resources}
    assert {"GET", "POST"} <= found["studies"]
    assert "GET" in found["studies/{study}/series/{series}/instances/{instance}/frames/{frames}"]
    assert "studies/{study}/series/{series}/instances/{instance}/bulkdata/{path}" in found
    for path in found:
        concrete = re.sub(r"\{[^}]*\}", "1", path)
        allowed = site.client.request("TRACE", f"/dicom-web/{concrete}").headers["allow"]
        assert {name.strip() for name in allowed.split(",")} - {"HEAD"} == found[path], path
    templates = {p.get("name") for p in resources.iter(f"{NS}param") if p.get("style") == "template"}
    assert templates >= {"study", "series", "instance", "frames", "path"}


def test_8_9_same_as_json(site: Parts) -> None:
    response = ask(site, Accept="application/json")
    assert response.headers["content-type"] == "application/json"
    (resources,) = response.json()["children"]
    paths = {each["attributes"]["path"]: each for each in resources["children"]}
    methods = {each["attributes"]["name"]: each for each in paths["studies"]["children"]}
    representations = [leaf["attributes"]["mediaType"] for leaf in methods["POST"]["children"][0]["children"]]
    assert representations[:2] == ['multipart/related; type="application/dicom"', "application/dicom"]
    assert representations[2:] == [
        *('multipart/related; type="application/dicom+json"', "application/dicom+json"),
        *('multipart/related; type="application/dicom+xml"', "application/dicom+xml"),
    ]
    search = {each["attributes"]["name"]: each for each in paths["studies"]["children"]}["GET"]["children"][-1]
    assert [leaf["attributes"]["mediaType"] for leaf in search["children"]] == [
        *("application/dicom+json", 'multipart/related; type="application/dicom+xml"')
    ]


def test_conditional_and_refused(site: Parts) -> None:
    etag = ask(site).headers["etag"]
    assert ask(site, **{"If-None-Match": etag}).status_code == 304
    assert ask(site, Accept="text/html").status_code == 406
    assert ask(site, "/dicom-web").status_code == 200


def test_preflight_of_the_same_path_is_no_capabilities_request(site: Parts) -> None:
    response = ask(site, Origin="https://v.example", **{"Access-Control-Request-Method": "GET"})
    assert (response.status_code, response.content) == (204, b"")
