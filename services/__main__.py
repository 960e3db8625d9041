"""Runs roles of services in one process: `python -m services purchases identity ingestion-worker`.

A role is named like its service, or `SERVICE-worker`; `ingestion worker`, the arguments of a pod, is the worker as well. `all` stands
for every role.
"""

from __future__ import annotations

import gc
import sys

from services import import_roles, role_modules

_USAGE = "usage: python -m services ROLE..."
_WORKER = "worker"
_ALL = "all"


def main(words: list[str]) -> None:
    """Runs the roles that the words name; exits with what is wrong with them."""
    roles, run_roles = import_roles(named_roles(words))
    gc.enable()
    run_roles(list(roles.values()))


def named_roles(words: list[str]) -> list[str]:
    """The names of the roles that the words name; exits with what is wrong with them."""
    known = list(role_modules())
    if words == [_ALL]:
        return known
    names = [f"{words[0]}-{_WORKER}"] if words[1:] == [_WORKER] else words
    if not names or len(set(names)) < len(names):
        sys.exit(f"{_USAGE}: at least one, and each once")
    for name in names:
        if name not in known:
            sys.exit(f"{_USAGE}: there is no {name!r}")
    return names


if __name__ == "__main__":
    main(sys.argv[1:])
