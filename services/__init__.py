"""The services of the mesh: each folder is one, with a proto package and a database of the same name."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


def role_modules() -> Mapping[str, str]:
    """Returns the modules that compose the roles, by name: first the services', then those of workers, `SERVICE-worker`."""
    services = {path.parent.name: f"services.{path.parent.name}.composition" for path in sorted(_FOLDER.glob("*/composition.py"))}
    workers = {f"{path.parent.name}-worker": f"services.{path.parent.name}.worker" for path in sorted(_FOLDER.glob("*/worker.py"))}
    return services | workers


def import_roles(names: Iterable[str]) -> tuple[Mapping[str, Any], Callable[[Sequence[Any]], None]]:
    """Imports roles. Returns them by name, and what runs some of them. The garbage collector is off afterwards."""
    # gRPC's own remarks, such as a server's goodbye, are no JSON; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    gc.disable()  # modules are no garbage: looking for some took a tenth of the start
    modules = role_modules()
    roles = {name: import_module(modules[name]).ROLE for name in names}
    return roles, import_module("kit.service.role").run_roles
