"""Calls each operation of `docs/openapi.json` with data that schemathesis generates, and holds the answers to the document.

`python -m tests.e2e.contract_calls`: a process of its own, since schemathesis changes hypothesis for the whole process. Its
standard input is JSON: `url`, `headers`, `known` (ids that exist, by the beginning of the paths in which they stand) and
`examples` (calls of each operation; 0 for a few that are the same in each run). Prints the failures of each operation as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy, one_of
from schemathesis import GenerationMode, checks
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks as of_openapi

ROOT = Path(__file__).resolve().parents[2]
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]
CHECKED: list[Any] = [
    checks.not_a_server_error,
    of_openapi.status_code_conformance,
    of_openapi.content_type_conformance,
    of_openapi.response_schema_conformance,
]
FEW = 12


def strict_document() -> dict[str, Any]:
    """The document with answers that have no other fields than it names."""
    document: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())
    for name, schema in document["components"]["schemas"].items():
        if "properties" in schema and not name.endswith(("Input", "Request")):
            schema["additionalProperties"] = False
    return document


def erases(label: str) -> bool:
    """Whether an operation erases a person: it comes last, and never has an id that exists."""
    return "DELETE" in label or "erase" in label


def calls(operation: Any, known: Mapping[str, str]) -> SearchStrategy[Any]:
    """Calls of an operation: valid ones, those of what exists, and invalid ones."""
    ids = [{"id": known[start]} for start in known if f"{start}/{{id}}" in operation.label and not erases(operation.label)]
    kinds = [operation.as_strategy(GenerationMode.POSITIVE), *(operation.as_strategy(path_parameters=each) for each in ids)]
    return one_of(*kinds, operation.as_strategy(GenerationMode.NEGATIVE)).filter(fits)


def fits(case: Any) -> bool:
    """Whether its address is short enough: a longer one is refused, and the connection closed, while it is being sent."""
    return len(json.dumps([case.path_parameters, case.query], default=str)) < 2000


def failure(operation: Any, task: Mapping[str, Any], session: requests.Session) -> str:
    """Calls an operation, and returns how an answer differs from the document; empty if none does."""

    @settings(
        max_examples=task["examples"] or FEW, derandomize=not task["examples"], database=None, deadline=None, suppress_health_check=SLOW
    )
    @given(calls(operation, task["known"]))
    def call(case: Any) -> None:
        case.call_and_validate(base_url=task["url"], session=session, headers=task["headers"], checks=CHECKED)

    try:
        call()
    except (Exception, FailureGroup) as error:  # noqa: BLE001  (every failure is reported)
        return "\n".join([str(error), *(str(each) for each in getattr(error, "exceptions", ()))])
    return ""


def main() -> None:
    """Calls all operations."""
    task = json.load(sys.stdin)
    document: Any = schemathesis.openapi.from_dict(strict_document())
    operations = sorted((each.ok() for each in document.get_all_operations()), key=lambda each: erases(each.label))
    with requests.Session() as session:
        failures = {each.label: failure(each, task, session) for each in operations}
    json.dump(failures, sys.stdout)


if __name__ == "__main__":
    main()
