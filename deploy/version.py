"""Sets the one version of the Python packages, the images, the manifests, the plugin, the theme and the dashboard.

make version VERSION=1.2.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NUMBER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
CHANGES = {"CHANGELOG.md": r"^## (\S+)", "wordpress/pmp-analytics/readme.txt": r"^= (\d\S*) ="}
"""The changelogs, and the headings of their releases, of which the first is the newest."""
PLACES = {
    "pyproject.toml": r'^(version = ")([^"]+)',
    "dashboard/package.json": r'^(  "version": ")([^"]+)',
    "dashboard/package-lock.json": r'("name": "pmp-dashboard",\s+"version": ")([^"]+)',
    "deploy/Dockerfile": r"(org\.opencontainers\.image\.version=)(\S+)",
    "deploy/overlays/local/kustomization.yaml": r"(app\.kubernetes\.io/version: )(\S+)",
    "deploy/overlays/production/kustomization.yaml": r"(app\.kubernetes\.io/version: )(\S+)",
    "wordpress/pmp-analytics/pmp-analytics.php": r"^( \* Version: )(\S+)",
    "wordpress/pmp-analytics/readme.txt": r"^(Stable tag: )(\S+)",
    "wordpress/understrap-child/style.css": r"^(Version: )(\S+)",
}
"""Where the version stands: a pattern of what precedes it, and of itself. The client and the zip take it from these."""


def versions(root: Path) -> dict[str, set[str]]:
    """The versions that each of the `PLACES` has: one, unless the file was changed by hand."""
    return {path: {found for _, found in _find(root, path)} for path in PLACES}


def changes(root: Path) -> dict[str, str]:
    """The newest release that each changelog describes."""
    return {path: re.findall(heading, (root / path).read_text(), flags=re.MULTILINE)[0] for path, heading in CHANGES.items()}


def set_version(root: Path, version: str) -> None:
    """Writes a version to all `PLACES`.

    Raises:
        ValueError: it is no version, a changelog does not begin with it, or a file has no place for it.
    """
    if not NUMBER.fullmatch(version):
        raise ValueError(f"{version!r} is no version such as 1.2.0")
    if lacking := [path for path, newest in changes(root).items() if newest != version]:
        raise ValueError(f"the newest release in {' and '.join(lacking)} is not {version}: write that section first")
    if lacking := [path for path, found in versions(root).items() if not found]:
        raise ValueError(f"no version in {', '.join(lacking)}")
    for path, pattern in PLACES.items():
        text = (root / path).read_text()
        (root / path).write_text(re.sub(pattern, rf"\g<1>{version}", text, flags=re.MULTILINE))


def _find(root: Path, path: str) -> list[tuple[str, str]]:
    return re.findall(PLACES[path], (root / path).read_text(), flags=re.MULTILINE)


if __name__ == "__main__":
    try:
        set_version(ROOT, sys.argv[1])
    except ValueError as refused:
        sys.exit(str(refused))
