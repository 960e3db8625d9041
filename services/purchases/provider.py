"""What a payment provider states of an order's refunds and chargebacks: money that it moved itself. Pure.

A shop may not know of a refund that was made in the provider's dashboard, or of a chargeback: its own reports, however new, don't
contradict the provider. A chargeback is none of the refunds, and counts in addition to them until its funds are returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from services.purchases.claims import Claim, ReportKind
from services.purchases.facts import State
from services.purchases.ledger import EntryKind
from services.purchases.money import NOTHING
from services.purchases.provider_refunds import with_provider_refunds
from services.purchases.refunds import Change
from services.purchases.statuses import Reason, Status

BY_PROVIDER: Final = frozenset({ReportKind.PROVIDER_REFUND, ReportKind.CHARGEBACK})
"""Kinds of reports that no report of the shop replaces."""
_REFUNDED: Final = frozenset({Status.REFUNDED, Status.PARTIALLY_REFUNDED})


class Returns(NamedTuple):
    """An order with what its payment provider has returned."""

    state: State
    changes: Sequence[Change]
    """All changes of the order's money."""


@dataclass(slots=True)
class _Chargeback:
    """A chargeback under one reference."""

    source: str
    payment: str = ""
    at: datetime | None = None
    amount: Decimal | None = None
    """None for all that was paid."""
    reinstated_at: datetime | None = None

    def reinstate(self, at: datetime) -> None:
        """Its funds were returned."""
        self.reinstated_at = min(at, self.reinstated_at or at)

    def is_ended_by(self, claim: Claim, at: datetime) -> bool:
        """True if a claim that names the payment alone ends it: it may be one of several, and a later one is another dispute's."""
        is_of_payment = claim.source == self.source and self.payment in {"", claim.payment}
        return bool(claim.payment) and is_of_payment and self.at is not None and self.at <= at


def returned_by_provider(claims: Sequence[Claim], before: State, changes: Sequence[Change]) -> Returns:
    """What follows from the claims of payment providers.

    Args:
        claims: those of the kinds `BY_PROVIDER`.
        before: the state that follows from all other claims.
        changes: the changes that do.
    """
    refunds, has_failed = with_provider_refunds([each for each in claims if each.kind is ReportKind.PROVIDER_REFUND], changes, before)
    chargebacks = _chargebacks(claims)
    open_amount = sum((_amount(each, before) for each in chargebacks.values() if each.at and each.reinstated_at is None), NOTHING)
    returned = max(NOTHING, refunds.due + open_amount)
    paid = before.paid_amount if before.is_paid else NOTHING
    known = replace(before, status=Status.COMPLETED) if has_failed and before.status in _REFUNDED else before
    state = replace(
        before,
        status=_status(known, paid, min(paid, returned), charged_back=open_amount > NOTHING),
        refunded_amount=min(paid, returned),
        returned=returned,
        disputed=before.disputed or (before.is_paid and returned > paid),
    )
    return Returns(state, [*refunds.changes, *(change for each in chargebacks.items() for change in _changes(*each, before))])


def _chargebacks(claims: Iterable[Claim]) -> dict[str, _Chargeback]:
    """Chargebacks by reference. One whose funds were returned stays returned, in whatever order the two are reported."""
    found: dict[str, _Chargeback] = {}
    # False comes first: what was returned is looked for among all chargebacks.
    for claim in sorted((claim for claim in claims if claim.kind is ReportKind.CHARGEBACK), key=lambda each: (each.deleted, each.version)):
        chargeback, at = found.setdefault(claim.reference, _Chargeback(claim.source)), claim.at or claim.read_at
        if claim.deleted:
            for each in (chargeback, *(other for other in found.values() if other.is_ended_by(claim, at))):
                each.reinstate(at)
        else:
            chargeback.at, chargeback.amount = min(at, chargeback.at or at), claim.amount
            chargeback.payment = claim.payment
    return found


def _changes(reference: str, chargeback: _Chargeback, before: State) -> Iterator[Change]:
    if chargeback.at is None:
        return
    at, amount = max(filter(None, (chargeback.at, before.sold_at))), _amount(chargeback, before)
    yield Change(at, EntryKind.CHARGEBACK, returned=amount, reference=reference)
    if chargeback.reinstated_at is not None:
        yield Change(max(at, chargeback.reinstated_at), EntryKind.CORRECTION, returned=-amount, reason=Reason.REINSTATED)


def _amount(chargeback: _Chargeback, before: State) -> Decimal:
    return before.paid_amount if chargeback.amount is None else chargeback.amount


def _status(before: State, paid: Decimal, refunded: Decimal, *, charged_back: bool) -> Status:
    if not before.is_paid or before.status is Status.CHARGED_BACK:
        return before.status
    if charged_back:
        return Status.CHARGED_BACK
    if NOTHING < paid <= refunded:
        return Status.REFUNDED
    return Status.PARTIALLY_REFUNDED if refunded and before.status is Status.COMPLETED else before.status
