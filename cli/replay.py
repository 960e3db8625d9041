"""`pmp replay`: makes a service read what other services have published from the beginning."""

from __future__ import annotations

from importlib import import_module

from sqlalchemy import MetaData, Table, delete

from cli.databases import service_sessions
from cli.errors import CommandFailed
from kit.database.columns import FROM_TOPICS
from kit.log import offsets


async def replay(service: str, url: str, topic: str | None) -> list[str]:
    """Rewinds a service's consumer of one topic, or of all, and returns the topics.

    Messages it has applied already change nothing. Tables that follow from its topics alone are emptied in the same transaction, and
    built anew.

    Raises:
        CommandFailed: the service does not consume the topic, or its tables follow from several.
    """
    tables = _tables_from_topics(service)
    async with service_sessions(service, url) as sessions, sessions.begin() as session:
        consumed = await offsets.topics(session)
        chosen = [name for name in consumed if topic in (None, name)]
        if not chosen:
            reads = f"it consumes {', '.join(consumed)}" if consumed else "it consumes no other service's topic"
            raise CommandFailed(f"{service} has nothing to replay: {reads}")
        if tables and topic is not None:
            raise CommandFailed(f"{service} builds its tables from all of its topics together: replay it without --topic")
        for name in chosen:
            await offsets.rewind(session, name)
        for table in tables:
            await session.execute(delete(table))
    return chosen


def _tables_from_topics(service: str) -> list[Table]:
    metadata: MetaData = import_module(f"services.{service}.models").Base.metadata
    return metadata.sorted_tables if metadata.info == FROM_TOPICS else []
