"""Examines the strength and the age of secrets. A finding names a secret, and shows nothing of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import unquote, urlsplit

from cli.doctor.findings import Finding
from cli.doctor.subject import Subject
from cli.local_secrets import Secrets

_LONG_ENOUGH: Final = 24
_VARIED_ENOUGH: Final = 10
"""Different characters: a random secret of that length has more."""
_OLD: Final = timedelta(days=365)
_REPLACE: Final = "replace it by 32 random bytes, `openssl rand -base64 32`, without downtime (docs/operations.md, Rotate a secret)"


async def secrets(subject: Subject, now: datetime | None = None) -> AsyncIterator[Finding]:
    """Finds secrets that can be guessed, are used twice, or are more than a year old."""
    by_value: dict[str, list[str]] = defaultdict(list)
    for name, value in _values(subject):
        by_value[value].append(name)
        if len(value) < _LONG_ENOUGH or len(set(value)) < _VARIED_ENOUGH:
            yield Finding(what=f"{name} is {'missing' if not value else 'short or too regular to be random'}", action=_REPLACE)
    for value, names in by_value.items():
        if value and len(names) > 1:
            yield Finding(what=f"{' and '.join(names)} are the same secret", action="give each of them one of its own")
    if subject.local:
        file = subject.local.folder.secrets
        changed_at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        if (now or datetime.now(UTC)) - changed_at > _OLD:
            what = f"no secret of this mesh has changed since {changed_at:%Y-%m-%d}"
            yield Finding(what=what, action=f"rotate the keys of callers in {file} (docs/operations.md, Rotate a secret)")


def _values(subject: Subject) -> Iterator[tuple[str, str]]:
    """The secrets that are known here, by name. Keys are the business of another check."""
    yield from _numbered("PMP_MESH_TOKEN", subject.settings.mesh_tokens)
    yield "the password of Redis", unquote(urlsplit(subject.redis_url).password or "")
    if subject.local:
        own: Secrets = subject.local.secrets
        yield from _numbered("PMP_API_KEYS", own.api_keys)
        yield from _numbered("PMP_BROWSER_API_KEYS", own.browser_api_keys)
        yield from _numbered("PMP_JWT_SECRETS", own.jwt_secrets)


def _numbered(name: str, values: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((name if len(values) == 1 else f"{name} ({number})", value) for number, value in enumerate(values, 1))
