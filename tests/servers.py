"""Private instances of the real servers the tests talk to: on loopback, on free ports, ended by process id."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import pymysql
import redis

from cli.ports import Ports
from kit.credentials.files import AUTHORITY, CERTIFICATE, PRIVATE_KEY
from kit.credentials.urls import node_url
from tests import logs
from tests.authority import Authority

_PATH = os.environ["PATH"] + os.pathsep + "/usr/sbin"
HASH_SLOTS: Final = 16_384
"""Of every Redis Cluster (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/)."""
PORTS: Final = Ports()
"""Reserves each port until all tests of this process are done."""


def free_port() -> int:
    """A port for a server of this test process, which is given to no other until all tests are done."""
    return PORTS.take(1)[0]


class PrivateServer(ABC):
    """A server process with a data folder of its own, which can be killed and started again."""

    program: str
    seconds = 30.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        logs.follow(self.folder / "server.log")
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                self.ping()
            except Exception as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.program} did not start: {(self.folder / 'server.log').read_text()[-2000:]}") from error
                time.sleep(0.05)
            else:
                return

    def hang(self) -> None:
        """Pauses the process, all its threads when this returns: connections stay, and nothing is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        """Resumes a paused process."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends the process by a signal, and waits until it is gone."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None
            logs.leave(self.folder / "server.log")

    @abstractmethod
    def command(self) -> list[str]:
        """The command line."""

    @abstractmethod
    def ping(self) -> None:
        """Raises while the server does not answer."""


class PrivateRedis(PrivateServer):
    """A Redis as the log needs it: every write is on disk before it is answered, and nothing is evicted."""

    program = "redis-server"

    def __init__(self, folder: Path, *, maxmemory: str = "256mb") -> None:
        super().__init__(folder)
        self._maxmemory = maxmemory
        self.url = f"redis://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": "always",
            # Otherwise a rewritten file keeps bytes of what was trimmed.
            "aof-use-rdb-preamble": "no",
            "save": "",
            "maxmemory": self._maxmemory,
            "maxmemory-policy": "noeviction",
        }
        return [program_path(self.program), *(word for name, value in options.items() for word in (f"--{name}", str(value)))]

    def ping(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.ping()


class _Shard(PrivateRedis):
    """A Redis that is a primary of a cluster."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bus_port = free_port()

    def command(self) -> list[str]:
        return [
            *super().command(),
            *("--cluster-enabled", "yes"),
            *("--cluster-port", str(self.bus_port)),
            # Shards that are up take writes while another is down.
            *("--cluster-require-full-coverage", "no"),
            *("--cluster-node-timeout", "1000"),
        ]


class PrivateRedisCluster:
    """A Redis Cluster of three shards without replicas."""

    def __init__(self, folder: Path) -> None:
        self.shards: list[_Shard] = []
        for number in range(3):
            of_shard = folder / str(number)
            of_shard.mkdir()
            self.shards.append(_Shard(of_shard))
        self.url = f"redis+cluster://127.0.0.1:{self.shards[0].port}"

    def start(self) -> None:
        """Starts new shards, gives each a part of the slots, and waits until all know of each other."""
        for shard in self.shards:
            shard.start()
        bounds = [HASH_SLOTS * number // len(self.shards) for number in range(len(self.shards) + 1)]
        for shard, first, after in zip(self.shards, bounds, bounds[1:], strict=False):
            self._ask(shard, "CLUSTER ADDSLOTSRANGE", first, after - 1)
            for other in self.shards:
                self._ask(shard, "CLUSTER MEET", "127.0.0.1", other.port, other.bus_port)
        until(lambda: all(self._knows_all(shard) for shard in self.shards), 30)

    def kill(self) -> None:
        """Ends all shards."""
        for shard in self.shards:
            shard.kill()

    def holder(self, name: str) -> PrivateRedis:
        """The shard that has a key."""
        with redis.RedisCluster.from_url(node_url(self.url)) as client:
            node: Any = client.get_node_from_key(name)
        return next(shard for shard in self.shards if shard.port == node.port)

    def _knows_all(self, shard: PrivateRedis) -> bool:
        info = self._ask(shard, "CLUSTER INFO")
        return info["cluster_state"] == "ok" and int(info["cluster_slots_assigned"]) == HASH_SLOTS

    def _ask(self, shard: PrivateRedis, *command: object) -> Any:
        with redis.Redis.from_url(shard.url) as client:
            asked: Any = client
            return asked.execute_command(*command)


class PrivateMariaDb(PrivateServer):
    """A MariaDB with an account that may make databases."""

    program = "mariadbd"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.url = f"mysql+aiomysql://mesh:mesh@127.0.0.1:{self.port}/{{service}}"
        self.authority = Authority()
        """Issues the server's certificate, and those of clients that need one."""

    def install(self) -> None:
        """Makes the data folder and the account."""
        self.authority.issue(self.folder / "tls")
        install = [program_path("mariadb-install-db"), "--no-defaults", "--user=root", f"--datadir={self.folder / 'data'}"]
        subprocess.run([*install, "--auth-root-authentication-method=normal", "--skip-test-db"], check=True, capture_output=True)
        self.start()
        with pymysql.connect(host="127.0.0.1", port=self.port, user="root") as connection, connection.cursor() as cursor:
            cursor.execute("CREATE USER mesh@'%' IDENTIFIED BY 'mesh'")
            cursor.execute("GRANT ALL ON *.* TO mesh@'%'")

    def command(self) -> list[str]:
        return [
            program_path(self.program),
            "--no-defaults",
            "--user=root",
            f"--datadir={self.folder / 'data'}",
            "--socket=socket",
            # In a shared folder, a server that starts removes the files of others.
            f"--tmpdir={self.folder}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            *(
                f"--ssl-{option}={self.folder / 'tls' / name}"
                for option, name in (("ca", AUTHORITY), ("cert", CERTIFICATE), ("key", PRIVATE_KEY))
            ),
            "--skip-log-bin",
            "--innodb-buffer-pool-size=256M",
            # Each pod has a pool for each of its roles.
            "--max-connections=1000",
        ]

    def ping(self) -> None:
        pymysql.connect(host="127.0.0.1", port=self.port, user="root").close()

    def query(self, database: str, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a database."""
        with pymysql.connect(host="127.0.0.1", port=self.port, user="root", database=database, autocommit=True) as connection:
            cursor = connection.cursor()
            cursor.execute(sql)
            return list(cursor.fetchall())

    def dump(self, databases: Iterable[str]) -> bytes:
        """A backup of databases as SQL."""
        where = ["--no-defaults", "--host=127.0.0.1", f"--port={self.port}", "--user=root", "--single-transaction", "--databases"]
        return subprocess.run([program_path("mariadb-dump"), *where, *databases], check=True, capture_output=True).stdout


def niceness_of_session(pid: int) -> int | None:
    """That of a process's session; None where the kernel does not schedule sessions."""
    group = Path(f"/proc/{pid}/autogroup")
    if not group.exists():
        return None
    fields = group.read_text().split()
    return int(fields[-1]) if fields else 0  # processes of init's own session are in no group


def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits until a condition holds.

    Raises:
        AssertionError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second if it ends between being opened and being read
        return False


def program_path(program: str) -> str:
    """Path of a program of Debian."""
    path = shutil.which(program, path=_PATH)
    assert path, f"{program} is missing: run `make test`, which installs it"
    return path
