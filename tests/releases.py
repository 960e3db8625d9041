"""Other commits of this repository, as code that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shape.repository import ROOT

_MIGRATIONS = ("kit/migrations/[0-9]*.py", "kit/people/keys/migrations/[0-9]*.py", "services/*/migrations/[0-9]*.py")


def check_out(commit: str, folder: Path, *parts: str) -> None:
    """Writes parts of a commit, `protos` among them, to a folder, with the stubs that its own generator makes in `gen`."""
    archive = subprocess.run(["git", "archive", commit, *parts], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "--extract", "--directory", str(folder)], input=archive, check=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run([sys.executable, folder / "protos" / "generate.py"], env={**os.environ, "PATH": path}, check=True, capture_output=True)


def release_before() -> str:
    """The commit of the release before this one: the newest tag `v*` of an earlier commit, or what PMP_ROLLING_FROM names.

    Before the first release it is the commit before the newest migration, so that the tables of the two differ. Skips the test if the
    history that is here does not reach that far.
    """
    newest_migration = git("log", "-1", "--first-parent", "--diff-filter=A", "--format=%H", "--", *_MIGRATIONS)
    found = os.environ.get("PMP_ROLLING_FROM") or git("describe", "--tags", "--abbrev=0", "--match=v[0-9]*", "HEAD^")
    found = found or git("rev-parse", "--verify", "--quiet", f"{newest_migration or 'HEAD'}^")
    if not found:
        pytest.skip("there is no release before this one in a shallow clone: run `git fetch --unshallow --tags`")
    return found


def git(*arguments: str) -> str:
    """What git prints; nothing if it fails."""
    ran = subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True)
    return ran.stdout.strip() if ran.returncode == 0 else ""
