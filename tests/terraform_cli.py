"""Terraform in a copy of the reference, with providers from a mirror on disk: no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, terraform_plugins

REFERENCE = ROOT / "terraform"
_CONFIGURATION = """provider_installation {{
  filesystem_mirror {{
    path    = "{mirror}"
    include = ["hashicorp/*"]
  }}
}}
disable_checkpoint = true
"""


class Terraform:
    """One working folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "reference"
        shutil.copytree(REFERENCE, self.folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        configuration = folder / "terraformrc"
        configuration.write_text(_CONFIGURATION.format(mirror=terraform_plugins()))
        aws = {name for name in os.environ if name.startswith("AWS_")}
        self.environment = {name: value for name, value in os.environ.items() if name not in aws}
        # The environment of a machine may name a file that is not there.
        self.environment |= {"TF_CLI_CONFIG_FILE": str(configuration), "TF_IN_AUTOMATION": "1"}
        self.run("init", "-input=false")

    def run(self, *arguments: str, timeout: float = 600) -> str:
        """Run a command and return what it prints. Fails the test with its errors."""
        done = subprocess.run(
            ["terraform", *arguments, *([] if arguments[0] == "fmt" else ["-no-color"])],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def messages(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a command with ``-json`` and return its lines."""
        return [json.loads(line) for line in self.run(*arguments, "-json").splitlines() if line.startswith("{")]
