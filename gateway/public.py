"""The files that the gateway serves to everyone: the dashboard, and the OpenAPI document with the page that shows it."""

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
DASHBOARD: Final = HERE.parent / "dashboard" / "dist" if (HERE.parent / "dashboard").is_dir() else HERE / "dashboard"
"""The dashboard, built: in the repository, or in the installed wheel."""
_BUILT: Final = ("dashboard/app.css", "dashboard/app.js", "dashboard/app.svg")
_PAGE: Final = "index.html"
_CHECKED: Final = "no-cache"
_FOR_EVER: Final = "public, max-age=31536000, immutable"
"""For files whose address has a hash of their content as its query."""
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PublicFile:
    """A file and where it is served."""

    path: str
    """Path of the URL."""
    file: Path
    """The file."""
    cache: str = _CHECKED
    """How browsers keep it."""

    @property
    def type(self) -> str:
        """Its content type."""
        return _TYPES[self.file.suffix]


def public_files() -> list[PublicFile]:
    """The public files: the dashboard at `/`, `/openapi.json`, and `/docs` with its parts."""
    parts = sorted((HERE / "viewer").iterdir())
    return [
        PublicFile("/", DASHBOARD / _PAGE),
        *(PublicFile(f"/{name}", DASHBOARD / name, _FOR_EVER) for name in _BUILT),
        PublicFile("/openapi.json", DOCUMENT),
        *(PublicFile("/docs" if part.name == _PAGE else f"/docs/{part.name}", part) for part in parts),
    ]
