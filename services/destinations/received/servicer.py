"""The rpcs of webhooks: what is answered is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from google.protobuf.json_format import MessageToJson
from pmp.destinations.v1 import webhooks_pb2 as pb
from pmp.destinations.v1.webhooks_pb2_grpc import WebhooksServiceServicer
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from kit.boundary.caller import Context, bind_log_fields
from kit.database.transactions import Sessions, transact
from kit.errors import InvalidRequest, NotFound, Unauthenticated, Violation
from kit.people.identifiers import identifier_of
from kit.people.keys.seals import Seal
from kit.people.keys.store import Keys
from kit.telemetry.state import meter
from services.destinations.received.sender import Sender
from services.destinations.received.statement import Effect, Nothing, Statement, Unreadable, order_number
from services.destinations.received.store import Webhook, Webhooks
from services.destinations.received.worker import PERSONAL_CONTEXT, Attribute, MetricName, Worker

_STORED: Final = "stored"
_DUPLICATE: Final = "duplicate"
_IGNORED: Final = "ignored"
_TEST: Final = "test"
_UNREADABLE: Final = "unreadable"
_WRONG_SIGNATURE: Final = "wrong_signature"


class WebhooksServicer(WebhooksServiceServicer):
    """Takes webhooks.

    Args:
        sessions: of the database they are stored in.
        keys: what is personal in them is sealed under.
        senders: the systems that send them, by name.
        worker: works them off.
    """

    def __init__(self, sessions: Sessions, keys: Keys, senders: Mapping[str, Sender], worker: Worker) -> None:
        self._sessions = sessions
        self._keys = keys
        self._senders = senders
        self._worker = worker
        self._received = meter().create_counter(
            MetricName.RECEIVED, MetricName.RECEIVED.unit, "Webhooks that arrived, by sender and outcome."
        )

    @override
    async def ReceiveWebhook(self, request: pb.ReceiveWebhookRequest, context: Context) -> pb.ReceiveWebhookResponse:
        sender, body, now = self._sender(request.sender), request.body.data, datetime.now(UTC)
        headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        if sender.is_test_call(headers, body):
            self._count(request.sender, _TEST)
            return pb.ReceiveWebhookResponse(success=True, ignored=True)
        try:
            await sender.verify(headers, body, now)
            stated = sender.read(headers, body, now)
        except Unauthenticated:
            self._count(request.sender, _WRONG_SIGNATURE)
            raise
        except Unreadable as error:
            self._count(request.sender, _UNREADABLE)
            raise InvalidRequest([Violation("body", str(error))]) from None
        statements = [] if isinstance(stated, Nothing) else [stated] if isinstance(stated, Statement) else stated
        webhooks = await self._webhooks(request.sender, statements)
        if not webhooks:
            self._count(request.sender, _IGNORED)
            return pb.ReceiveWebhookResponse(success=True, ignored=True)
        is_new = await self._store(webhooks, now)
        self._count(request.sender, _STORED if is_new else _DUPLICATE)
        return pb.ReceiveWebhookResponse(success=True, duplicate=not is_new)

    @override
    async def CheckWebhook(self, request: pb.CheckWebhookRequest, context: Context) -> pb.CheckWebhookResponse:
        self._sender(request.sender)
        return pb.CheckWebhookResponse(success=True)

    def _sender(self, name: str) -> Sender:
        sender = self._senders.get(name)
        if sender is None:
            raise NotFound("there is no such sender of webhooks")
        if not sender.is_configured:
            raise NotFound(f"webhooks of {name} are not set up: the settings PMP_WEBHOOKS_{name.upper()}_... are empty")
        return sender

    async def _store(self, webhooks: Sequence[Webhook], now: datetime) -> bool:
        """Stores what a webhook states; returns whether any of it is new."""

        async def work(session: AsyncSession) -> bool:
            return any([await Webhooks(session).add(each, now) for each in webhooks])  # adds all

        is_new = await transact(self._sessions, work)
        self._worker.wake()
        return is_new

    async def _webhooks(self, sender: str, statements: Sequence[Statement]) -> Sequence[Webhook]:
        """What is stored of statements: what is personal is sealed under the keys of its persons."""
        subjects = [self._subject(each) for each in statements]
        seals = await self._keys.seals({*subjects} - {""})
        found = [_webhook(sender, each, subject, seals.get(subject)) for each, subject in zip(statements, subjects, strict=True)]
        return [each for each in found if each is not None]

    def _subject(self, statement: Statement) -> str:
        email_hash = self._keys.hasher.fingerprint(statement.email) if statement.email else b""
        return identifier_of(user_id=statement.user_id, email_hash=email_hash)

    def _count(self, sender: str, outcome: str) -> None:
        bind_log_fields(sender=sender, outcome=outcome)
        self._received.add(1, {Attribute.SENDER: sender, Attribute.OUTCOME: outcome})


def _webhook(sender: str, statement: Statement, subject: str, seal: Seal | None) -> Webhook | None:
    """What is stored of a statement.

    Of an erased person's order only the sale is left, and of what else it is about nothing: None.
    """
    request, text = statement.request, MessageToJson(statement.personal, indent=None) if statement.personal else "{}"
    personal = seal.seal(text, context=PERSONAL_CONTEXT) if seal else b""
    if subject and not personal:
        if statement.effect is Effect.SUBSCRIPTION:
            return None
        subject = ""
    elif statement.personal is not None and not subject:
        request.MergeFrom(statement.personal)  # of nobody
    return Webhook(
        sender=sender,
        event_id=statement.event_id,
        fact=statement.fact,
        kind=statement.kind[:100],
        effect=statement.effect,
        order_id=order_number(statement.order_id),
        payments=statement.payments,
        request=request.SerializeToString(deterministic=True),
        personal=personal,
        subject=subject,
        happened_at=statement.at,
    )
