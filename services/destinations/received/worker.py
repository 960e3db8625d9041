"""Works off received webhooks: each attempt is a row's, so that neither a restart nor an outage loses one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import grpc
import grpc.aio
import structlog
from google.protobuf.json_format import Parse
from google.protobuf.message import Message
from pmp.identity.v1 import identity_pb2
from pmp.purchases.v1 import purchases_pb2
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.outages import is_outage
from kit.people.keys.store import Keys
from kit.server import run_every
from kit.telemetry.gauges import Gauge
from kit.telemetry.names import AttributeName, Metric
from services.destinations.received.calls import Calls
from services.destinations.received.models import WebhookRow
from services.destinations.received.statement import Effect
from services.destinations.received.store import Outcome, State, Webhooks

PERSONAL_CONTEXT: Final = "received_webhooks.personal"
"""What the personal part of a webhook is sealed for."""

_DELAYS: Final = tuple(timedelta(seconds=seconds) for seconds in (5, 15, 60, 300, 600))
"""Between attempts; the last one again and again."""
_WAITS: Final = (*_DELAYS, timedelta(hours=1), timedelta(hours=6))
"""The same while the order or the person is not known."""
_MOST_IDLE_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 15.0
_REFUSED: Final = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS})
"""Another attempt would be answered the same."""

_log = structlog.get_logger(__name__)


class MetricName(Metric):
    """The metrics of webhooks alone."""

    RECEIVED = "pmp.webhooks.received", "{webhook}"
    BACKLOG = "pmp.webhooks.backlog", "{webhook}"
    BACKLOG_AGE = "pmp.webhooks.backlog.age", "s"


class Attribute(AttributeName):
    """Names of the attributes of these metrics."""

    SENDER = "pmp.webhook.sender"
    OUTCOME = "pmp.webhook.outcome"
    STATE = "pmp.webhook.state"


class Worker:
    """Applies what webhooks state.

    Args:
        sessions: of the database they are stored in.
        calls: of the services that they concern.
        keys: what is personal in them is sealed under.
        wait: how long they are kept for an order or a person that is not known.
    """

    def __init__(self, sessions: Sessions, calls: Calls, keys: Keys, wait: timedelta) -> None:
        self._sessions = sessions
        self._calls = calls
        self._keys = keys
        self._wait = wait
        self._woken = asyncio.Event()
        self._backlog = Gauge(MetricName.BACKLOG, "Received webhooks that are not done, by state.")
        self._age = Gauge(MetricName.BACKLOG_AGE, "Age of the oldest received webhook that is pending; 0 for none.")

    def wake(self) -> None:
        """A webhook was stored."""
        self._woken.set()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            self._woken.clear()
            try:
                while await self.work(datetime.now(UTC)):
                    pass
                idle = await self._idle_seconds(datetime.now(UTC))
            except Exception as error:  # noqa: BLE001 (whatever it is, the next attempt may succeed)
                _log.warning("webhooks not worked off", error=type(error).__name__, exc_info=not is_outage(error))
                idle = _DELAYS[0].total_seconds()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), idle)

    async def report(self) -> None:
        """Sets the gauges every 15 seconds, until cancelled."""
        await run_every(lambda: self.look(datetime.now(UTC)), _LOOK_SECONDS, "webhooks not counted")

    async def work(self, now: datetime) -> int:
        """Makes an attempt at each webhook that is due, of the oldest ones.

        Returns:
            Their number.
        """
        rows = await transact(self._sessions, lambda session: Webhooks(session).claim(now))
        await asyncio.gather(*(self._attempt(row, now) for row in rows))
        return len(rows)

    async def look(self, now: datetime) -> None:
        """Sets the gauges."""
        async with self._sessions.reading() as session:
            backlog = await Webhooks(session).backlog()
        for state in State:
            if state is not State.DONE:
                self._backlog.set(backlog.by_state.get(state, 0), {Attribute.STATE: state.value})
        self._age.set((now - backlog.oldest).total_seconds() if backlog.oldest else 0.0)

    async def _idle_seconds(self, now: datetime) -> float:
        async with self._sessions.reading() as session:
            due = await Webhooks(session).next_due()
        return min(_MOST_IDLE_SECONDS, max(0.0, (due - now).total_seconds())) if due else _MOST_IDLE_SECONDS

    async def _attempt(self, row: WebhookRow, now: datetime) -> None:
        outcome = await self._outcome(row)
        if outcome.state in {State.PENDING, State.WAITING} and now - row.received_at > self._wait:
            outcome = outcome._replace(state=State.EXPIRED)
        if outcome.state in {State.REFUSED, State.EXPIRED}:
            _log.warning("webhook given up", sender=row.sender, effect=row.effect, state=outcome.state.value, webhook=row.id)
        delays = _WAITS if outcome.state is State.WAITING else _DELAYS
        next_attempt_at = now + delays[min(row.attempts, len(delays)) - 1]

        async def finish(session: AsyncSession) -> None:
            await Webhooks(session).finish(row, outcome, next_attempt_at, now)

        await transact(self._sessions, finish)

    async def _outcome(self, row: WebhookRow) -> Outcome:
        """Applies a webhook."""
        order_id = row.order_id or ""
        try:
            if not order_id and row.effect in {Effect.STATUS, Effect.REFUND}:
                async with self._sessions.reading() as session:
                    order_id = await Webhooks(session).order_of(row.sender, row.payments.split())
                if not order_id:
                    return Outcome(State.WAITING, "no webhook has named the order of this payment")
            is_applied = await self._applied(row, order_id)
        except grpc.aio.AioRpcError as error:
            return _outcome_of(error, order_id)
        except Exception as error:  # noqa: BLE001 (whatever it is, the other webhooks go on)
            _log.warning(
                "webhook not applied", sender=row.sender, webhook=row.id, error=type(error).__name__, exc_info=not is_outage(error)
            )
            return Outcome(State.PENDING, type(error).__name__, order_id)
        return (
            Outcome(State.DONE, order_id=order_id) if is_applied else Outcome(State.WAITING, "purchases does not know the order", order_id)
        )

    async def _applied(self, row: WebhookRow, order_id: str) -> bool:
        content = row.request or b""
        match Effect(row.effect):
            case Effect.STATUS:
                return await self._calls.update_status(order_id, purchases_pb2.UpdatePaymentStatusRequest.FromString(content))
            case Effect.REFUND:
                return await self._calls.refund(order_id, purchases_pb2.RefundPurchaseRequest.FromString(content))
            case Effect.ORDER:
                request = purchases_pb2.TrackPurchaseRequest.FromString(content)
                await self._add_personal(request, row.personal)
                return await self._calls.track(request)
            case Effect.ORDER_DELETED:
                return await self._calls.delete(order_id, row.happened_at)
            case Effect.SUBSCRIPTION:
                kind, _, email_hash = (row.subject or "").partition(":")
                if kind == "email":  # else the person was erased meanwhile
                    change = identity_pb2.UpdateUserRequest.FromString(content)
                    await self._calls.change_subscriptions(bytes.fromhex(email_hash), change)
                return True

    async def _add_personal(self, request: Message, sealed: bytes | None) -> None:
        """Adds what is personal, unless the person was erased meanwhile."""
        decryptor = await self._keys.decryptor([sealed])
        if text := decryptor.open(sealed, context=PERSONAL_CONTEXT):
            request.MergeFrom(Parse(text, type(request)()))


def _outcome_of(error: grpc.aio.AioRpcError, order_id: str) -> Outcome:
    code = error.code()
    if code is grpc.StatusCode.NOT_FOUND:
        return Outcome(State.WAITING, "not known yet", order_id)
    if code in _REFUSED:
        return Outcome(State.REFUSED, f"{code.name}: {error.details()}", order_id)
    return Outcome(State.PENDING, code.name, order_id)
