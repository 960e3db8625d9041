"""`pmp backup`: one file with everything a local mesh has, as it was at one moment, while the mesh runs.

The databases of the services and the log refer to each other: a consumer's offset to the entries of a topic, a topic to the rows that
were published. So all of them are frozen at the same moment. That takes a write lock on every database for as long as Redis needs to
fork; what is copied afterwards are the snapshots of that moment, and nobody waits.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sqlite3
import tarfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import make_url

from cli.disk import Disk
from cli.errors import CommandFailed
from cli.folder import DataFolder
from cli.layout import databases
from cli.revisions import url_of
from cli.state import MeshState, running_mesh
from kit.log.ages import BACKED_UP
from kit.settings import KEYS_DATABASE

MANIFEST: Final = "manifest.json"
LOG: Final = Path("redis") / "appendonlydir"
"""Where Redis keeps its log, below the data folder."""
_BASE: Final = "appendonly.aof.1.base.rdb"
_INCREMENT: Final = "appendonly.aof.1.incr.aof"
_LOG_MANIFEST: Final = f"file {_BASE} seq 1 type b\nfile {_INCREMENT} seq 1 type i\n"
"""How Redis finds the files of its log: https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/."""
_DUMP: Final = "dump.rdb"
_NAME: Final = "pmp-{:%Y-%m-%dT%H%M%SZ}.tar.gz"
_COPIES: Final = ".pmp-backup-"
_PARTIAL: Final = ".partial"
_LOCK: Final = "backup.lock"
_LOCK_SECONDS: Final = 30.0
_ATTEMPTS: Final = 20
_PAUSE_SECONDS: Final = 0.5


class Manifest(BaseModel):
    """What a backup holds."""

    model_config = ConfigDict(frozen=True)

    made_at: datetime
    """The moment of which the backup is."""
    files: dict[str, str]
    """SHA-256 of each file, in hex, by its path below the data folder."""


def back_up(folder: DataFolder, target: Path, keep: int | None) -> Path:
    """Backs a running mesh up to a new file in a folder.

    Args:
        folder: of the mesh.
        target: a folder, which is created if it does not exist.
        keep: how many of the newest backups in it remain; None to remove none.

    Returns:
        The new file, which only its owner can read.

    Raises:
        CommandFailed: no mesh runs on the folder, its data is on other servers, another backup of it is being made, or it can't be written.
    """
    mesh = running_mesh(folder)
    files = _databases(mesh)
    if mesh.disk is None:
        raise CommandFailed("the log is in a Redis of your own: back that up together with the databases (docs/backup.md)")
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder), TemporaryDirectory(dir=target, prefix=_COPIES) as copies:
            _remove_leftovers(folder, target, Path(copies))
            _check_space(files, target, mesh.disk)
            made_at = _snapshot(files, Path(copies), folder, mesh.redis_url)
            shutil.copyfile(folder.secrets, Path(copies) / folder.secrets.name)
            archive = _archive(Path(copies), target / _NAME.format(made_at), made_at)
            _record(made_at, mesh.redis_url)
    except (OSError, sqlite3.Error, RedisError) as error:
        raise CommandFailed(f"the backup was not made: {error}") from error
    for old in backups(target)[keep:] if keep is not None else ():
        old.unlink()
    return archive


def backups(target: Path) -> list[Path]:
    """The backups in a folder, the newest first."""
    return sorted(target.glob("pmp-????-??-??T??????Z.tar.gz"), reverse=True)


@contextmanager
def _alone(folder: DataFolder) -> Generator[None]:
    """Keeps other backups of the mesh away. The kernel releases the lock when the process ends, however it ends.

    Raises:
        CommandFailed: another one is being made.
    """
    descriptor = os.open(folder.redis / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CommandFailed("another backup of this mesh is being made") from None
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: DataFolder, target: Path, own: Path) -> None:
    """Removes what backups left that were killed: it would keep what is erased later."""
    (folder.redis / _DUMP).unlink(missing_ok=True)
    for partial in target.glob(f"pmp-*{_PARTIAL}"):
        partial.unlink()
    for copies in target.glob(f"{_COPIES}*"):
        if copies != own:
            shutil.rmtree(copies)


def _check_space(files: Sequence[Path], target: Path, disk: Disk) -> None:
    """Refuses a backup by which the disk would become so full that intake stops.

    Raises:
        CommandFailed: there is too little space for copies of everything and their archive.
    """
    copied = sum(path.stat().st_size for path in (*files, *disk.folder.rglob("*")) if path.is_file())
    kept = disk.least_bytes if target.stat().st_dev == disk.folder.stat().st_dev else 0
    needed, free = 2 * copied + kept, shutil.disk_usage(target).free
    if free < needed:
        message = f"the backup was not made: {needed / 2**20:,.0f} MiB have to be free in {target} meanwhile, and {free / 2**20:,.0f} are"
        raise CommandFailed(message)


def _databases(mesh: MeshState) -> Sequence[Path]:
    """The files of the databases, in the order in which a transaction of a service locks them: that of persons' keys last.

    Raises:
        CommandFailed: they are on a server.
    """
    urls = [make_url(url_of(name, mesh.database_url)) for name in (*databases(), KEYS_DATABASE)]
    if any(url.get_backend_name() != "sqlite" for url in urls):
        raise CommandFailed("the databases are on a server: back them up together with the log by its own tools (docs/backup.md)")
    return [Path(url.database or "") for url in urls]


def _snapshot(files: Sequence[Path], copies: Path, folder: DataFolder, redis_url: str) -> datetime:
    """Copies the databases and the log as they are at one moment, and returns that moment."""
    with Redis.from_url(redis_url) as redis:
        dump = folder.redis / _DUMP
        try:
            with ExitStack() as stack:
                snapshots = [stack.enter_context(closing(_connect(path))) for path in files]
                made_at = _freeze(files, snapshots, redis)
                _copy_all(snapshots, [copies / path.name for path in files])
            _dumped(redis)
            (copies / LOG).mkdir(parents=True)
            shutil.move(dump, copies / LOG / _BASE)
        finally:
            # It would keep what is erased later. Redis may still be writing it, and gives it its name at the end.
            with suppress(RedisError):
                _written(redis)
            dump.unlink(missing_ok=True)
    (copies / LOG / _INCREMENT).touch()
    (copies / LOG / "appendonly.aof.manifest").write_text(_LOG_MANIFEST)
    return made_at


def _freeze(files: Sequence[Path], snapshots: Sequence[sqlite3.Connection], redis: Any) -> datetime:
    """Begins a read transaction on each database, and has Redis fork, while nothing is written to any database."""
    for _ in range(_ATTEMPTS):
        with _locked(files):
            for snapshot in snapshots:
                snapshot.execute("BEGIN")
                snapshot.execute("SELECT count(*) FROM sqlite_master").fetchone()
            # It returns once Redis has forked, or refuses while the log is being rewritten.
            if _forked(redis):
                return datetime.now(UTC)
            for snapshot in snapshots:
                snapshot.execute("ROLLBACK")
        time.sleep(_PAUSE_SECONDS)
    raise CommandFailed("Redis rewrites its log all the time: try again later")


@contextmanager
def _locked(files: Sequence[Path]) -> Generator[None]:
    with ExitStack() as stack:
        for path in files:
            connection = stack.enter_context(closing(_connect(path)))
            connection.execute("BEGIN IMMEDIATE")
        yield


def _record(made_at: datetime, redis_url: str) -> None:
    """Writes down when the backup was made, for the metric of its age; a full log takes no note of it, and the age grows."""
    with Redis.from_url(redis_url) as redis, suppress(RedisError):
        redis.set(BACKED_UP, made_at.timestamp())


def _forked(redis: Any) -> bool:
    found = redis.info("persistence")
    if found["aof_rewrite_in_progress"] or found["rdb_bgsave_in_progress"]:
        return False
    try:
        redis.bgsave(schedule=False)
    except RedisError:
        return False
    return True


def _dumped(redis: Any) -> None:
    """Waits until Redis has written its snapshot.

    Raises:
        CommandFailed: it could not.
    """
    if _written(redis)["rdb_last_bgsave_status"] != "ok":
        raise CommandFailed("Redis could not write a snapshot of the log: is the disk full?")


def _written(redis: Any) -> Any:
    """Waits until Redis writes no snapshot, and returns what it says of the last one."""
    while (found := redis.info("persistence"))["rdb_bgsave_in_progress"]:
        time.sleep(0.05)
    return found


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False)


def _copy_all(snapshots: Sequence[sqlite3.Connection], targets: Sequence[Path]) -> None:
    for snapshot, target in zip(snapshots, targets, strict=True):
        with closing(sqlite3.connect(target)) as copy:
            snapshot.backup(copy)
        snapshot.execute("ROLLBACK")


def _archive(copies: Path, target: Path, made_at: datetime) -> Path:
    """Packs the copies: the manifest first, then the files. A backup that is not complete never has the name of one."""
    found = {str(path.relative_to(copies)): path for path in sorted(copies.rglob("*")) if path.is_file()}
    manifest = copies / MANIFEST
    manifest.write_text(Manifest(made_at=made_at, files={name: checksum(path) for name, path in found.items()}).model_dump_json(indent=2))
    partial = target.with_suffix(_PARTIAL)
    try:
        partial.touch(mode=0o600)
        with tarfile.open(partial, "w:gz", compresslevel=1) as archive:
            for name, path in {MANIFEST: manifest, **found}.items():
                archive.add(path, name, filter=_private)
        return partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _private(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode, member.uname, member.gname, member.uid, member.gid = 0o600, "", "", 0, 0
    return member


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
