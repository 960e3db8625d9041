"""The services of the mesh: each folder is one, with a proto package and a database of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_FOLDER = Path(__file__).parent


def role_modules() -> Mapping[str, str]:
    """Returns the modules that compose the roles, by name: first the services', then those of workers, `SERVICE-worker`."""
    services = {path.parent.name: f"services.{path.parent.name}.composition" for path in sorted(_FOLDER.glob("*/composition.py"))}
    workers = {f"{path.parent.name}-worker": f"services.{path.parent.name}.worker" for path in sorted(_FOLDER.glob("*/worker.py"))}
    return services | workers
