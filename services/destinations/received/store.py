"""All SQL of received webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Table, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import upsert
from kit.people.subjects.personal_tables import Ages
from kit.people.subjects.retention import Expiry
from services.destinations.received.models import PaymentRow, WebhookRow
from services.destinations.received.statement import Effect

_payments: Final = cast("Table", PaymentRow.__table__)
PAYMENTS: Final = Expiry(_payments, Ages("received_at"), timedelta(days=730))
"""How long the order of a payment is known: a buyer's bank may take money back for more than a year."""

_LEASE: Final = timedelta(seconds=60)
"""How long one process works on a webhook before another one may take it over."""
_MOST: Final = 50
_ID: Final = 255
_DETAIL: Final = 200


class State(StrEnum):
    """What became of a webhook."""

    PENDING = "pending"
    WAITING = "waiting"
    DONE = "done"
    REFUSED = "refused"
    EXPIRED = "expired"


OPEN: Final = (State.PENDING, State.WAITING)
"""States of webhooks that are still worked on."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook that is about to be stored."""

    sender: str
    event_id: str
    fact: str
    kind: str
    effect: Effect
    order_id: str
    """Empty if it is not stated."""
    payments: Sequence[str]
    request: bytes
    personal: bytes
    """Sealed; empty for nothing."""
    subject: str
    """Empty for nobody."""
    happened_at: datetime


class Outcome(NamedTuple):
    """The result of an attempt."""

    state: State
    detail: str = ""
    order_id: str = ""
    """The order, if it is known now."""


class Backlog(NamedTuple):
    """The webhooks that are not done."""

    by_state: Mapping[str, int]
    oldest: datetime | None
    """When the oldest pending one arrived; None if none is pending."""


class Webhooks:
    """Received webhooks, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, webhook: Webhook, now: datetime) -> bool:
        """Stores a webhook, and the order of the payments that it names.

        Returns:
            False for one that is stored already, or whose fact is.
        """
        if webhook.order_id:
            await self._know_order(webhook, now)
        is_same = or_(WebhookRow.event_id == webhook.event_id[:_ID], WebhookRow.fact == webhook.fact[:_ID])
        if await self._session.scalar(select(WebhookRow.id).where(WebhookRow.sender == webhook.sender, is_same).limit(1)) is not None:
            return False
        self._session.add(
            WebhookRow(
                sender=webhook.sender,
                event_id=webhook.event_id[:_ID],
                fact=webhook.fact[:_ID],
                kind=webhook.kind,
                effect=webhook.effect.value,
                order_id=webhook.order_id or None,
                payments=" ".join(filter(None, webhook.payments)),
                request=webhook.request,
                personal=webhook.personal or None,
                subject=webhook.subject or None,
                happened_at=webhook.happened_at,
                received_at=now,
                state=State.PENDING.value,
                attempts=0,
                next_attempt_at=now,
                detail="",
            )
        )
        await self._session.flush()
        return True

    async def claim(self, now: datetime) -> Sequence[WebhookRow]:
        """Returns webhooks that are due, the oldest first: for a minute no other process works on them."""
        query = select(WebhookRow).where(WebhookRow.state.in_(OPEN), WebhookRow.next_attempt_at <= now)
        rows = (await self._session.scalars(query.order_by(WebhookRow.next_attempt_at).limit(_MOST).with_for_update())).all()
        for row in rows:
            row.attempts += 1
            row.next_attempt_at = now + _LEASE
            row.detail = ""
        return rows

    async def order_of(self, sender: str, payments: Sequence[str]) -> str:
        """Returns the order of a payment, by any of its ids; empty if it is not known."""
        query = select(PaymentRow.order_id).where(PaymentRow.sender == sender, PaymentRow.payment.in_(payments)).limit(1)
        return await self._session.scalar(query) or ""

    async def finish(self, row: WebhookRow, outcome: Outcome, next_attempt_at: datetime, now: datetime) -> None:
        """Stores the result of an attempt. Of a webhook that is done nothing personal is kept.

        One that waits for its payment's order is due now if another webhook has named that in between.
        """
        if outcome.state is State.WAITING and not outcome.order_id and await self.order_of(row.sender, row.payments.split()):
            next_attempt_at = now
        values: dict[str, Any] = {"state": outcome.state.value, "detail": outcome.detail[:_DETAIL], "next_attempt_at": next_attempt_at}
        if outcome.order_id:
            values["order_id"] = outcome.order_id
        if outcome.state not in OPEN:
            values |= {"personal": None, "subject": None}
        if outcome.state is State.DONE:
            values["request"] = None
        await self._session.execute(update(WebhookRow).where(WebhookRow.id == row.id).values(values))

    async def next_due(self) -> datetime | None:
        """Returns when the next webhook is due; None for none."""
        due = [
            at
            for state in OPEN
            if (at := await self._session.scalar(select(func.min(WebhookRow.next_attempt_at)).where(WebhookRow.state == state)))
        ]
        return min(due, default=None)

    async def backlog(self) -> Backlog:
        """Returns what is not done."""
        query = select(WebhookRow.state, func.count().label("rows"), func.min(WebhookRow.received_at).label("oldest"))
        rows = (await self._session.execute(query.where(WebhookRow.state != State.DONE).group_by(WebhookRow.state))).all()
        return Backlog({row.state: row.rows for row in rows}, next((row.oldest for row in rows if row.state == State.PENDING), None))

    async def _know_order(self, webhook: Webhook, now: datetime) -> None:
        """Remembers which order a payment is for. Webhooks that named the payment alone are due again.

        Those that are being worked on are left alone: the worker looks once more when it is finished.
        """
        rows = [
            {"sender": webhook.sender, "payment": payment[:_ID], "order_id": webhook.order_id, "received_at": now}
            for payment in filter(None, webhook.payments)
        ]
        if rows:
            await upsert(self._session, _payments, rows, changing=("order_id",))
            is_waiting = (
                WebhookRow.sender == webhook.sender,
                WebhookRow.state == State.WAITING,
                WebhookRow.order_id.is_(None),
                WebhookRow.detail != "",
            )
            named = literal(" ").concat(WebhookRow.payments).concat(" ")
            names_one = or_(*(named.contains(f" {row['payment']} ", autoescape=True) for row in rows))
            # Not one UPDATE: it would lock every waiting webhook that it looks at.
            found = (await self._session.scalars(select(WebhookRow.id).where(*is_waiting, names_one).limit(_MOST))).all()
            if found:
                await self._session.execute(update(WebhookRow).where(WebhookRow.id.in_(found), *is_waiting).values(next_attempt_at=now))
