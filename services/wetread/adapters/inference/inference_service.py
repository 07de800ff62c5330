"""InferenceService objects of KServe, for models that a chart does not own: built as data, applied by an API server.

Needs the extra ``k8s`` to apply; building needs nothing. The model's repository lies in an object store
(``wetread models render --only NAME``, copied there).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wetread.core.errors import ConfigurationError, Conflict, Forbidden, NotFound, Unavailable, WetreadError

GROUP: Final = "serving.kserve.io"
VERSION: Final = "v1beta1"
PLURAL: Final = "inferenceservices"
MANAGED_BY: Final = "wetread-models"
"""Value of the label ``app.kubernetes.io/managed-by``: whose objects may be changed."""

_ATTEMPTS: Final = 4
_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Serving:
    """How one model is served. ``model_sha256``: digest of its weights, empty when it is not installed here."""

    model: str
    storage_uri: str
    namespace: str = "default"
    runtime: str = "kserve-tritonserver"
    gpu: bool = False
    cpu: str = "2"
    memory: str = "4Gi"
    min_replicas: int = 1
    max_replicas: int = 1
    service_account: str = ""
    model_sha256: str = ""


def inference_service(serving: Serving) -> dict[str, Any]:
    """Return the object: Triton in explicit mode with this one model, on a GPU node when one is wanted."""
    limits: dict[str, str] = {"memory": serving.memory}
    if serving.gpu:
        limits["nvidia.com/gpu"] = "1"
    predictor: dict[str, Any] = {
        "minReplicas": serving.min_replicas,
        "maxReplicas": serving.max_replicas,
        "automountServiceAccountToken": False,
        "model": {
            "modelFormat": {"name": "triton", "version": "2"},
            "protocolVersion": "grpc-v2",
            "runtime": serving.runtime,
            "storageUri": serving.storage_uri,
            # Explicit, or the server ends at the first folder that is no model.
            "args": ["--model-control-mode=explicit", f"--load-model={serving.model}"],
            "resources": {"requests": {"cpu": serving.cpu, "memory": serving.memory}, "limits": limits},
        },
    }
    if serving.gpu:
        predictor["nodeSelector"] = {"wetread.io/pool": "gpu"}
        predictor["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    if serving.service_account:
        predictor["serviceAccountName"] = serving.service_account
    annotations = {"serving.kserve.io/deploymentMode": "Standard"}
    if serving.model_sha256:
        annotations["wetread.io/model-sha256"] = serving.model_sha256
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "InferenceService",
        "metadata": {
            "name": object_name(serving.model),
            "namespace": serving.namespace,
            "labels": {
                "app.kubernetes.io/name": "wetread-model",
                "app.kubernetes.io/instance": serving.model,
                "app.kubernetes.io/part-of": "wetread",
                "app.kubernetes.io/managed-by": MANAGED_BY,
            },
            "annotations": annotations,
        },
        "spec": {"predictor": predictor},
    }


def object_name(model: str) -> str:
    """Return the name of a model's object: ``model-`` and the model, in what Kubernetes allows in host names."""
    return f"model-{model.lower().replace('_', '-')}"[:50].rstrip("-")


class KserveDeployments:
    """Creates and updates objects through the Kubernetes SDK. Raises ConfigurationError without it, or without access.

    ``kubeconfig`` None: the usual places, or the pod's own service account.
    """

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        try:
            from kubernetes import client, config
        except ImportError as error:
            msg = "deploying models needs the extra k8s: pip install 'wetread[k8s]'"
            raise ConfigurationError(msg) from error
        try:
            config.load_config(config_file=None if kubeconfig is None else str(kubeconfig), context=context)
        except (config.ConfigException, OSError) as error:
            msg = f"no access to an API server: {error}"
            raise ConfigurationError(msg) from error
        self._objects = client.CustomObjectsApi()
        self._refusal: type[Exception] = client.ApiException

    def apply(self, wanted: Mapping[str, Any]) -> str:
        """Create or update; returns ``created``, ``updated`` or ``unchanged``.

        An object that something else manages is never changed. Raises Conflict, Forbidden, NotFound (namespace or
        CRD), ConfigurationError (refused by its schema) or Unavailable.
        """
        name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
        for attempt in range(_ATTEMPTS):
            try:
                present = self._get(namespace, name)
                if present is None:
                    self._call("create_namespaced_custom_object", namespace, body=dict(wanted))
                    return "created"
                changed = _changed(present, wanted)
                if changed is None:
                    return "unchanged"
                self._call("replace_namespaced_custom_object", namespace, name=name, body=changed)
            except Conflict:  # somebody was faster: look again
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return "updated"
        raise AssertionError

    def wait_ready(self, namespace: str, name: str, seconds: float) -> str:
        """Wait until the service is ready and return its URL. Raises Unavailable with what KServe says of it."""
        deadline = time.monotonic() + seconds
        while True:
            status = (self._get(namespace, name) or {}).get("status", {})
            conditions = {each["type"]: each for each in status.get("conditions", ())}
            ready = conditions.get("Ready", {})
            if ready.get("status") == "True":
                return str(status.get("url", ""))
            if time.monotonic() > deadline:
                said = ready.get("message") or ready.get("reason") or "nothing was said about it"
                msg = f"{name} is not ready after {seconds:.0f} s: {said}"
                raise Unavailable(msg)
            time.sleep(min(_LOOK_SECONDS, max(0.01, deadline - time.monotonic())))

    def _get(self, namespace: str, name: str) -> dict[str, Any] | None:
        try:
            return dict(self._call("get_namespaced_custom_object", namespace, name=name))
        except NotFound:
            return None

    def _call(self, method: str, namespace: str, **arguments: Any) -> Any:
        from urllib3.exceptions import HTTPError

        if "body" in arguments:
            arguments["field_validation"] = "Strict"
        try:
            return getattr(self._objects, method)(GROUP, VERSION, namespace, PLURAL, _request_timeout=30, **arguments)
        except self._refusal as error:
            raise _typed(error) from error
        except (HTTPError, OSError) as error:
            msg = "the API server does not answer"
            raise Unavailable(msg) from error


def _changed(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return *present* with what is wanted in it; None: it says so already. Raises Conflict when it is not ours."""
    metadata = present["metadata"]
    if metadata.get("labels", {}).get("app.kubernetes.io/managed-by") != MANAGED_BY:
        msg = f"{metadata['name']} is managed by something else: take another name, or remove it there"
        raise Conflict(msg)
    new = dict(metadata)
    for key in ("labels", "annotations"):
        new[key] = {**metadata.get(key, {}), **wanted["metadata"][key]}
    if present.get("spec") == wanted["spec"] and new == metadata:
        return None
    # With the version that was looked at: a change in between is refused, not overwritten.
    return {**present, "metadata": new, "spec": wanted["spec"]}


def _typed(error: Any) -> WetreadError:
    detail = f"the API server says {error.status}: {_message(error)}"
    kinds: Mapping[int, type[WetreadError]] = {
        401: Forbidden, 403: Forbidden, 404: NotFound, 409: Conflict, 400: ConfigurationError, 422: ConfigurationError
    }  # fmt: skip
    return kinds.get(error.status, Unavailable)(detail)


def _message(error: Any) -> str:
    import json

    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
