"""Migrates the services' databases, and that of persons' keys, to their newest version."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from cli.databases import checked_service
from cli.errors import CommandFailed
from cli.layout import databases
from cli.revisions import url_of
from kit.migrate import migrate
from kit.settings import KEYS_DATABASE


def migrate_databases(service: str | None, url: str) -> Iterator[str]:
    """Migrates one service's database or all of them, and yields the name of each when it is done.

    Raises:
        CommandFailed: the service does not exist, or the database fails.
    """
    for name in [checked_service(service)] if service else [*databases(), KEYS_DATABASE]:
        try:
            asyncio.run(migrate(name, url_of(name, url)))
        except (SQLAlchemyError, OSError) as error:
            raise CommandFailed(f"the database of {name} could not be migrated: {error}") from error
        yield name
