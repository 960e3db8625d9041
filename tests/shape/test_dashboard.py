"""Holds the dashboard to its limits: its size, its lock, and a name for everything that the mesh may answer."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from pmp.ingestion.v1.ingestion_pb2 import Account

from gateway.public import public_files
from services.analytics.figures import FIGURES
from services.analytics.reports import REPORTS

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "dashboard"
BUILT = DASHBOARD / "dist"
MOST_SCRIPT = 80_000
"""Bytes of all scripts, compressed."""
LANGUAGES = re.split(r"^const de\b", (DASHBOARD / "src" / "lib" / "texts.ts").read_text(), flags=re.MULTILINE)


def test_all_scripts_together_are_small() -> None:
    sizes = [len(gzip.compress(path.read_bytes())) for path in BUILT.rglob("*.js")]
    assert sizes
    assert sum(sizes) <= MOST_SCRIPT


def test_every_built_file_is_served_and_no_other() -> None:
    served = {each.file for each in public_files() if each.file.is_relative_to(BUILT)}
    assert served == {path for path in BUILT.rglob("*") if path.is_file()}


def test_a_file_that_is_kept_for_ever_has_its_content_in_its_address() -> None:
    page = (BUILT / "index.html").read_text()
    for each in public_files():
        if "immutable" in each.cache:
            assert re.search(rf'"\.{re.escape(each.path)}\?v=[0-9a-f]{{12}}"', page), each.path


def test_the_built_files_name_no_other_host() -> None:
    named = {host for path in BUILT.rglob("*.*") for host in re.findall(r"https?://([\w.-]+)", path.read_text())}
    # A namespace of XML, and the pages that explain Svelte's errors.
    assert named <= {"www.w3.org", "svelte.dev"}


def test_the_lock_has_a_hash_of_every_package_and_names_no_registry() -> None:
    packages = json.loads((DASHBOARD / "package-lock.json").read_text())["packages"]
    others = {name: package for name, package in packages.items() if name}
    assert len(others) > 50
    assert [name for name, package in others.items() if "integrity" not in package or "resolved" in package] == []


@pytest.mark.parametrize("language", LANGUAGES, ids=["en", "de"])
def test_everything_the_mesh_may_answer_has_a_name(language: str) -> None:
    columns = {column.key for report in REPORTS.values() for group in report.groups for column in report.of(group)}
    wanted = {each.key for each in FIGURES} | columns | set(Account.DESCRIPTOR.fields_by_name)
    assert {key for key in wanted if not re.search(rf"^    {key}: ", language, re.MULTILINE)} == set()
