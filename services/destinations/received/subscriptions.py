"""What e-mail tools state about subscriptions. Pure."""

from __future__ import annotations

from datetime import datetime

from pmp.identity.v1 import identity_pb2

from kit.times import timestamp
from services.destinations.received.statement import Effect, Statement


def subscription(event_id: str, kind: str, at: datetime, list_name: str, email: str, *, subscribed: bool) -> Statement:
    """The statement that an address is, or is no more, subscribed to a list.

    Args:
        event_id: the sender's id of it.
        kind: its type, in the sender's words.
        at: when it changed.
        list_name: the list, with its sender: `mailchimp:a6b5da1054`.
        email: the address.
        subscribed: whether it is subscribed now.
    """
    change = identity_pb2.EmailSubscription(list=list_name, subscribed=subscribed, changed_at=timestamp(at))
    request = identity_pb2.UpdateUserRequest(user=identity_pb2.UserUpdate(email_subscriptions=[change], updated_at=timestamp(at)))
    return Statement(event_id, kind, event_id, at, Effect.SUBSCRIPTION, request, email=email)
