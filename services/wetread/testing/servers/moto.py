"""A real S3 server in a process of its own: moto with signatures and policies checked."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wetread.testing.servers.process import free_port, server_process

REGION = "us-east-1"
_POLICY = """{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::wetread-*", "arn:aws:s3:::wetread-*/*"]},
  {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}]}"""


def installed() -> bool:
    """Return whether moto's server can be started here."""
    return all(importlib.util.find_spec(name) is not None for name in ("moto", "flask", "flask_cors", "boto3"))


@dataclass(frozen=True)
class S3Server:
    """A running server. The key may do anything with buckets named ``wetread-*`` and nothing else."""

    endpoint: str
    key: str
    secret: str
    pid: int

    @property
    def environment(self) -> Mapping[str, str]:
        """Credentials as variables of the environment."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }


@contextmanager
def moto(*, signatures: bool = True) -> Iterator[S3Server]:
    """Run a server on a free loopback port; with ``signatures`` wrong ones are refused."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="wetread-s3-") as folder:
        command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
        environment = {**os.environ, "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(1 << 20)}
        with server_process(
            command, log=Path(folder) / "log", ready=lambda: _answers(endpoint), environment=environment
        ) as process:
            key, secret = _user(endpoint)
            if signatures:
                _post(f"{endpoint}/moto-api/reset-auth", b"0")
            yield S3Server(endpoint, key, secret, process.pid)


def _answers(endpoint: str) -> bool:
    with urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=2) as answer:
        return int(answer.status) == 200


def _user(endpoint: str) -> tuple[str, str]:
    import boto3

    access = {"aws_access_key_id": "setup", "aws_secret_access_key": "setup", "region_name": REGION}
    iam = boto3.client("iam", endpoint_url=endpoint, **access)
    iam.create_user(UserName="wetread")
    iam.put_user_policy(UserName="wetread", PolicyName="buckets", PolicyDocument=_POLICY)
    made = iam.create_access_key(UserName="wetread")["AccessKey"]
    return str(made["AccessKeyId"]), str(made["SecretAccessKey"])


def _post(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "text/plain"}, method="POST")
    urllib.request.urlopen(request, timeout=5).close()
