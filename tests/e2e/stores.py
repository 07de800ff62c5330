"""Where the servers of end-to-end tests keep everything and run networks: said here for all of them, by settings alone.

``WETREAD_E2E_STORES=embedded`` (the default): SQLite, segment files, networks in the worker's processes. ``cluster``:
PostgreSQL, S3 with signatures checked, Triton; a database and a bucket per test. A server takes them by the fixture
``stores``, or ``module_stores`` where it lives as long as its module. A test that is about one of the two says so and
why: ``pytest.mark.stores("embedded", reason="...")``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal, get_args

import pytest
from tests.s3_buckets import fresh_bucket

if TYPE_CHECKING:
    from wetread.testing.servers.moto import S3Server

Profile = Literal["embedded", "cluster"]
VARIABLE: Final = "WETREAD_E2E_STORES"


def profile_of(node: pytest.Item | pytest.Collector) -> Profile:
    """Return the profile that a test or module is about, or that of the run."""
    mark = node.get_closest_marker("stores")
    name = os.environ.get(VARIABLE, "embedded") if mark is None else mark.args[0]
    assert name in get_args(Profile), f"{VARIABLE} is one of {get_args(Profile)}"
    assert mark is None or mark.kwargs["reason"]
    return name


def use_stores(request: pytest.FixtureRequest, environment: pytest.MonkeyPatch) -> None:
    """Set in *environment* what a server needs."""
    if profile_of(request.node) == "embedded":
        return
    environment.setenv("WETREAD_DATABASE_URL", request.getfixturevalue("postgres_server").prepared())
    environment.setenv("WETREAD_INFERENCE_URL", request.getfixturevalue("triton_server").url)
    server: S3Server = request.getfixturevalue("s3_server")
    bucket = fresh_bucket(server, environment, prefix="site")
    environment.setenv("WETREAD_OBJECT_STORE_URL", f"s3://{bucket.address.bucket}/site")
    environment.setenv("WETREAD_OBJECT_STORE_ENDPOINT", server.endpoint)
