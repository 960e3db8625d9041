"""The workflows are valid, run only what was pinned, and may do only what they need."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.shape.repository import ROOT

TOOLS = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*$")
WRITES = {
    "push": {"id-token"},
    "scan": {"id-token"},
    "sign": {"id-token"},
    "publish": {"contents"},
    "deploy": {"id-token"},
}
"""What a job may change; the others may only read the repository."""

every_workflow = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)


def _content(workflow: Path) -> dict[str, Any]:
    return yaml.load(workflow.read_text(), Loader=yaml.CSafeLoader)


def _steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in _content(workflow)["jobs"].values() for step in job["steps"]]


def test_there_are_workflows() -> None:
    assert {path.stem for path in WORKFLOWS} == {"check", "scan", "release", "deploy"}


@pytest.mark.parametrize(
    "command",
    [
        ("actionlint", "-shellcheck=", "-pyflakes="),
        ("zizmor", "--offline", "--quiet", "--no-progress", "--persona=pedantic", "--config=tests/shape/zizmor.yaml"),
    ],
    ids=lambda command: command[0],
)
def test_a_linter_of_workflows_finds_nothing(command: tuple[str, ...]) -> None:
    ran = subprocess.run([TOOLS / command[0], *command[1:], *WORKFLOWS], cwd=ROOT, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@every_workflow
def test_actions_are_pinned_to_commits_whose_version_is_said(workflow: Path) -> None:
    used = [line.strip().removeprefix("- ") for line in workflow.read_text().splitlines() if "uses:" in line]
    assert used
    assert [line for line in used if not PINNED.fullmatch(line)] == []


def test_an_action_has_one_version() -> None:
    used = {line.split("uses: ")[1] for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line}
    assert len(used) == len({each.split("@")[0] for each in used})


@every_workflow
def test_a_job_may_do_what_it_needs_and_ends(workflow: Path) -> None:
    content = _content(workflow)
    assert content["permissions"] == {}
    for name, job in content["jobs"].items():
        assert {what for what, grant in job["permissions"].items() if grant == "write"} == WRITES.get(name, set())
        assert {"contents", "id-token"} >= job["permissions"].keys()
        assert job["timeout-minutes"] <= 90


def test_what_pushes_signs_or_publishes_a_release_runs_nothing_of_what_it_was_built_from() -> None:
    jobs = _content(ROOT / ".github/workflows/release.yaml")["jobs"]
    used = {name: " ".join(step.get("uses", step.get("run", "")) for step in job["steps"]) for name, job in jobs.items()}
    assert {name for name, text in used.items() if "actions/checkout" in text or "build-push-action" in text} == {"images", "files"}
    assert {name for name, text in used.items() if "cosign sign" in text} == {"sign"}
    assert jobs.keys() - WRITES.keys() == {"images", "files"}


def test_an_image_is_scanned_and_signed_by_the_digest_that_was_built() -> None:
    jobs = _content(ROOT / ".github/workflows/release.yaml")["jobs"]
    digests = [f"${{{{ needs.images.outputs.{image} }}}}" for image in ("mesh", "gateway")]
    assert [each.split("@")[1] for each in jobs["scan"]["strategy"]["matrix"]["image"]] == digests
    for name in ("push", "sign"):
        (environment,) = (step["env"] for step in jobs[name]["steps"] if "env" in step)
        assert [environment["MESH"], environment["GATEWAY"]] == digests
    assert {"images", "files", "scan"} == {*jobs["sign"]["needs"]}
    assert jobs["publish"]["needs"] == "sign"


@every_workflow
def test_commands_have_nothing_of_others_in_their_text(workflow: Path) -> None:
    assert [step["run"] for step in _steps(workflow) if "${{" in step.get("run", "")] == []


def test_targets_that_workflows_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    ran = [step["run"] for path in WORKFLOWS for step in _steps(path) if "run" in step]
    made = {target for text in ran for names in re.findall(r"^make ([a-z -]+)$", text, re.MULTILINE) for target in names.split()}
    assert {"check", "plugin", "client"} <= made
    assert [target for target in made if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
    assert (ROOT / ".ci" / "run").exists()
    assert ".ci/run" in ran


def test_a_release_has_the_notes_of_its_version(tmp_path: Path) -> None:
    (program,) = [
        match
        for step in _steps(ROOT / ".github/workflows/release.yaml")
        for match in re.findall(r"^awk .*", step.get("run", ""), re.MULTILINE)
    ]
    (tmp_path / "CHANGELOG.md").write_text("# Changes\nIntroduction.\n\n## 1.2.0\nNew.\n\n## 1.1.0\nOld.\n")
    subprocess.run(["bash", "-euc", program], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": "v1.2.0"}, check=True)
    assert (tmp_path / "notes.md").read_text().strip() == "New."
