"""A strict API server for InferenceService objects over HTTP: schema of the CRD, versions, ownership of names, a token.

Not Kubernetes: what it refuses, the real one refuses too, as far as the schema and the rules of the API conventions go.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from jsonschema import Draft202012Validator

TOKEN = "a-token"
_PREFIX = ["apis", "serving.kserve.io", "v1beta1", "namespaces"]


@dataclass
class KubernetesApi:
    """The objects by name, and what was asked."""

    schema: Path
    namespace: str = "models"
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    races: int = 0
    """So many updates lose to somebody else first."""
    url: str = ""

    def kubeconfig(self, folder: Path, *, token: str = TOKEN) -> Path:
        """Write a configuration file and return it."""
        path = folder / f"kubeconfig-{token}"
        named = {"name": "fake"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [named | {"cluster": {"server": self.url}}],
            "users": [named | {"user": {"token": token}}],
            "contexts": [named | {"context": {"cluster": "fake", "user": "fake"}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def answer(self, method: str, target: str, token: str | None, body: Any) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(target)
        words = parts.path.strip("/").split("/")
        self.asked.append(f"{method} {parts.path}")
        if token != f"Bearer {TOKEN}":
            return self._refused(401, "Unauthorized")
        if words[:4] != _PREFIX or len(words) not in {6, 7} or words[5] != "inferenceservices":
            return self._refused(404, "the server could not find the requested resource")
        if words[4] != self.namespace:
            return self._refused(404, f'namespaces "{words[4]}" not found')
        name = words[6] if len(words) == 7 else None
        if method == "GET" and name is not None:
            return (200, self.objects[name]) if name in self.objects else self._refused(404, f'"{name}" not found')
        if method not in {"POST", "PUT"} or (method == "PUT") != (name is not None):
            return self._refused(405, "method not allowed")
        if parse_qs(parts.query).get("fieldValidation") != ["Strict"]:
            return self._refused(400, "this server wants fieldValidation=Strict")
        return self._write(method, name, body)

    def _write(self, method: str, name: str | None, body: Any) -> tuple[int, dict[str, Any]]:
        errors = [e.message for e in Draft202012Validator(json.loads(self.schema.read_text())).iter_errors(body)]
        if errors:
            return self._refused(422, f"InferenceService is invalid: {errors[0]}")
        given = body["metadata"]
        if given.get("namespace") != self.namespace or (name is not None and given["name"] != name):
            return self._refused(400, "the name or namespace of the object does not match the one of the request")
        present = self.objects.get(given["name"])
        if method == "POST":
            if present is not None or "resourceVersion" in given:
                return self._refused(409, f'"{given["name"]}" already exists')
            self.objects[given["name"]] = body | {"metadata": given | {"resourceVersion": "1", "uid": "u"}}
            return 201, self.objects[given["name"]]
        if present is None:
            return self._refused(404, f'"{name}" not found')
        if self.races:
            self.races -= 1
            self._raise_version(present)
        if given.get("resourceVersion") != present["metadata"]["resourceVersion"]:
            return self._refused(409, "the object has been modified; please apply your changes to the latest version")
        self._raise_version(body)
        self.objects[given["name"]] = body
        return 200, body

    @staticmethod
    def _raise_version(each: dict[str, Any]) -> None:
        each["metadata"]["resourceVersion"] = str(int(each["metadata"]["resourceVersion"]) + 1)

    @staticmethod
    def _refused(code: int, message: str) -> tuple[int, dict[str, Any]]:
        return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


@contextmanager
def kubernetes_api(schema: Path) -> Iterator[KubernetesApi]:
    """Serve on a free loopback port."""
    api = KubernetesApi(schema)

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            code, answer = api.answer(self.command, self.path, self.headers.get("Authorization"), body)
            content = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
