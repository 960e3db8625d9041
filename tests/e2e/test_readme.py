"""The examples of the README work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.analytics.figures import FIGURES
from tests.e2e.mesh import Mesh, running

ROOT = Path(__file__).parent.parent.parent
PAYLOADS = ROOT / "tests" / "payloads"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh


def _run(mesh: Mesh, script: str) -> str:
    script = script.replace(".venv/bin/pmp", str(Path(sys.executable).with_name("pmp")))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], env=mesh.environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_event_is_stored_and_in_the_books(mesh: Mesh) -> None:
    [script] = [block for block in blocks("sh") if "events/track" in block]
    before = mesh.drained()
    assert '"event_id":"hello-1"' in _run(mesh, script)
    assert mesh.drained()["stored"] == before["stored"] + 1
    _run(mesh, script)
    after = mesh.drained()
    assert after["stored"] == before["stored"] + 1
    assert after["duplicate"] + after["dead_lettered"] == before["duplicate"] + before["dead_lettered"] + 1
    assert after["balanced"]


def test_the_figures_are_read_with_a_token_for_reports(mesh: Mesh) -> None:
    [script] = [block for block in blocks("sh") if "analytics/dashboard" in block]
    figures = json.loads(_run(mesh, script))["figures"]
    assert [figure["key"] for figure in figures] == [each.key for each in FIGURES]
    assert all(figure["definition"] for figure in figures)


def test_the_python_snippet_tracks_an_event_over_grpc(mesh: Mesh) -> None:
    [snippet] = blocks("python")
    before = mesh.drained()
    credentials = 'eval "$(.venv/bin/pmp credentials --scope site --user 1)"'
    assert _run(mesh, f"{credentials}\n{sys.executable} - <<'SNIPPET'\n{snippet}SNIPPET\n").strip() == "True hello-2"
    assert mesh.drained()["stored"] == before["stored"] + 1


@pytest.mark.parametrize(("call", "path"), [("TrackEvent", "track"), ("TrackEvents", "batch")])
def test_the_golden_payloads_pass_the_gateway(mesh: Mesh, call: str, path: str) -> None:
    payload = json.loads((PAYLOADS / f"ingestion.{call}.json").read_text())
    answer = mesh.client.post(f"{mesh.url}/api/v1/events/{path}", headers=mesh.credentials("site"), json=payload)
    assert answer.status_code == 200, answer.text
    assert answer.json()["success"] is True
