"""What an unprivileged user can read on a machine that runs a mesh: a program that starts as root and becomes nobody.

Reads `{"folder": "", "files": [], "pids": [], "ports": [], "sockets": []}` from its input, and writes what it got, by where from.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GET = """/ /config_dump /config_dump?include_eds /server_info /clusters?format=json /stats /stats/prometheus /metrics /runtime /init_dump
/certs /listeners /memory /contention /hot_restart_version /readyz /healthz /help /debug /api/v1/events/accounting"""
POST = "/quitquitquit /drain_listeners /healthcheck/fail /logging?level=trace /reset_counters"
REQUESTS = (
    *(
        f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()
        for method, paths in (("GET", GET), ("POST", POST))
        for path in paths.split()
    ),
    b"*2\r\n$4\r\nINFO\r\n$3\r\nall\r\n",
    b"CONFIG GET *\r\nCLIENT LIST\r\nKEYS *\r\nMONITOR\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"\x00\r\n\r\n",
)
LARGEST = 1 << 20
NOBODY = 65534


def answers(family: int, address: tuple[str, int] | str) -> bytes:
    """Everything that a server answers."""
    got = b""
    for request in REQUESTS:
        with suppress(OSError), socket.socket(family) as caller:
            caller.settimeout(0.3)
            caller.connect(address)
            got += b"\n"
            caller.sendall(request)
            while len(got) < LARGEST and (part := caller.recv(65536)):
                got += part
    return got


def files(folder: Path) -> Iterator[Path]:
    """The files in a folder, as far as they are readable."""
    with suppress(OSError):
        for each in os.scandir(folder):
            if each.is_dir(follow_symlinks=False):
                yield from files(Path(each.path))
            else:
                yield Path(each.path)


def of_process(pid: int) -> Iterator[Path]:
    """What the kernel reveals about a process."""
    process = Path(f"/proc/{pid}")
    for name in ("cmdline", "environ", "maps", "auxv", "io", "stack", "mounts"):
        yield process / name
    for name in ("fd", "map_files", "cwd", "root/proc/1"):
        yield from files(process / name)


def main() -> None:
    """Searches everything, as nobody."""
    given = json.load(sys.stdin)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    got: dict[str, str] = {}
    for path in [*files(Path(given["folder"])), *map(Path, given["files"]), *(each for pid in given["pids"] for each in of_process(pid))]:
        with suppress(OSError), path.open("rb") as file:
            got[str(path)] = file.read(LARGEST).decode("latin-1")
    for port in given["ports"]:
        got[f"port {port}"] = answers(socket.AF_INET, ("127.0.0.1", port)).decode("latin-1")
    for path in given["sockets"]:
        got[f"socket {path}"] = answers(socket.AF_UNIX, path).decode("latin-1")
    json.dump(got, sys.stdout)


if __name__ == "__main__":
    main()
