"""The gateway keeps what `docs/openapi.json` says: schemathesis calls a whole mesh, and holds each answer to the document.

`PMP_CONTRACT_EXAMPLES=200` makes that many calls of each operation, other ones in each run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy, one_of
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as of_openapi

from cli.layout import Processes
from tests.e2e.mesh import Mesh, running

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = int(os.environ.get("PMP_CONTRACT_EXAMPLES", "0"))
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]
CHECKED: list[Any] = [
    checks.not_a_server_error,
    of_openapi.status_code_conformance,
    of_openapi.content_type_conformance,
    of_openapi.response_schema_conformance,
]


def strict_document() -> dict[str, Any]:
    """The document with answers that have no other fields than it names."""
    document: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())
    for name, schema in document["components"]["schemas"].items():
        if "properties" in schema and not name.endswith(("Input", "Request")):
            schema["additionalProperties"] = False
    return document


DOCUMENT: Any = schemathesis.openapi.from_dict(strict_document())
OPERATIONS: dict[str, Any] = {each.ok().label: each.ok() for each in DOCUMENT.get_all_operations()}
ERASURES = [label for label in OPERATIONS if "DELETE" in label or "erase" in label]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh"), processes=Processes.SHARED) as mesh:
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


def calls(label: str, known: dict[str, str]) -> SearchStrategy[Any]:
    """Calls of an operation: valid ones, those of what exists, and invalid ones."""
    operation = OPERATIONS[label]
    ids = [{"id": known[start]} for start in known if f"{start}/{{id}}" in label and label not in ERASURES]
    kinds = [operation.as_strategy(GenerationMode.POSITIVE), *(operation.as_strategy(path_parameters=each) for each in ids)]
    return one_of(*kinds, operation.as_strategy(GenerationMode.NEGATIVE))


def fits(case: Any) -> bool:
    """Whether its address is short enough: a longer one is refused, and the connection closed, while it is being sent."""
    return len(json.dumps([case.path_parameters, case.query], default=str)) < 2000


@pytest.mark.parametrize("label", sorted(OPERATIONS, key=ERASURES.__contains__))
def test_no_answer_differs_from_the_document(mesh: Mesh, known: dict[str, str], label: str) -> None:
    headers = mesh.credentials("admin")
    with requests.Session() as session:

        @settings(max_examples=EXAMPLES or 12, derandomize=not EXAMPLES, database=None, deadline=None, suppress_health_check=SLOW)
        @given(calls(label, known).filter(fits))
        def call(case: Any) -> None:
            case.call_and_validate(base_url=mesh.url, session=session, headers=headers, checks=CHECKED)

        call()
