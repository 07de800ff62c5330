"""What the chart tests share: the chart rendered to objects, and the schemas that the objects have to meet."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "wetread"
CI = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
KUBERNETES = ("1.29", "1.37")
"""Oldest and newest supported version."""
CLUSTER: dict[str, Any] = {
    "profile": "cluster",
    "database": {"existingSecret": "database"},
    "objectStore": {"url": "s3://bucket/archive"},
}

Object = dict[str, Any]


def ci_values(name: str) -> Object:
    return yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text("utf-8")) or {}


def merged(*values: Object) -> Object:
    out: Object = {}
    for value in values:
        for key, new in value.items():
            both = isinstance(new, dict) and isinstance(out.get(key), dict)
            out[key] = merged(out[key], new) if both else new
    return out


@functools.cache
def _chart() -> Any:
    import helm_python

    return helm_python.Chart.load(str(CHART))


def rendered(values: Object | None = None, *, release: str = "demo", upgrade: bool = False) -> dict[str, str]:
    """Return the text of each template."""
    return _chart().render(values=values or {}, name=release, namespace="imaging", is_upgrade=upgrade)


def objects(values: Object | None = None, *, release: str = "demo") -> list[Object]:
    """Return the objects that the chart makes of *values*."""
    texts = rendered(values, release=release)
    documents = [yaml.safe_load_all(text) for path, text in texts.items() if not path.endswith("NOTES.txt")]
    return [found for every in documents for found in every if found]


@functools.cache
def of_ci(name: str) -> list[Object]:
    return objects(ci_values(name))


def kind(found: list[Object], wanted: str) -> dict[str, Object]:
    """Return the objects of one kind by name."""
    return {each["metadata"]["name"]: each for each in found if each["kind"] == wanted}


def pod_specs(found: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Yield name, labels and spec of each pod that the objects make."""
    for each in found:
        name = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] == "Pod":
            yield name, each["metadata"]["labels"], each["spec"]
        elif "template" in each.get("spec", {}):
            template = each["spec"]["template"]
            yield name, template["metadata"]["labels"], template["spec"]
        elif each["kind"] == "InferenceService":  # its container is that of the runtime
            predictor = each["spec"]["predictor"]
            (runtime,) = [one for one in found if one["kind"] == "ServingRuntime"]
            assert predictor["model"]["runtime"] == runtime["metadata"]["name"]
            yield name, predictor["labels"], predictor | {"containers": runtime["spec"]["containers"]}
        elif each["kind"] in {"RayCluster", "RayJob"}:
            cluster = each["spec"].get("rayClusterSpec", each["spec"])
            for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
                template = group["template"]
                yield (
                    f"{name}/{template['spec']['containers'][0]['name']}",
                    template["metadata"]["labels"],
                    template["spec"],
                )


def core(each: Object) -> bool:
    """Return whether Kubernetes itself knows the kind."""
    group = each["apiVersion"].rpartition("/")[0]
    return "." not in group or (group.endswith(".k8s.io") and group != "gateway.networking.k8s.io")


def custom_errors(each: Object, schemas: Path) -> list[str]:
    """Return what the schema of a custom resource says against an object. A kind without schema is an error."""
    from jsonschema import Draft202012Validator

    group, version = each["apiVersion"].split("/")
    path = schemas / f"{group}_{each['kind'].lower()}_{version}.json"
    validator = Draft202012Validator(json.loads(path.read_text("utf-8")))
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(each)]
