"""`pmp keys`: the keys that wrap persons' keys."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.databases import must_exist
from cli.errors import CommandFailed
from cli.folder import DataFolder, in_pod
from cli.local_secrets import add_key, key_encryption_keys
from cli.revisions import url_of
from kit.database.engine import open_database
from kit.errors import Unavailable
from kit.people.derivation import InvalidKey
from kit.people.keys.rotation import KeyRotation
from kit.people.keys.wrapping import EnvironmentKeys
from kit.settings import KEYS_DATABASE


def check_not_in_pod(folder: DataFolder) -> None:
    """Refuses to add a key in a pod.

    Raises:
        CommandFailed: this is one.
    """
    if in_pod(folder):
        raise CommandFailed("the keys of a cluster are in the secret mesh-secrets: put the new one before the old one there, and restart")


async def new(folder: DataFolder, url: str) -> None:
    """Adds a key that wraps from the next start of the mesh on. The previous one still unwraps; older ones are removed.

    Raises:
        CommandFailed: keys are still wrapped by an older one, or the database fails.
    """
    async with _rotation(folder, url) as rotation:
        stale = await rotation.stale()
    if stale:
        raise CommandFailed(f"{stale} keys are wrapped by an older one: run `pmp keys rotate` first")
    add_key(folder)


async def rotate(folder: DataFolder, url: str, console: Console) -> int:
    """Wraps every person's key with the newest key while the mesh is running; returns the number of keys wrapped.

    Raises:
        CommandFailed: a key is wrapped by one that is not configured, or the database fails.
    """
    done = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with _rotation(folder, url) as rotation:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("keys", total=await rotation.stale())
            async for some in rotation.run():
                done += some
                progress.advance(task, some)
    return done


@asynccontextmanager
async def _rotation(folder: DataFolder, url: str) -> AsyncGenerator[KeyRotation]:
    own = url_of(KEYS_DATABASE, url)
    must_exist(own, KEYS_DATABASE)
    try:
        wrapping = EnvironmentKeys.parse(key_encryption_keys(folder))
        async with open_database(own, pool=1) as database:
            yield KeyRotation(database, wrapping)
    except (InvalidKey, Unavailable) as error:
        raise CommandFailed(str(error)) from error
