"""`pmp replay`: makes a service read what other services have published from the beginning."""

from __future__ import annotations

from cli.databases import service_sessions
from cli.errors import CommandFailed
from kit.log import offsets


async def replay(service: str, url: str, topic: str | None) -> list[str]:
    """Rewinds a service's consumer of one topic, or of all, and returns the topics. Messages it has applied already change nothing.

    Raises:
        CommandFailed: the service does not consume the topic.
    """
    async with service_sessions(service, url) as sessions, sessions.begin() as session:
        consumed = await offsets.topics(session)
        chosen = [name for name in consumed if topic in (None, name)]
        if not chosen:
            reads = f"it consumes {', '.join(consumed)}" if consumed else "it consumes no other service's topic"
            raise CommandFailed(f"{service} has nothing to replay: {reads}")
        for name in chosen:
            await offsets.rewind(session, name)
    return chosen
