"""The files of the repository, for tests of the repository itself."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def tracked_files() -> tuple[str, ...]:
    """Paths of all files that are committed or about to be, sorted."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return tuple(sorted(path for path in set(listed.stdout.split("\0")) if path and (ROOT / path).exists()))
