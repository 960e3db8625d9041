"""Files that are rendered and committed, so that a change of the contracts shows as a change of what follows from them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def keep_fresh(module: str, path: Path, text: str, arguments: Sequence[str] | None = None) -> int:
    """Rewrites a committed file, or with `--check` verifies that it is up to date.

    Args:
        module: the module that renders it when run.
        path: the file.
        text: what it should contain.
        arguments: of the command line; by default those of the process.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"Rewrites {path.name}.")
    parser.add_argument("--check", action="store_true", help=f"change nothing; exit 1 when {path.name} is stale")
    if parser.parse_args(arguments).check:
        fresh = path.exists() and path.read_text() == text
        shown = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path
        sys.stdout.write(f"{shown} is {'fresh' if fresh else f'stale: run `python -m {module}`'}\n")
        return 0 if fresh else 1
    path.write_text(text)
    return 0
