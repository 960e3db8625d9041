"""Runs roles of services in one process: `python -m services purchases identity ingestion-worker`.

A role is named like its service, or `SERVICE-worker`; `ingestion worker`, the arguments of a pod, is the worker as well. `all` stands
for every role.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from services import role_modules

_USAGE = "usage: python -m services ROLE..."
_WORKER = "worker"
_ALL = "all"


def main(words: list[str]) -> None:
    """Runs the roles that the words name; exits with what is wrong with them."""
    roles, run_roles = imported(named_roles(words))
    gc.enable()
    run_roles(list(roles.values()))


def imported(names: Sequence[str]) -> tuple[dict[str, Any], Callable[[Sequence[Any]], None]]:
    """Imports roles. Returns them by name, and what runs them. The garbage collector is off then."""
    # gRPC's own remarks, such as a server's goodbye, are no JSON; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    gc.disable()  # modules are no garbage: looking for some took a tenth of the start
    modules = role_modules()
    roles = {name: import_module(modules[name]).ROLE for name in names}
    return roles, import_module("kit.service.role").run_roles


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
