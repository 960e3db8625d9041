"""Build hook: the client has the mesh's version, and of its dependencies those that it imports."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

IMPORTED = {"googleapis-common-protos", "grpcio", "opentelemetry-api", "protobuf", "pyjwt"}
TYPES = {"types-grpcio", "types-protobuf"}
"""Type information of what the stubs import: the extra `types`."""


class MeshMetadata(MetadataHookInterface):
    """Takes version and dependencies from the mesh's `pyproject.toml`."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:  # noqa: D102 (hatchling calls it)
        mesh = tomllib.loads((Path(self.root).parent / "pyproject.toml").read_text())
        metadata["version"] = mesh["project"]["version"]
        metadata["dependencies"] = _of(mesh["project"]["dependencies"], IMPORTED)
        metadata["optional-dependencies"] = {"types": _of(mesh["dependency-groups"]["dev"], TYPES)}


def _of(requirements: list[str], names: set[str]) -> list[str]:
    return [each for each in requirements if re.split(r"[<>=~\[ ]", each, maxsplit=1)[0] in names]
