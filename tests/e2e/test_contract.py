"""The gateway keeps what `docs/openapi.json` says: generated calls of a whole mesh get no answer that it does not describe.

`PMP_CONTRACT_EXAMPLES=200` makes that many calls of each operation, other ones in each run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh import Mesh, running

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())
OPERATIONS = [f"{verb.upper()} {path}" for path, verbs in DOCUMENT["paths"].items() for verb in verbs]
EXAMPLES = int(os.environ.get("PMP_CONTRACT_EXAMPLES", "0"))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def known(mesh: Mesh) -> dict[str, str]:
    """Ids that exist, by the beginning of the paths in which they stand."""

    def sent(path: str, payload: str) -> Any:
        body = json.loads((ROOT / "tests" / "payloads" / f"{payload}.json").read_text())
        answer = mesh.client.post(mesh.url + path, headers=mesh.credentials("admin"), json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    user = sent("/api/v1/users/register", "identity.RegisterUser")["user_id"]
    sent("/api/v1/journey/touchpoint", "journeys.TrackTouchpoint")
    order = sent("/api/v1/purchases/track", "purchases.TrackPurchase")["purchase_id"]
    export = mesh.client.post(f"{mesh.url}/api/v1/users/{user}/export", headers=mesh.credentials("admin")).json()["request"]
    return {"/api/v1/users": user, "/api/v1/purchases": order, "/api/v1/gdpr/requests": export["id"]}


@pytest.mark.timeout(180 + 60 * EXAMPLES)
def test_no_answer_differs_from_the_document(mesh: Mesh, known: dict[str, str]) -> None:
    task = {"url": mesh.url, "headers": mesh.credentials("admin"), "known": known, "examples": EXAMPLES}
    command = [sys.executable, "-m", "tests.e2e.contract_calls"]
    ran = subprocess.run(command, cwd=ROOT, input=json.dumps(task), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    failures: dict[str, str] = json.loads(ran.stdout)
    assert sorted(failures) == sorted(OPERATIONS), "each was called"
    failed = "\n\n".join(f"{label}\n{text}" for label, text in failures.items() if text)
    assert not failed, failed
