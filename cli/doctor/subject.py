"""What is examined: a mesh on this machine, by its data folder, or what the settings of a pod lead to."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from cli.databases import must_exist
from cli.folder import DataFolder, in_pod
from cli.layout import databases
from cli.local_secrets import Secrets
from cli.pod import read_settings
from cli.revisions import url_of
from cli.state import MeshState, running_mesh
from kit.database.engine import Database, open_database
from kit.log.redis.opening import open_log
from kit.log.redis_log import RedisLog
from kit.outages import code_of
from kit.settings import KEYS_DATABASE, MeshSettings, Settings

# Access denied to the database or to a table: https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html
_DENIED: Final = frozenset({1044, 1142})


class NotExamined(Exception):
    """A check can't be made here. `str()` says why, and where it can."""


@dataclass(frozen=True, slots=True)
class Local:
    """A mesh that `pmp up` runs on this machine."""

    folder: DataFolder
    state: MeshState
    secrets: Secrets


@dataclass(frozen=True, slots=True)
class Subject:
    """What checks examine."""

    local: Local | None
    """None in a pod."""
    settings: MeshSettings
    """Addresses of the services, and the credential with which they are called."""
    vault_key: str
    """PMP_VAULT_KEY."""
    key_encryption_keys: str
    """PMP_KEY_ENCRYPTION_KEYS."""
    redis_url: str
    log_max_bytes: int
    """Memory of Redis above which intake stops."""
    log: RedisLog
    databases: Mapping[str, Database]
    """Those of services that can be read here, by service."""
    denied: Sequence[str]
    """Services whose databases this pod's account may not read."""
    keys: Database
    """The database of persons' keys."""

    def mention_denied(self) -> None:
        """Ends a check of databases.

        Raises:
            NotExamined: there are some that this pod's account may not read.
        """
        if self.denied:
            raise NotExamined(f"only in their own pods: {', '.join(self.denied)}")


@asynccontextmanager
async def examined(folder: DataFolder) -> AsyncGenerator[Subject]:
    """Opens what is examined: a pod's own settings lead to it, else the mesh on the folder is meant.

    Raises:
        CommandFailed: no mesh runs on the folder, or a setting is wrong.
    """
    async with AsyncExitStack() as stack:
        if in_pod(folder):
            settings = read_settings(Settings)
            yield await _opened(
                stack,
                local=None,
                settings=settings,
                vault_key=settings.vault_key.get_secret_value(),
                key_encryption_keys=settings.key_encryption_keys.get_secret_value(),
                database_url=settings.database_url,
                keys_url=settings.keys_database_url,
                redis_url=settings.redis_url,
                log_max_bytes=settings.log_max_bytes,
            )
            return
        local = Local(folder, running_mesh(folder), Secrets.load(folder))
        environ = _environment(local.state)
        yield await _opened(
            stack,
            local=local,
            settings=MeshSettings.model_validate(
                {"mesh_token": local.secrets.mesh_token, "service_addresses": local.state.service_addresses}
            ),
            vault_key=local.secrets.vault_key,
            key_encryption_keys=",".join(local.secrets.key_encryption_keys),
            database_url=local.state.database_url,
            keys_url=url_of(KEYS_DATABASE, local.state.database_url, environ),
            redis_url=local.state.redis_url,
            log_max_bytes=int(environ.get("PMP_LOG_MAX_BYTES") or Settings.model_fields["log_max_bytes"].default),
        )


async def _opened(
    stack: AsyncExitStack,
    *,
    local: Local | None,
    settings: MeshSettings,
    vault_key: str,
    key_encryption_keys: str,
    database_url: str,
    keys_url: str,
    redis_url: str,
    log_max_bytes: int,
) -> Subject:
    readable: dict[str, Database] = {}
    denied: list[str] = []
    for name in databases():
        url = url_of(name, database_url)
        must_exist(url, name)
        database = await stack.enter_async_context(open_database(url, pool=1))
        if await _is_denied(database):
            denied.append(name)
        else:
            readable[name] = database
    must_exist(keys_url, KEYS_DATABASE)
    return Subject(
        local=local,
        settings=settings,
        vault_key=vault_key,
        key_encryption_keys=key_encryption_keys,
        redis_url=redis_url,
        log_max_bytes=log_max_bytes,
        log=await stack.enter_async_context(open_log(redis_url)),
        databases=readable,
        denied=denied,
        keys=await stack.enter_async_context(open_database(keys_url, pool=1)),
    )


async def _is_denied(database: Database) -> bool:
    """Whether the account may not read a database. A server that does not answer is a finding of the checks."""
    try:
        await database.check()
    except DBAPIError as error:
        return code_of(error) in _DENIED
    except OSError:
        return False
    return False


def _environment(state: MeshState) -> Mapping[str, str]:
    """The environment of a process of the mesh: settings that `pmp up` passed on, which may differ from those of this command."""
    for process in state.processes:
        if process.kind == "service" and process.pid is not None:
            try:
                own = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            return dict(os.fsdecode(each).split("=", 1) for each in own if b"=" in each)
    return os.environ


def backend_of(database: Database) -> str:
    """Returns `sqlite` or `mysql`."""
    return make_url(database.engine.url).get_backend_name()
