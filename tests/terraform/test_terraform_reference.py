"""The AWS reference: well-formed, valid, right by its own tests on mocks; its outputs are values of the chart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.charts.rendering import ci_values, core, kind, objects
from tests.charts.test_charts_image import checkov
from tests.terraform_cli import REFERENCE, Terraform

WRITTEN_SKIPS = {
    "CKV_AWS_109": "the policy of a key names the account as its owner, or nobody could manage it",
    "CKV_AWS_111": "as above",
    "CKV_AWS_356": "in the policy of a key, * is that key",
    "CKV_AWS_394": "the variable `zones` says how many are used",
    "CKV2_AWS_62": "wetread has its own events",
    "CKV_AWS_144": "replication to another region is the operator's decision: it copies patient data",
}


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return Terraform(tmp_path_factory.mktemp("terraform"))


@pytest.mark.server("terraform")
def test_the_reference_is_formatted_and_valid(terraform: Terraform) -> None:
    terraform.run("fmt", "-check", "-recursive", "-diff")
    assert "The configuration is valid" in terraform.run("validate")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.server("terraform", "helm")
def test_its_own_tests_pass_and_its_outputs_render_the_chart(terraform: Terraform) -> None:
    messages = terraform.messages("test", "-verbose")
    (summary,) = [each["test_summary"] for each in messages if each["type"] == "test_summary"]
    assert (summary["status"], summary["failed"], summary["errored"], summary["skipped"]) == ("pass", 0, 0, 0)
    names = re.findall(r'^run "(\w+)"', (REFERENCE / "tests" / "reference.tftest.hcl").read_text(), re.MULTILINE)
    assert summary["passed"] == len(names) >= 6
    states = [each["test_state"] for each in messages if each["type"] == "test_state"]
    values = states[0]["outputs"]["helm_values"]["value"]
    renders(values)


def renders(values: dict[str, Any]) -> None:
    """Check that the chart makes of the outputs what the example values for AWS say."""
    import kubernetes_validate

    without_empty = {key: value for key, value in values.items() if value}
    found = objects(without_empty)
    for each in found:
        if core(each):
            kubernetes_validate.validate(each, "1.33", strict=True)
    (account,) = kind(found, "ServiceAccount").values()
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::")
    config = kind(found, "ConfigMap")["demo-wetread-config"]["data"]
    assert re.fullmatch(r"s3://wetread-\d+/archive", config["WETREAD_OBJECT_STORE_URL"])
    worker = kind(found, "Deployment")["demo-wetread-worker"]["spec"]["template"]["spec"]
    assert worker["nodeSelector"] == {"wetread.io/pool": "cpu"}
    example = ci_values("aws")
    assert set(values) <= set(example)
    assert values["services"] == example["services"]


def test_nothing_but_plain_aws_resources() -> None:
    texts = [path.read_text("utf-8") for path in sorted(REFERENCE.glob("*.tf"))]
    text = "\n".join(texts)
    assert set(re.findall(r'^\s*source\s*=\s*"([^"]+)"', text, re.MULTILINE)) == {"hashicorp/aws"}
    assert not re.search(r'^module "', text, re.MULTILINE)
    assert all(name.startswith("aws_") for name in re.findall(r'^(?:resource|data) "(\w+)"', text, re.MULTILINE))
    assert not re.search(r"AKIA[0-9A-Z]{16}|password\s*=\s*\"", text)
    variables = re.findall(r'^variable "(\w+)" {\n  description = "(.+)"', text, re.MULTILINE)
    assert len(variables) == len(re.findall(r'^variable "', text, re.MULTILINE)), "a variable without description"


@pytest.mark.slow
@pytest.mark.server("checkov")
def test_checkov_accepts_the_reference() -> None:
    failed = {each["check_id"] for each in checkov("terraform", "-d", REFERENCE)}
    assert failed == WRITTEN_SKIPS.keys(), "unexplained, or explained for nothing"


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.server("terraform", "moto", "helm")
def test_apply_and_destroy_on_a_server_that_speaks_awss_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No EKS add-ons: the server has none. Nothing is said here about AWS's own checks."""
    import boto3

    from wetread.testing.servers.moto import moto

    here = Terraform(tmp_path)
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    with moto(signatures=False) as server:
        chosen = [f"-var=endpoint={server.endpoint}", "-var=enable_addons=false", "-var=deletion_protection=false"]
        here.run("apply", "-auto-approve", "-input=false", *chosen, timeout=1200)
        renders(json.loads(here.run("output", "-json"))["helm_values"]["value"])
        access = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}
        s3 = boto3.client("s3", endpoint_url=server.endpoint, **access)
        bucket = next(name["Name"] for name in s3.list_buckets()["Buckets"] if not name["Name"].endswith("-logs"))
        assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["RestrictPublicBuckets"]
        rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
        rds = boto3.client("rds", endpoint_url=server.endpoint, **access)
        (database,) = rds.describe_db_instances()["DBInstances"]
        assert database["StorageEncrypted"]
        assert database["MultiAZ"]
        here.run("destroy", "-auto-approve", "-input=false", *chosen, timeout=1200)
        assert s3.list_buckets()["Buckets"] == []
