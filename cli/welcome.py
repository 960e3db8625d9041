"""The message that is printed once the mesh is ready."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from cli.folder import DataFolder

HEADERS = """-H "x-api-key: $PMP_API_KEY" -H "authorization: Bearer $PMP_TOKEN" -H 'content-type: application/json'"""
"""The headers of every call."""
EVENT = """'{"event_type":"page_view","page_url":"https://shop.example/","timestamp":"'"$(date -u +%FT%TZ)"'"}'"""
"""An event as a shell word, timestamped when the line runs."""


def welcome(url: str, folder: DataFolder, logs: str) -> str:
    """The address, a working call, where the calls are described, where the logs are, and the next commands."""
    pmp = command_line(folder)
    return f"""
The mesh is ready at {url}. Send an event:

  eval "$({pmp} credentials --scope site --user 1)"
  curl -sS "$PMP_URL/api/v1/events/track" {HEADERS} -d {EVENT}

See the shop's figures with `{pmp} open`, the books with `{pmp} books`, the processes with `{pmp} status`; all calls are
described at {url}/docs, and logs are in {logs}.
A whole shop's clickstream: `{pmp} demo`. Ctrl-C drains and stops.
"""


def command_line(folder: DataFolder) -> str:
    """How to call `pmp` for this data folder from the working directory."""
    installed = Path(sys.executable).with_name("pmp")
    found = shutil.which("pmp")
    program = "pmp" if found and installed.exists() and installed.samefile(found) else shlex.quote(_short(installed))
    return program if folder.path == Path(".data").absolute() else f"PMP_DATA={shlex.quote(str(folder.path))} {program}"


def _short(path: Path) -> str:
    """The path relative to the working directory, if it is within it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
