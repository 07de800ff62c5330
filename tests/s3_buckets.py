"""A bucket of its own for a test, and the credentials of the test's S3 server in the environment."""

from __future__ import annotations

import itertools

import pytest

from wetread.adapters.objectstore.s3_administration import BucketAdministration
from wetread.adapters.objectstore.s3_bucket import Bucket, BucketAddress
from wetread.testing.servers.moto import S3Server

_numbers = itertools.count()


def fresh_bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch, *, prefix: str = "") -> Bucket:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://wetread-{next(_numbers)}/{prefix}"
    address = BucketAddress.of_url(url, endpoint=server.endpoint)
    BucketAdministration(address).set_up()
    return Bucket(address)
