"""Setting a bucket up, and moving objects between storage classes: rare work, by boto3 (extra ``s3``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from wetread.adapters.objectstore.s3_bucket import BucketAddress
from wetread.core.errors import ConfigurationError, NotFound, Unavailable

_COPY_LIMIT: Final = 5 << 30
"""S3 copies objects up to here with one request."""
_ARCHIVED: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Classes whose objects cannot be read before they are restored (GLACIER_IR can)."""


@dataclass(frozen=True, slots=True)
class Tiers:
    """When images leave the hot class: days to the warm one, and from there to the cold one. All stay readable."""

    warm_days: int = 30
    warm_class: str = "INTELLIGENT_TIERING"
    cold_days: int = 365
    cold_class: str = "GLACIER_IR"


class BucketAdministration:
    """Needs rights that the services do not: run it with an operator's credentials."""

    def __init__(self, address: BucketAddress) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            msg = "the administration of buckets needs the extra s3: pip install 'wetread[s3]'"
            raise ConfigurationError(msg) from error
        self._address = address
        style = {"addressing_style": "path" if address.endpoint else "virtual"}
        # A session of its own: the default one keeps the credentials of its first use.
        self._client: Any = boto3.session.Session().client(
            "s3", endpoint_url=address.endpoint, region_name=address.region, config=Config(s3=style)
        )

    def set_up(self, tiers: Tiers = Tiers()) -> None:
        """Create the bucket when missing; make it private, encrypted, tiered. Idempotent.

        Raises Unavailable, ConfigurationError.
        """
        name = self._address.bucket
        with _translated():
            if not self._exists():
                region = self._client.meta.region_name
                place = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != "us-east-1" else {}
                self._client.create_bucket(Bucket=name, **place)
            self._client.put_public_access_block(
                Bucket=name,
                PublicAccessBlockConfiguration={
                    "BlockPublicAcls": True,
                    "IgnorePublicAcls": True,
                    "BlockPublicPolicy": True,
                    "RestrictPublicBuckets": True,
                },
            )
            rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}, "BucketKeyEnabled": True}
            self._client.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})
            self._client.put_bucket_lifecycle_configuration(
                Bucket=name, LifecycleConfiguration={"Rules": self._rules(tiers)}
            )

    def storage_class(self, key: str) -> str:
        """Return the class of an object. Raises NotFound, Unavailable."""
        with _translated():
            found = self._client.head_object(Bucket=self._address.bucket, Key=self._full(key))
        return str(found.get("StorageClass", "STANDARD"))

    def move(self, keys: Sequence[str], storage_class: str) -> int:
        """Put objects into a storage class (priors into the hot one); return how many were in another.

        An archived object is asked back instead, and can be moved once it is there. Raises NotFound, Unavailable.
        """
        moved = 0
        for key in keys:
            current = self.storage_class(key)
            if current == storage_class:
                continue
            with _translated():
                if current in _ARCHIVED:
                    self._restore(key)
                else:
                    self._copy_onto_itself(key, storage_class)
            moved += 1
        return moved

    def _exists(self) -> bool:
        from botocore.exceptions import ClientError

        try:
            self._client.head_bucket(Bucket=self._address.bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] in {"404", "NoSuchBucket"}:
                return False
            raise
        return True

    def _rules(self, tiers: Tiers) -> list[dict[str, Any]]:
        images = {"Prefix": self._full("t/")}
        return [
            {
                "ID": "wetread-images",
                "Status": "Enabled",
                "Filter": images,
                "Transitions": [
                    {"Days": tiers.warm_days, "StorageClass": tiers.warm_class},
                    {"Days": tiers.cold_days, "StorageClass": tiers.cold_class},
                ],
            },
            {
                "ID": "wetread-unfinished-uploads",
                "Status": "Enabled",
                "Filter": {"Prefix": self._full("")},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
            },
        ]

    def _copy_onto_itself(self, key: str, storage_class: str) -> None:
        name, full = self._address.bucket, self._full(key)
        size = self._client.head_object(Bucket=name, Key=full)["ContentLength"]
        arguments = {"StorageClass": storage_class, "MetadataDirective": "COPY"}
        source = {"Bucket": name, "Key": full}
        if size <= _COPY_LIMIT:
            self._client.copy_object(Bucket=name, Key=full, CopySource=source, **arguments)
        else:
            self._client.copy(source, name, full, ExtraArgs=arguments)

    def _restore(self, key: str) -> None:
        from botocore.exceptions import ClientError

        request = {"Days": 7, "GlacierJobParameters": {"Tier": "Expedited"}}
        try:
            self._client.restore_object(Bucket=self._address.bucket, Key=self._full(key), RestoreRequest=request)
        except ClientError as error:
            if error.response["Error"]["Code"] != "RestoreAlreadyInProgress":
                raise

    def _full(self, key: str) -> str:
        return f"{self._address.prefix}/{key}" if self._address.prefix else key


@contextmanager
def _translated() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] in {"404", "NoSuchKey", "NotFound"}:
            msg = "no such object"
            raise NotFound(msg) from error
        msg = f"the object store refuses: {error.response['Error']['Code']}"
        raise Unavailable(msg) from error
    except BotoCoreError as error:
        msg = "the object store does not answer"
        raise Unavailable(msg) from error
