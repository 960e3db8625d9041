"""The kind `wordpress`: each delivery states all that the mesh knows of a person at the moment it is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from http import HTTPStatus
from typing import Any, Final

import httpx
import orjson
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.analytics.v1.analytics_pb2 import GetFirstSourceResponse
from pmp.gdpr.v1.change_pb2 import ConsentChanged, GdprChanged
from pmp.identity.v1.change_pb2 import IdentityChanged
from typing_extensions import override

from kit.credentials.signing import SigningSecrets
from kit.people.identifiers import identifier_of
from kit.people.privacy import PURPOSES, Consent, Purpose
from services.destinations.answers import retry_after
from services.destinations.kind import Destination, Erasure, Message, Outcome, Outgoing, Result, Wanted
from services.destinations.wordpress.options import WordPressOptions
from services.destinations.wordpress.payload import CHANGED, ERASED, TEST, user_changed

USER: Final = "user"
"""Name of the delivery that follows from a changed user."""
LINK: Final = "link"
"""Name of the delivery that follows from the link of a visitor with a user, whose choices are the user's from then on."""
MERGE: Final = "merge"
"""Name of the delivery that follows from a merge, by which the choices of one user are the other's as well."""
CONSENT: Final = "consent"
"""Name of the delivery that follows from a choice."""

_VISITOR: Final = ("session:", "anonymous:")
_ACCOUNT: Final = "wordpress:"
_NO_ACCOUNT: Final = 2**63
"""From here on a user id in digits is no account's: clients may report any text."""
_REJECTED: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})


class WordPress(Destination[WordPressOptions]):
    """The shop's own site. It holds people's data already, so that no consent is needed; it receives the choices themselves."""

    options_type = WordPressOptions
    consent: Purpose | None = None
    needs_profile = True
    needs_first_source = True
    settles = timedelta(seconds=2)
    most_requests = 2
    """The shop's visitors need its processes, too."""

    @override
    def wanted(self, message: Message) -> Iterable[Wanted]:
        match message:
            case IdentityChanged():
                return _of_identity(message)
            case GdprChanged():
                return _of_consent(message.consent)
            case _:
                return ()

    @override
    async def send(self, deliveries: Sequence[Outgoing]) -> Sequence[Result]:
        (delivery,) = deliveries
        user, consent = delivery.profile, delivery.consent
        if user is None or not user.wordpress_id:
            return [Result(Outcome.WITHHELD, "the person has no account")]
        source = delivery.first_source or GetFirstSourceResponse()
        if delivery.wanted.name == LINK and not _changes(delivery.message, source, consent):
            return [Result(Outcome.DELIVERED, "the visitor made no choice, and the session is not the person's first")]
        return [await self._call(delivery.id, CHANGED, user_changed(user, source, consent))]

    @override
    async def test(self) -> Result:
        return await self._call(f"test_{int(datetime.now(UTC).timestamp())}", TEST, {})

    @override
    async def erase(self, person: Erasure) -> Result | None:
        ids = (int(each.removeprefix(_ACCOUNT)) for each in person.identifiers if each.startswith(_ACCOUNT))
        accounts = sorted(each for each in ids if 0 < each < _NO_ACCOUNT)
        if not accounts:
            return Result(Outcome.WITHHELD)
        id_ = blake2b(orjson.dumps(accounts), digest_size=16).hexdigest()
        return await self._call(f"erase_{id_}", ERASED, {"wordpress_ids": accounts})

    @override
    def is_repeatable(self, wanted: Wanted) -> bool:
        return True

    async def _call(self, id_: str, type_: str, data: Mapping[str, Any]) -> Result:
        now = datetime.now(UTC)
        body = orjson.dumps({"type": type_, "timestamp": now.isoformat(), "data": data})
        headers = {
            "content-type": "application/json",
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": SigningSecrets(self.options.secret.get_secret_value()).signature(id_, now, body),
        }
        return _result(await self.http.post(str(self.options.url), content=body, headers=headers), now)


def _of_identity(change: IdentityChanged) -> Iterable[Wanted]:
    user, link, merge = change.user, change.alias, change.merge
    if user.wordpress_id or user.email_hash:
        at = user.updated_at if user.HasField("updated_at") else user.created_at
        account = identifier_of(user_id=str(user.wordpress_id or "")) or identifier_of(user_id=user.user_id)
        # What the mesh derives of imported history is as new to the site as anything else.
        return [Wanted(USER, "", _moment(at), account, needs_consent=False, is_state=True, is_historical=False)]
    if link.subject.startswith(_VISITOR) and not link.withdrawn:
        return [Wanted(LINK, "", _moment(link.linked_at), identifier_of(user_id=link.user_id), needs_consent=False)]
    if merge.user_id:
        return [Wanted(MERGE, "", _moment(merge.merged_at), identifier_of(user_id=merge.user_id), needs_consent=False)]
    return ()


def _changes(linked: Message, source: GetFirstSourceResponse, consent: Consent) -> bool:
    """Whether the link of a visitor may change what is known of a person: by its choices, or because its session was the first."""
    is_first = isinstance(linked, IdentityChanged) and bool(source.session) and source.session == linked.alias.subject
    return is_first or any(getattr(consent, purpose) is not None for purpose in PURPOSES)


def _of_consent(change: ConsentChanged) -> Iterable[Wanted]:
    made = [getattr(change, purpose).decided_at for purpose in PURPOSES if change.HasField(purpose)]
    return [Wanted(CONSENT, "", max(map(_moment, made)), change.subject, needs_consent=False)] if made else ()


def _moment(at: Timestamp) -> datetime:
    return at.ToDatetime(UTC)


def _result(answer: httpx.Response, now: datetime) -> Result:
    status = answer.status_code
    detail = f"HTTP {status}"
    if answer.is_success:
        return Result(Outcome.DELIVERED, detail) if _accepts(answer.content) else Result(Outcome.RETRY, f"{detail}, but not by the plugin")
    if status == HTTPStatus.GONE:
        return Result(Outcome.WITHHELD, "the site has no such account")
    if status == HTTPStatus.UNAUTHORIZED:
        return Result(Outcome.UNAUTHORIZED, f"{detail}: the plugin has another secret, or another time")
    if status == HTTPStatus.NOT_FOUND:
        return Result(Outcome.RETRY, f"{detail}: the plugin is not active, or older")
    if status in _REJECTED:
        return Result(Outcome.REJECTED, detail)
    return Result(Outcome.RETRY, detail, retry_after(answer.headers, now))


def _accepts(body: bytes) -> bool:
    """Whether an answer is the plugin's: a page of another plugin may come with status 200 as well."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(answer, dict) and answer.get("success") is True


KIND = WordPress
