"""What a call states of a person: the derived values, the profile as the mesh has it, and the choices in force. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pmp.analytics.v1.analytics_pb2 import GetFirstSourceResponse
from pmp.identity.v1.identity_pb2 import User

from kit.people.privacy import PURPOSES, Choice, Consent
from kit.times import timestamp
from services.destinations.wordpress.fields import FIELDS, Owner

CHANGED: Final = "user.changed"
ERASED: Final = "user.erased"
TEST: Final = "site.test"


def user_changed(user: User, source: GetFirstSourceResponse, consent: Consent) -> Mapping[str, Any]:
    """Returns the data of a call about a person with a WordPress account. All times are in microseconds since 1970.

    `version` orders calls: of two calls about one person, the one with the lower version has the older values. Choices have times of
    their own.
    """
    chosen: dict[str, Choice | None] = {purpose: getattr(consent, purpose) for purpose in PURPOSES}
    return {
        "wordpress_id": user.wordpress_id,
        "version": user.updated_at.ToMicroseconds(),
        "derived": {
            field.name: getattr(source, field.first) if field.first else field.read(user) for field in FIELDS if field.owner is Owner.MESH
        },
        "profile": {
            field.name: {"value": field.read(user), "written_at": user.written_at[field.written].ToMicroseconds()}
            for field in FIELDS
            if field.owner is Owner.WORDPRESS and field.written in user.written_at
        },
        "consent": {
            purpose: {"granted": choice.granted, "decided_at": timestamp(choice.decided_at).ToMicroseconds()}
            for purpose, choice in chosen.items()
            if choice is not None
        },
    }
