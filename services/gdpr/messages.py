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

TOPIC: Final = "gdpr"
"""Its messages are consent and suppressions."""

IDENTIFIERS_CONTEXT: Final = "names"
"""Context under which the identifiers of a request are sealed."""

_UNKNOWN: Final = "unknown"


def changed_message(identifier: str, in_force: Mapping[str, ConsentRow]) -> change_pb2.ConsentChanged:
    """Returns the change to publish of an identifier's consent."""
    choices = {purpose: change_pb2.Choice(granted=row.granted, decided_at=timestamp(row.decided_at)) for purpose, row in in_force.items()}
    return change_pb2.ConsentChanged(subject=identifier, **choices)


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
