"""Maps rows to messages: responses and the changes that are published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from pmp.gdpr.v1 import change_pb2
from pmp.gdpr.v1 import gdpr_pb2 as pb

from kit.people.privacy import PURPOSES
from kit.times import timestamp
from services.gdpr.models import ConsentRow, RequestRow, StepRow
from services.gdpr.rules import Choice

TOPIC: Final = "gdpr"
"""Its messages are consent and suppressions."""

IDENTIFIERS_CONTEXT: Final = "names"
"""Context under which the identifiers of a request are sealed."""

_UNKNOWN: Final = "unknown"


def changed_message(identifier: str, in_force: Mapping[str, ConsentRow]) -> change_pb2.ConsentChanged:
    """Returns the change to publish of an identifier's consent."""
    changed = change_pb2.ConsentChanged(subject=identifier)
    for purpose, row in in_force.items():
        getattr(changed, purpose).CopyFrom(_choice(row))
    return changed


def conflicts(
    identifier: str, made: Iterable[Choice], client: str, in_force: Mapping[str, ConsentRow], site: str
) -> list[change_pb2.ConsentConflict]:
    """Returns the conflicts of new choices with those that were in force before.

    The choices of the site and of another system differ, and neither maker could know of the other's: the one in force had not been
    reported when the new one was made, and the new one is reported only now.

    Args:
        identifier: under which the choices are reported.
        made: the new choices.
        client: the calling system that reports them.
        in_force: the person's choices by purpose, as of before.
        site: the calling system that is the shop's site.
    """
    found: list[change_pb2.ConsentConflict] = []
    for choice in made:
        known = in_force.get(choice.purpose)
        if known is None or known.granted == choice.granted or choice.decided_at > known.recorded_at:
            continue
        if known.client == client or site not in {known.client, client}:
            continue
        subject, own, other = (identifier, choice, known) if client == site else (known.subject, known, choice)
        found.append(change_pb2.ConsentConflict(subject=subject, purpose=choice.purpose, site=_choice(own), mesh=_choice(other)))
    return found


def _choice(choice: Choice | ConsentRow) -> change_pb2.Choice:
    return change_pb2.Choice(granted=choice.granted, decided_at=timestamp(choice.decided_at))


def suppressed_message(digest: bytes, at: datetime) -> change_pb2.SuppressionChanged:
    """Returns the change to publish of a suppressed identifier."""
    return change_pb2.SuppressionChanged(digest=digest, erased_at=timestamp(at))


def suppression_key(digest: bytes) -> str:
    """Returns the key of a suppression in the topic."""
    return f"suppression {digest.hex()}"


def keyed_suppression(change: change_pb2.SuppressionChanged) -> tuple[str, change_pb2.GdprChanged]:
    """Returns the change to publish of a suppression, with its key."""
    return suppression_key(change.digest), change_pb2.GdprChanged(suppression=change)


def download_message(request_id: str, token: str, expires_at: datetime) -> pb.Download:
    """Returns a link to an archive."""
    return pb.Download(path=f"/api/v1/gdpr/requests/{request_id}/archive?token={token}", expires_at=timestamp(expires_at))


def request_message(row: RequestRow, steps: Iterable[StepRow], download: pb.Download | None = None) -> pb.SubjectRequest:
    """Returns the current state of a request."""
    return pb.SubjectRequest(
        id=row.id,
        kind=row.kind,
        state=row.state,
        client=row.client,
        requested_at=timestamp(row.requested_at),
        due_at=timestamp(row.due_at),
        finished_at=timestamp(row.finished_at),
        receipt=pb.Receipt(document=row.receipt, signature=row.signature or "") if row.receipt else None,
        download=download,
        steps=[
            pb.RequestStep(
                name=step.name,
                state=step.state,
                failures=step.failures,
                error=step.error,
                finished_at=timestamp(step.finished_at),
                tables=tables_message(step.tables),
                answers=[pb.SystemAnswer(system=system, answer=answer) for system, answer in sorted((step.answers or {}).items())],
            )
            for step in steps
        ],
    )


def receipt_facts(row: RequestRow, steps: Iterable[StepRow], now: datetime) -> dict[str, Any]:
    """Returns what a receipt records: what was done where, when and how much, but not for whom."""
    return {
        "request": row.id,
        "kind": row.kind,
        "client": row.client,
        "requested_at": row.requested_at.isoformat(),
        "finished_at": now.isoformat(),
        "steps": [
            {
                "name": step.name,
                "finished_at": step.finished_at.isoformat() if step.finished_at else "",
                "tables": step.tables,
                **({"answers": step.answers} if step.answers else {}),
            }
            for step in steps
        ],
    }


def tables_message(tables: Mapping[str, int]) -> list[pb.ErasedTable]:
    """Returns the number of erased rows by table."""
    return [pb.ErasedTable(table=name, rows=rows) for name, rows in sorted(tables.items())]


def state_message(in_force: Mapping[str, ConsentRow]) -> pb.ConsentState:
    """Returns the consent in force for each purpose."""
    return pb.ConsentState(**{purpose: _purpose(in_force.get(purpose)) for purpose in PURPOSES})


def entry_message(row: ConsentRow) -> pb.ConsentEntry:
    """Returns an entry of the history."""
    return pb.ConsentEntry(
        purpose=row.purpose,
        state=_word(row),
        timestamp=timestamp(row.decided_at),
        source=row.source,
        policy_version=row.policy_version,
        subject=row.subject,
        recorded_at=timestamp(row.recorded_at),
        client=row.client,
    )


def _purpose(row: ConsentRow | None) -> pb.PurposeState:
    if row is None:
        return pb.PurposeState(state=_UNKNOWN)
    return pb.PurposeState(state=_word(row), since=timestamp(row.decided_at), source=row.source, policy_version=row.policy_version)


def _word(row: ConsentRow) -> str:
    return "granted" if row.granted else "denied"
