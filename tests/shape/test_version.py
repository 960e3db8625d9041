"""There is one version, in whatever is released, and one command sets it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tests.shape.repository import ROOT, tracked_files

STATED = re.compile(r"""\bversion\b["']?\s*[:=]\s*["']?(\d+\.\d+\.\d+)""", re.IGNORECASE)


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("version", ROOT / "deploy" / "version.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


version = _module()
CURRENT: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The files with a version, and the changelogs, of which 9.8.7 is the newest release."""
    for path in {*version.PLACES, *version.CHANGES}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    for path, newest in version.changes(ROOT).items():
        described = tmp_path / path
        (heading,) = re.findall(rf"^\S+ {re.escape(newest)}(?: =)?$", described.read_text(), flags=re.MULTILINE)
        described.write_text(described.read_text().replace(heading, f"{heading.replace(newest, '9.8.7')}\nNew.\n\n{heading}"))
    return tmp_path


def test_whatever_is_released_has_the_same_version() -> None:
    assert version.versions(ROOT) == {path: {CURRENT} for path in version.PLACES}
    assert version.changes(ROOT) == dict.fromkeys(version.CHANGES, CURRENT)


def test_one_command_sets_it_everywhere(copied: Path) -> None:
    before = {path: (copied / path).read_text().splitlines() for path in version.PLACES}
    version.set_version(copied, "9.8.7")
    assert version.versions(copied) == {path: {"9.8.7"} for path in version.PLACES}
    for path, lines in before.items():
        changed = [(old, new) for old, new in zip(lines, (copied / path).read_text().splitlines(), strict=True) if old != new]
        assert changed
        assert [old.replace(CURRENT, "9.8.7") for old, _ in changed] == [new for _, new in changed]


@pytest.mark.parametrize(
    ("wanted", "complaint"), [("9.8", "'9.8' is no version"), ("9.8.8", "the newest release in CHANGELOG.md and .*readme.txt is not 9.8.8")]
)
def test_what_has_no_section_in_the_changelog_is_refused(copied: Path, wanted: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        version.set_version(copied, wanted)
    assert version.versions(copied) == version.versions(ROOT)


def test_no_other_file_states_it() -> None:
    known = {*version.PLACES, *version.CHANGES}
    others = [
        path for path in tracked_files() if path not in known and Path(path).suffix in {".toml", ".json", ".yaml", ".php", ".css", ".txt"}
    ]
    assert [path for path in others if CURRENT in STATED.findall((ROOT / path).read_text(errors="replace"))] == []
