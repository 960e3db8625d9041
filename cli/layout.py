"""The roles of the mesh, and which of them share a process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import services
from services import role_modules

SERVICES = Path(services.__path__[0])
"""Each folder in it is a service."""
INTAKE = "ingestion"
"""The role that takes events in, and its process."""
FORK_SERVER = "services"
"""Name of the process that the processes of all roles are forked from."""
FOLLOWERS = "followers"
"""Name of the process of all other services: they follow what was taken in."""


class Processes(StrEnum):
    """How roles are distributed over processes."""

    SHARED = "shared"
    """The intake in one process, each worker in its own, and all other services in another.

    What a worker stores reaches the others in a fifth of a second, however much these have to do."""
    EACH = "each"
    """Each role in its own."""


def service_names() -> list[str]:
    """The services of the mesh: the packages with a `composition.py`."""
    return sorted(path.parent.name for path in SERVICES.glob("*/composition.py"))


def worker_names() -> list[str]:
    """The workers of services: the roles that are no service's own."""
    return [role for role in role_modules() if role not in service_names()]


def databases() -> list[str]:
    """The services that have a database."""
    return sorted(path.parent.name for path in SERVICES.glob("*/migrations"))


def roles_by_process(processes: Processes) -> Mapping[str, Sequence[str]]:
    """The roles of each process, by its name."""
    roles = list(role_modules())
    if processes is Processes.EACH:
        return {role: [role] for role in roles}
    apart = [INTAKE, *worker_names()]
    return {role: [role] for role in apart} | {FOLLOWERS: [role for role in roles if role not in apart]}
