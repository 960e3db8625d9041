"""The Python client as other systems get it: its wheel in an empty environment, against a whole mesh."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh, running

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
PROGRAM = Path(__file__).with_name("client_program.py")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the client alone, and with what it depends on in the locked versions."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run(["make", "--no-print-directory", "client", f"DIST={folder}"], cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("pmp_mesh_client-*.whl")
    locked = folder / "locked.txt"
    locked.write_text("\n".join(re.findall(r"^[\w.-]+==[^ \\]+", (ROOT / "requirements.lock").read_text(), re.MULTILINE)))
    _uv("venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    _uv("pip", "install", "--quiet", "--python", str(python), "--constraints", str(locked), f"{wheel}[types]")
    return python


def _uv(*arguments: str) -> None:
    ran = subprocess.run([TOOLS / "uv", *arguments], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def _run(mesh: Mesh, python: Path, program: Path) -> str:
    """What a program prints that has the address and the secrets of a mesh, and nothing else of it."""
    secrets = json.loads((mesh.data / "secrets.json").read_text())
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PMP_URL": mesh.url,
        "PMP_API_KEY": secrets["api_keys"][0],
        "PMP_JWT_SECRET": secrets["jwt_secrets"][0],
    }
    ran = subprocess.run([python, program], env=environment, cwd=python.parent, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_client_alone_tracks_reads_and_streams(mesh: Mesh, python: Path) -> None:
    before = mesh.drained()
    answers = json.loads(_run(mesh, python, PROGRAM))
    assert answers == {
        "found": [],
        "blocking": {"event": "blocking", "received": before["received"] + 1, "complete": True},
        "concurrent": {"event": "concurrent", "received": before["received"] + 2, "complete": True},
    }
    assert mesh.drained()["stored"] == before["stored"] + 2


def test_the_documented_example_works(mesh: Mesh, python: Path) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE | re.DOTALL)
    program = python.parent / "example.py"
    program.write_text(example)
    assert _run(mesh, python, program) == "invoice-7\n"


def test_the_client_brings_its_types(python: Path) -> None:
    [installed] = python.parents[1].glob("lib/python*/site-packages")
    packages = {*(stub.parents[1] for stub in installed.glob("pmp/*/*/*.pyi")), installed / "pmp_mesh_client"}
    assert len(packages) > 5
    assert [package.name for package in packages if not (package / "py.typed").exists()] == []
    wrong = python.parent / "wrong.py"
    wrong.write_text(PROGRAM.read_text().replace('event_type="invoice_paid"', "event_type=7").replace('"4711"))', '"4711"), 3, 4, 5)'))
    checked = {
        path.name: subprocess.run(
            [TOOLS / "pyright", "--pythonpath", python, "--project", _strict(python), path], capture_output=True, text=True, check=False
        )
        for path in (PROGRAM, wrong)
    }
    assert checked[PROGRAM.name].returncode == 0, checked[PROGRAM.name].stdout
    assert "event_type" in checked[wrong.name].stdout, "types that accept everything are none"


def _strict(python: Path) -> Path:
    """A configuration of pyright for the environment."""
    config = python.parent / "pyrightconfig.json"
    config.write_text(json.dumps({"typeCheckingMode": "strict", "reportUnknownMemberType": False, "reportMissingTypeStubs": False}))
    return config
