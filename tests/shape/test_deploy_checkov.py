"""checkov finds nothing in what is deployed, but what is accepted for a reason."""

from __future__ import annotations

import json
import shutil
import subprocess
from fnmatch import fnmatchcase
from typing import NamedTuple

import pytest
import yaml

from tests.shape.test_deploy_components import ADDRESS, OPTIONS
from tests.shape.test_deploy_rendered import DEPLOY, OBJECTS, RENDERED, ROOT, parsed, render

CHECKOV = ROOT / ".venv" / "checkov" / "bin" / "checkov"
"""Where `make test` installs it."""
FRAMEWORKS = ("dockerfile", "github_actions", "kubernetes", "terraform")

pytestmark = pytest.mark.skipif(not CHECKOV.exists(), reason="checkov is not installed: `make test` installs it where it can")


class Finding(NamedTuple):
    """Something that a check does not like."""

    check: str
    of: str
    """FILE:RESOURCE."""
    name: str
    """What the check wants."""


class Accepted(NamedTuple):
    """Findings that stay."""

    check: str
    of: str
    because: str

    def covers(self, finding: Finding) -> bool:
        return finding.check == self.check and fnmatchcase(finding.of, self.of)


ACCEPTED = [
    Accepted(check, **each) for check, some in yaml.safe_load((DEPLOY / "checkov" / "accepted.yaml").read_text()).items() for each in some
]


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    """Of one run over everything: starting it takes as long as half of the checks."""
    folder = tmp_path_factory.mktemp("deployed")
    for overlay, text in RENDERED.items():
        (folder / f"{overlay}.yaml").write_text(text)
    added = [one for one in parsed(render("production", *OPTIONS, address=ADDRESS)) if one not in OBJECTS["production"]]
    (folder / "options.yaml").write_text(yaml.dump_all(added, Dumper=yaml.CSafeDumper))
    shutil.copytree(DEPLOY / "terraform", folder / "terraform")
    shutil.copytree(ROOT / ".github" / "workflows", folder / ".github" / "workflows")
    shutil.copy(DEPLOY / "Dockerfile", folder)
    ran = subprocess.run(
        [CHECKOV, "--directory", folder, "--framework", *FRAMEWORKS, "--skip-download", "--quiet", "--compact", "--output", "json"],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    reports = json.loads(ran.stdout)
    assert {report["check_type"] for report in reports} == {*FRAMEWORKS}, ran.stderr
    assert [report["check_type"] for report in reports if report["summary"]["parsing_errors"] or not report["summary"]["passed"]] == []
    return [
        Finding(each["check_id"], f"{each['file_path'].removeprefix('/')}:{each['resource']}", each["check_name"])
        for report in reports
        for each in report["results"]["failed_checks"]
    ]


def test_it_finds_nothing_but_what_is_accepted(findings: list[Finding]) -> None:
    assert [finding for finding in findings if not any(each.covers(finding) for each in ACCEPTED)] == []


def test_everything_that_is_accepted_is_there(findings: list[Finding]) -> None:
    assert [each for each in ACCEPTED if not any(map(each.covers, findings))] == []


def test_every_reason_is_one() -> None:
    assert [each for each in ACCEPTED if len(each.because.split()) < 5] == []
