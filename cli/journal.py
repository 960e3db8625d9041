"""The journal of systemd as the log of a mesh's processes: `journalctl -t pmp-gateway`; forked ones share that of their fork server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TextIO

from cli.processes import NO_LOG, Command


def is_journal(output: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether an output of this process goes to the journal, by https://systemd.io/JOURNAL_NATIVE_PROTOCOL."""
    try:
        found = os.fstat(output.fileno())
    except (OSError, ValueError):  # it was replaced by one without a file
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def in_journal(command: Command) -> Command:
    """The command with its output in the journal instead of a file; what is forked writes as its fork server does."""
    if command.fork_server is not None:
        return replace(command, log=NO_LOG)
    writer = ("systemd-cat", f"--identifier=pmp-{command.name}", "--level-prefix=false")
    return replace(command, argv=(*writer, *command.argv), log=NO_LOG)
