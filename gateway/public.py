"""The files that the gateway serves to everyone: the OpenAPI document and the page that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
DOCUMENT: Final = next(
    (path for path in (HERE.parent / "docs" / "openapi.json", HERE / "openapi.json") if path.exists()), HERE / "openapi.json"
)
"""The document: in the repository's `docs/`, or in the installed wheel."""
_PAGE: Final = "index.html"
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
}


@dataclass(frozen=True, slots=True)
class PublicFile:
    """A file and where it is served."""

    path: str
    """Path of the URL."""
    file: Path
    """The file."""

    @property
    def type(self) -> str:
        """Its content type."""
        return _TYPES[self.file.suffix]


def public_files() -> list[PublicFile]:
    """The public files: `/openapi.json`, and `/docs` with its parts."""
    parts = sorted((HERE / "viewer").iterdir())
    return [
        PublicFile("/openapi.json", DOCUMENT),
        *(PublicFile("/docs" if part.name == _PAGE else f"/docs/{part.name}", part) for part in parts),
    ]
