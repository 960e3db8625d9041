"""The Redis of a local mesh, on folders that were there before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from typing_extensions import override

from cli.embedded_redis import LEAST_MEMORY, executable, write_configuration
from tests.servers import PrivateRedis


class Embedded(PrivateRedis):
    """The server that `pmp up` starts, configured as it does."""

    @override
    def command(self) -> list[str]:
        configuration = self.folder / "redis.conf"
        write_configuration(configuration, data=self.folder, port=self.port, password="secret", memory=LEAST_MEMORY)
        return [str(executable()), str(configuration)]

    @override
    def ping(self) -> None:
        self.client().ping()

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password="secret")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Embedded]:
    server = Embedded(tmp_path)
    yield server
    server.kill()


def written(*command: str) -> str:
    """A command as an append-only file has it."""
    return f"*{len(command)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in command)


def test_the_one_append_only_file_of_redis_6_is_read_and_kept(server: Embedded) -> None:
    entries = written("SELECT", "0") + written("XADD", "raw", "7-0", "event", "first") + written("XADD", "raw", "8-0", "event", "second")
    (server.folder / "appendonly.aof").write_text(entries)
    for number in ("9-0", "10-0"):
        server.start()
        with server.client() as client:
            client.xadd("raw", {"event": "later"}, id=number)
        server.kill()
    server.start()
    with server.client() as client:
        assert client.xlen("raw") == 4
