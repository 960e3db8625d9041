"""What was paid back of an order, and when: by each source's newest total, and by the refunds that are known by their references. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import chain
from typing import NamedTuple

from services.purchases.ledger import EntryKind
from services.purchases.money import NOTHING
from services.purchases.rules import Claim, NoticeKind, Reason, State, Status, facts_of, on_top, takes_all


class Change(NamedTuple):
    """What happened to an order's money at a time."""

    at: datetime
    kind: EntryKind
    paid: Decimal = NOTHING
    """What the order is worth more than before."""
    back: Decimal = NOTHING
    """What was paid back more than before."""
    reference: str = ""
    reason: Reason | None = None


class _Total(NamedTuple):
    """All that was paid back by a time, as a source read it then."""

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
class Back:
    """What was paid back."""

    due: Decimal
    changes: Sequence[Change] = field(default_factory=list[Change])


def back_of(claims: Sequence[Claim], said: Sequence[Claim], known: State, lead: Claim | None = None) -> Back:
    """What was paid back, by date.

    Args:
        claims: all that was told.
        said: what of it was told without a report, and is not replaced by one.
        known: the state but for this.
        lead: the newest report.
    """
    sold_at, facts = known.sold_at, facts_of(said)
    told = [claim for claim in claims if claim.kind is NoticeKind.REFUND]
    sources = {claim.source for claim in claims if claim.takes_back}
    refunds = _refunds(claim for claim in told if claim.source in sources)
    totals = [_Total(c.read_at, c.deleted, c.refunded_total) for c in claims if c.takes_back and c.refunded_total is not None]
    base = max(totals, default=None)
    alive = [refund for refund in refunds.values() if refund.at and not refund.deleted_at]
    own = named = sum((refund.amount for refund in alive), NOTHING)
    if base is not None:
        own = base.total + sum((each.amount for each in alive if each.read_at and each.read_at > base.at), NOTHING)
    others = facts_of(claim for claim in told if claim.source not in sources).refunds
    later = {reference: each for reference, each in others.items() if base is None or (each.at and each.at > base.at)}
    due = max(own + on_top(later.values(), own), facts.refunded_total if base is None else NOTHING)
    whole, taken = _taken(said, lead), facts.charged_back or (lead is not None and lead.status is Status.CHARGED_BACK)
    changes = list(chain.from_iterable(_told(reference, refund, sold_at) for reference, refund in refunds.items()))
    if base is not None and own != named:
        changes.append(_rest(base.at, own - named, sold_at))
    if due != own:
        at, reference = max(((each.at, reference) for reference, each in later.items() if each.at), default=(_latest(claims), ""))
        changes.append(_rest(at, due - own, sold_at, reference))
    paid = known.paid_amount
    if whole is not None and known.is_paid and paid > due:
        kind = EntryKind.CHARGEBACK if taken else EntryKind.REFUND
        changes.append(Change(_not_before(whole.read_at, sold_at), kind, back=paid - due, reference=whole.reference))
        due = paid
    return Back(due, changes)


def _refunds(claims: Iterable[Claim]) -> Mapping[str, _Refund]:
    """Refunds as they were read last; of what nobody dated, the largest. One that was deleted stays so."""
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


def _taken(said: Iterable[Claim], lead: Claim | None) -> Claim | None:
    """What says that all of it went back; None where nothing does."""
    if lead is not None and takes_all(lead):
        return lead
    whole = (claim for claim in said if claim.kind is not NoticeKind.REFUND and takes_all(claim))
    return min(whole, key=lambda claim: claim.version, default=None)


def _latest(claims: Iterable[Claim]) -> datetime:
    return max(claim.read_at for claim in claims)


def _told(reference: str, refund: _Refund, sold_at: datetime | None) -> Iterator[Change]:
    if refund.at is None:
        return
    at = _not_before(refund.at, sold_at)
    yield Change(at, EntryKind.REFUND, back=refund.amount, reference=reference)
    if refund.deleted_at is not None:
        yield Change(max(at, refund.deleted_at), EntryKind.CORRECTION, back=-refund.amount, reason=Reason.REFUND_DELETED)


def _rest(at: datetime, back: Decimal, sold_at: datetime | None, reference: str = "") -> Change:
    """What a total says beyond the refunds that are known by their references, or short of them."""
    when = _not_before(at, sold_at)
    if back < NOTHING:
        return Change(when, EntryKind.CORRECTION, back=back, reason=Reason.REFUND_DELETED)
    return Change(when, EntryKind.REFUND, back=back, reference=reference)


def _not_before(at: datetime, sold_at: datetime | None) -> datetime:
    """Nothing goes back before it came."""
    return at if sold_at is None else max(at, sold_at)
