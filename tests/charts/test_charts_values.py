"""Every value is described, typed and used; wrong ones are refused with a sentence that helps."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from tests.charts.rendering import (
    CHART,
    CI,
    CLUSTER,
    ROOT,
    ci_values,
    kind,
    merged,
    objects,
    of_ci,
    pod_specs,
    rendered,
)

from wetread.registry import SERVICES
from wetread.settings import Settings

pytestmark = pytest.mark.server("helm")

VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
OPEN = {"commonLabels", "settings", "workflows", "tenants", "detectors"}
"""Maps whose keys are the user's; so are those of ``labels``, ``annotations`` and what Kubernetes defines."""


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def leaves(
    values: Any, schema: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield path, value and schema of each value of ours."""
    schema = resolved(schema)
    if isinstance(values, dict) and "properties" in schema:
        for key, value in values.items():
            assert key in schema["properties"], f"{'.'.join((*path, key))} is not in the schema"
            yield from leaves(value, schema["properties"][key], (*path, key))
    else:
        yield path, values, schema


def objects_of(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    schema = resolved(schema)
    if "properties" in schema:
        yield path, schema
        for key, each in schema["properties"].items():
            yield from objects_of(each, f"{path}.{key}")


def script_of(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "charts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_has_a_comment_and_the_readme_is_up_to_date() -> None:
    script = script_of("values_table")
    documented = dict(script.documented((CHART / "values.yaml").read_text("utf-8")))
    for path, _, _ in leaves(VALUES, SCHEMA):
        for length in range(1, len(path) + 1):
            key = ".".join(path[:length])
            assert key in documented or "pod" in path[: length - 1], key
    text = (CHART / "README.md").read_text("utf-8")
    assert script.readme(text) == text, "run python charts/values_table.py"


def test_every_object_of_the_schema_is_closed_and_every_key_is_a_value() -> None:
    for path, each in objects_of(SCHEMA):
        assert each["additionalProperties"] is False, path
        value: Any = VALUES
        for key in path.split(".")[1:]:
            value = value.get(key, {})
        if "pod" in path.split(".")[2:] or path.startswith(".tenants"):
            continue  # what differs from the defaults: empty by nature
        assert set(value) == set(each["properties"]), path


def test_every_value_is_used_by_a_template() -> None:
    templates = "".join(path.read_text("utf-8") for path in (CHART / "templates").rglob("*.*"))
    for path, _, _ in leaves(VALUES, SCHEMA):
        assert re.search(rf"[.\" ]{path[-1]}\b", templates) or path[-1] in {"gateway", "worker", "default"}, path


WRONG = [{"wrong": "map"}, ["wrong"], "\x00not valid ☃", -7, 3.5, True]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: type(value).__name__)
def test_a_value_of_a_wrong_type_is_refused(wrong: Any) -> None:
    """Each value of ours, set to *wrong* where its type is another: by the schema itself, as Helm reads it."""
    validator = Draft202012Validator(SCHEMA)
    name = {dict: "object", list: "array", str: "string", int: "integer", float: "number", bool: "boolean"}[type(wrong)]
    tried = 0
    for path, _, schema in leaves(VALUES, SCHEMA):
        kinds = schema.get("type", "string")
        if name in ([kinds] if isinstance(kinds, str) else kinds) or path[0] in OPEN:
            continue
        values: Any = wrong
        for key in reversed(path):
            values = {key: values}
        assert not validator.is_valid(values), path
        tried += 1
    assert tried > 40


@pytest.mark.parametrize(
    "values",
    [
        {"profil": "cluster"},
        {"image": {"tag": "latest"}},
        {"image": {"digest": "sha256:abc"}},
        {"pod": {"resources": {"limits": {"memory": "2 GB"}}}},
        {"settings": {"DATABASE_URL": "postgresql://user:password@host/name"}},
        {"settings": {"log_level": "info"}},
        {"services": {"worker": {"autoscaling": {"enabled": True}}}},
        {"services": {"tritton": {"enabled": True}}},
        {"networkPolicy": {"databaseNetworks": ["everywhere"]}},
        {"auth": {"oidc": {"issuer": "http://idp.example"}}},
        {"workflows": {"../x.yaml": "a"}},
    ],
    ids=json.dumps,
)
def test_what_nobody_can_mean_is_refused(values: dict[str, Any]) -> None:
    import helm_python

    with pytest.raises(helm_python.HelmError):
        objects(values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"profile": "cluster"}, "set database.existingSecret"),
        ({"profile": "cluster", "database": {"existingSecret": "d"}}, "set objectStore.url"),
        ({"objectStore": {"url": "s3://b/p"}}, "set profile: cluster"),
        (merged(CLUSTER, {"services": {"dimse": {"enabled": True}}}), "set dimse.peers"),
        (merged(CLUSTER, {"keda": {"enabled": True}}), "set keda.existingSecret"),
        ({"keda": {"enabled": True}}, "needs profile cluster"),
        ({"triton": {"enabled": True}}, "need profile cluster"),
        (merged(CLUSTER, {"triton": {"enabled": True}, "kserve": {"enabled": True}}), "enable one of them"),
        (
            merged(
                CLUSTER,
                {
                    "triton": {"enabled": True},
                    "detectors": {name: {"enabled": False} for name in ("ich", "lung-nodule", "echo-ef")},
                },
            ),
            "detectors: none is served",
        ),
        (merged(CLUSTER, {"queues": {"stat": {"enabled": True}}}), "services.worker takes every queue"),
        (
            merged(CLUSTER, {"services": {"worker": {"enabled": False}}, "queues": {"stat": {"enabled": True}}}),
            "switch services.orchestration on",
        ),
        (
            merged(
                CLUSTER,
                {
                    "services": {"worker": {"enabled": False}, "orchestration": {"enabled": True}},
                    "queues": {"stat": {"enabled": True}, "routine": {"enabled": True}},
                },
            ),
            "no enabled pool takes detector.cpu.batch",
        ),
        (merged(CLUSTER, {"ray": {"job": {"enabled": True}}}), "set ray.sharedClaim"),
        (merged(CLUSTER, {"ray": {"sharedClaim": "c", "job": {"enabled": True}}}), "set ray.job.slides"),
        ({"monitoring": {"rules": {"runbooks": "https://x"}}}, "is now monitoring.rules.runbookBaseUrl"),
        ({"ingress": {"enabled": True}}, "set ingress.host"),
        ({"httpRoute": {"enabled": True}}, "set httpRoute.parentRefs"),
        ({"ingress": {"enabled": True, "host": "a"}, "httpRoute": {"enabled": True}}, "enable one of them"),
        ({"auth": {"oidc": {"issuer": "https://idp.example"}}}, "go together"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_missing_value_is_named(values: dict[str, Any], sentence: str) -> None:
    import helm_python

    with pytest.raises(helm_python.HelmError, match=re.escape(sentence)):
        objects(values)


@pytest.mark.parametrize("name", CI)
def test_every_setting_and_service_that_the_chart_names_exists(name: str) -> None:
    found = of_ci(name)
    set_by = [each["data"] for each in kind(found, "ConfigMap").values()]
    names = {key for data in set_by for key in data if key.startswith("WETREAD_")}
    for _, labels, spec in pod_specs(found):
        container = spec["containers"][0]
        names |= {each["name"] for each in container.get("env", ()) if each["name"].startswith("WETREAD_")}
        if "serve" in str(container.get("args")) and labels["app.kubernetes.io/component"] != "test":
            assert set(container["args"][2:]) <= SERVICES.keys()
    known = {f"WETREAD_{field.upper()}" for field in Settings.model_fields}
    assert names
    assert names <= known


@pytest.mark.parametrize("name", ["default", "ha"])
def test_the_program_accepts_the_settings_of_the_chart(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """What a pod gets, read by the program: binding to all addresses is allowed because there are keys."""
    for key in list(os.environ):
        if key.startswith("WETREAD_"):
            monkeypatch.delenv(key)
    (tmp_path / "url").write_text("postgresql://host/name\n")
    data = dict(kind(of_ci(name), "ConfigMap")["demo-wetread-config"]["data"])
    if "WETREAD_DATABASE_URL_FILE" in data:
        data["WETREAD_DATABASE_URL_FILE"] = str(tmp_path / "url")
    for key, value in data.items():
        monkeypatch.setenv(key, value)
    settings = Settings()
    assert (settings.host, settings.port, settings.authentication) == ("0.0.0.0", 8080, True)
    assert settings.shared is (name == "ha")
    assert settings.migrate is (name == "default")


def test_files_of_the_chart_are_read_by_the_program(tmp_path: Any) -> None:
    from wetread.bootstrap.tenants import load_tenants
    from wetread.dimse.peers import load_peers

    for name in ("default", "ha"):
        files = kind(of_ci(name), "ConfigMap")["demo-wetread-files"]["data"]
        (tmp_path / "tenants.yaml").write_text(files["tenants.yaml"])
        load_tenants(tmp_path / "tenants.yaml")
    (tmp_path / "peers.yaml").write_text(files["peers.yaml"])
    book = load_peers(tmp_path / "peers.yaml", "WETREAD", mutual_tls=False)
    assert [peer.ae for peer in book.peers] == ["CT_ER1", "PACS"]


def test_the_made_keys_open_what_they_should(tmp_path: Any) -> None:
    """The Secret made at installation, read by the program's own key file reader."""
    import asyncio
    import base64

    from wetread.adapters.auth.api_keys import ApiKeys
    from wetread.core.access import Scope

    secret = next(iter(kind(objects(), "Secret").values()))["data"]
    plain = {key: base64.b64decode(value).decode() for key, value in secret.items()}
    (tmp_path / "keys").write_text(plain["api-keys"])
    keys = ApiKeys(tmp_path / "keys")

    async def scopes(key: str) -> frozenset[Scope]:
        return (await keys.authenticate(f"Bearer {key}")).scopes

    everything, metrics = asyncio.run(scopes(plain["api-key"])), asyncio.run(scopes(plain["metrics-key"]))
    assert Scope.DICOM_WRITE in everything
    assert Scope.METRICS_READ not in everything
    assert metrics == {Scope.METRICS_READ}
    assert not kind(of_ci("ha"), "Secret"), "an existing Secret is never overwritten"


def test_no_secret_is_in_a_config_map() -> None:
    for name in CI:
        for each in kind(of_ci(name), "ConfigMap").values():
            assert not re.search(r"password|secret_access|postgresql://", json.dumps(each["data"]), re.IGNORECASE)


def test_upgrading_names_every_version_and_every_deprecated_value() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    text = (CHART / "UPGRADING.md").read_text("utf-8")
    assert f"## {chart['version'].rpartition('.')[0]}" in text
    assert chart["kubeVersion"] == ">=1.29.0-0"
    assert chart["appVersion"] in rendered()["wetread/templates/NOTES.txt"]
    for field in ("icon", "home", "sources", "maintainers"):
        assert chart[field]


def test_a_release_names_its_site_and_its_images_by_digest(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    script, digest = script_of("package"), "a" * 64
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    named = {"--home": "https://wetread.org", "--image": f"registry.io/wetread@sha256:{digest}",
             "--triton": f"registry.io/triton@sha256:{digest}", "--out": str(tmp_path)}  # fmt: skip
    for wrong in ({"--home": chart["home"]}, {"--source": chart["sources"][0]}, {"--image": "wetread:0.1.0"}):
        with pytest.raises(SystemExit, match="2"):
            script.main([part for pair in (named | wrong).items() for part in pair])
        assert next(iter(wrong.values())) in capsys.readouterr().err
    script.main([part for pair in named.items() for part in pair])
    archive = capsys.readouterr().out.strip()
    with tarfile.open(archive) as package:
        member = package.extractfile("wetread/Chart.yaml")
        assert member is not None
        packaged = yaml.safe_load(member.read())
    assert packaged["home"] == packaged["sources"][0] == "https://wetread.org"
    images = [each["image"] for each in yaml.safe_load(packaged["annotations"]["artifacthub.io/images"])]
    assert images == [named["--image"], named["--triton"]]
    assert packaged["version"] == chart["version"]


def test_the_release_and_the_chart_have_one_version() -> None:
    from wetread import __version__

    assert yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["appVersion"] == __version__


def test_ci_values_are_documented_by_their_first_line() -> None:
    for name in CI:
        assert (CHART / "ci" / f"{name}-values.yaml").read_text("utf-8").startswith("# ")
        assert isinstance(ci_values(name), dict)
