"""The refunds of an order, with their dates: by each source's newest total, and by the refunds that have a reference. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import chain
from typing import NamedTuple

from services.purchases.claims import Claim, ReportKind
from services.purchases.facts import State, facts_of, refunded_beyond
from services.purchases.ledger import EntryKind
from services.purchases.money import NOTHING
from services.purchases.statuses import Reason, Status


class Change(NamedTuple):
    """A dated change of an order's money."""

    at: datetime
    kind: EntryKind
    paid: Decimal = NOTHING
    """The increase of the order's amount."""
    returned: Decimal = NOTHING
    """The increase of the amount that went back."""
    reference: str = ""
    reason: Reason | None = None


class _Total(NamedTuple):
    """The cumulative refunded total at a time, as a source read it then."""

    at: datetime
    after_deletion: bool
    total: Decimal


@dataclass(slots=True)
class _Refund:
    """A refund under one reference."""

    at: datetime | None = None
    read_at: datetime | None = None
    amount: Decimal = NOTHING
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Refunds:
    """The refunds of an order."""

    due: Decimal
    """The refunded amount, even if it exceeds what was paid."""
    changes: Sequence[Change] = field(default_factory=list[Change])


def refunds_of(claims: Sequence[Claim], current: Sequence[Claim], before: State, newest: Claim | None = None) -> Refunds:
    """The refunds that follow from an order's claims.

    Args:
        claims: all claims.
        current: the claims of undated reports that no dated report has replaced.
        before: the state without refunds.
        newest: the newest dated report of the order.
    """
    sold_at, facts = before.sold_at, facts_of(current)
    refund_claims = [claim for claim in claims if claim.kind is ReportKind.REFUND]
    sources = {claim.source for claim in claims if claim.can_reverse}
    refunds = _by_reference(claim for claim in refund_claims if claim.source in sources)
    totals = [_Total(c.read_at, c.deleted, c.refunded_total) for c in claims if c.can_reverse and c.refunded_total is not None]
    base = max(totals, default=None)
    valid = [refund for refund in refunds.values() if refund.at and not refund.deleted_at]
    own = referenced = sum((refund.amount for refund in valid), NOTHING)
    if base is not None:
        own = base.total + sum((each.amount for each in valid if each.read_at and each.read_at > base.at), NOTHING)
    others = facts_of(claim for claim in refund_claims if claim.source not in sources).refunds
    later = {reference: each for reference, each in others.items() if base is None or (each.at and each.at > base.at)}
    due = max(own + refunded_beyond(own, later.values()), facts.refunded_total if base is None else NOTHING)
    changes = list(chain.from_iterable(_changes(reference, refund, sold_at) for reference, refund in refunds.items()))
    if base is not None and own != referenced:
        changes.append(_remainder(base.at, own - referenced, sold_at))
    if due != own:
        at, reference = max(((each.at, reference) for reference, each in later.items() if each.at), default=(_latest(claims), ""))
        changes.append(_remainder(at, due - own, sold_at, reference))
    paid, whole = before.paid_amount, _returning_everything(current, newest)
    if whole is not None and before.is_paid and paid > due:
        charged_back = facts.charged_back or (newest is not None and newest.status is Status.CHARGED_BACK)
        kind = EntryKind.CHARGEBACK if charged_back else EntryKind.REFUND
        changes.append(Change(_not_before(sold_at, whole.read_at), kind, returned=paid - due, reference=whole.reference))
        due = paid
    return Refunds(due, changes)


def _by_reference(claims: Iterable[Claim]) -> Mapping[str, _Refund]:
    """Refunds as last read by their source; of undated reports, the largest amount. A deleted refund remains deleted."""
    refunds: dict[str, _Refund] = {}
    for claim in sorted(claims, key=lambda claim: (claim.reported_at is not None, claim.version)):
        refund, at = refunds.setdefault(claim.reference, _Refund()), claim.at or claim.read_at
        if claim.deleted:
            refund.deleted_at = min(at, refund.deleted_at or at)
            continue
        amount, dated = claim.amount or NOTHING, claim.reported_at is not None
        refund.amount = amount if dated else max(amount, refund.amount)
        refund.at = min(at, refund.at or at)
        refund.read_at = claim.read_at if dated else refund.at
    return refunds


def _returning_everything(current: Iterable[Claim], newest: Claim | None) -> Claim | None:
    """The claim by which all of the money went back; None where there is none."""
    if newest is not None and newest.returns_everything:
        return newest
    claims = (claim for claim in current if claim.kind is not ReportKind.REFUND and claim.returns_everything)
    return min(claims, key=lambda claim: claim.version, default=None)


def _latest(claims: Iterable[Claim]) -> datetime:
    return max(claim.read_at for claim in claims)


def _changes(reference: str, refund: _Refund, sold_at: datetime | None) -> Iterator[Change]:
    if refund.at is None:
        return
    at = _not_before(sold_at, refund.at)
    yield Change(at, EntryKind.REFUND, returned=refund.amount, reference=reference)
    if refund.deleted_at is not None:
        yield Change(max(at, refund.deleted_at), EntryKind.CORRECTION, returned=-refund.amount, reason=Reason.REFUND_DELETED)


def _remainder(at: datetime, returned: Decimal, sold_at: datetime | None, reference: str = "") -> Change:
    """The difference between a total and the refunds that have a reference."""
    at = _not_before(sold_at, at)
    if returned < NOTHING:
        return Change(at, EntryKind.CORRECTION, returned=returned, reason=Reason.REFUND_DELETED)
    return Change(at, EntryKind.REFUND, returned=returned, reference=reference)


def _not_before(sold_at: datetime | None, at: datetime) -> datetime:
    """No money goes back before the sale."""
    return at if sold_at is None else max(at, sold_at)
