"""Refunds that payment providers report, beside the shop's own. Pure.

A provider states the cumulative total of one payment. An order may have several payments: their totals add up. What the shop has
reported and what its providers have is the same money as far as it goes, so that the larger of the two counts. A refund may fail
days after it was made: then the money is back, whatever the shop's reports say of that refund.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from services.purchases.claims import Claim
from services.purchases.facts import State
from services.purchases.ledger import EntryKind
from services.purchases.money import NOTHING
from services.purchases.refunds import Change, Refunds
from services.purchases.statuses import Reason


class _Step(NamedTuple):
    """An increase of what was refunded of a payment, refunds that failed later included."""

    at: datetime
    payment: str
    reference: str
    amount: Decimal
    failed: bool = False
    """No total was stated with it: that the refund failed says that it was made."""


class _Failure(NamedTuple):
    """A refund that failed."""

    at: datetime
    reference: str
    amount: Decimal
    payment: str


def with_provider_refunds(claims: Sequence[Claim], shop: Sequence[Change], before: State) -> tuple[Refunds, bool]:
    """All refunds of an order.

    Args:
        claims: what payment providers claim of refunds.
        shop: the changes of the order's money by all other claims; those that change its amount are kept as they are.
        before: the state that follows from all other claims.

    Returns:
        The refunds, with the changes of `shop` that remain, and whether one has failed.
    """
    failures = _failures(claims)
    steps = _steps(claims, failures)
    made = _sum(steps)
    own, dropped = _without_failed(shop, failures, before.paid_amount - before.returned)
    known = before.returned + dropped
    own, beyond = _kept(own, steps, max(NOTHING, made - known))
    parts = list(_last(steps, beyond))
    unstated = {(part.payment, part.reference): part.amount for part in parts if part.failed}
    made_there = [Change(part.at, EntryKind.REFUND, returned=part.amount, reference=part.reference) for part in parts if not part.failed]
    taken_back = [
        Change(
            each.at,
            EntryKind.CORRECTION,
            returned=unstated.get((each.payment, each.reference), NOTHING) - each.amount,
            reason=Reason.REFUND_FAILED,
        )
        for each in failures
    ]
    dated = [
        change._replace(at=change.at if before.sold_at is None else max(change.at, before.sold_at)) for change in (*made_there, *taken_back)
    ]
    return Refunds(max(known, made) - _sum(failures), [*own, *dated]), bool(failures)


def _failures(claims: Iterable[Claim]) -> Sequence[_Failure]:
    found: dict[tuple[str, str], _Failure] = {}
    for claim in claims:
        if claim.deleted:
            failure = _Failure(_at(claim), claim.reference, claim.amount or NOTHING, claim.payment)
            known = found.setdefault((claim.payment, claim.reference), failure)
            found[claim.payment, claim.reference] = known._replace(at=min(known.at, failure.at), amount=max(known.amount, failure.amount))
    return sorted(found.values())


def _steps(claims: Iterable[Claim], failures: Iterable[_Failure]) -> Sequence[_Step]:
    """The increases of what was refunded, by date. A total of which the payment is not known may be of any of them."""
    payments: dict[str, list[Claim | _Failure]] = defaultdict(list)
    for each in (*(claim for claim in claims if not claim.deleted), *failures):
        payments[each.payment].append(each)
    unnamed = sorted(_steps_of("", payments.pop("", [])))
    named = [step for payment in payments.items() for step in _steps_of(*payment)]
    return sorted([*named, *_last(unnamed, _sum(unnamed) - _sum(named))])


def _steps_of(name: str, payment: Iterable[Claim | _Failure]) -> Iterator[_Step]:
    """The increases of a payment: a total that is stated after a failure is without the refund that failed."""
    made = failed = NOTHING
    totals = [(_at(each), False, each.refunded_total or NOTHING, each.reference) for each in payment if isinstance(each, Claim)]
    failures = [(each.at, True, each.amount, each.reference) for each in payment if isinstance(each, _Failure)]
    for at, is_failure, amount, reference in sorted([*totals, *failures]):
        failed += amount if is_failure else NOTHING
        stated = failed if is_failure else amount + failed
        if stated > made:
            yield _Step(at, name, reference, stated - made, is_failure)
            made = stated


def _without_failed(shop: Iterable[Change], failures: Iterable[_Failure], most: Decimal) -> tuple[Sequence[Change], Decimal]:
    """The shop's changes without deletions of refunds that failed, which the failures take back, and what those amount to.

    Args:
        shop: the changes.
        failures: the failures.
        most: what they may amount to: no more is refunded than was paid.
    """
    left, dropped = list(shop), NOTHING
    for failure in failures:
        same = [change for change in left if NOTHING > change.returned == -failure.amount]
        if same and dropped + failure.amount <= most:
            left.remove(min(same, key=lambda change, at=failure.at: (abs(change.at - at), change.at)))
            dropped += failure.amount
    return left, dropped


def _kept(shop: Iterable[Change], steps: Sequence[_Step], excess: Decimal) -> tuple[Sequence[Change], Decimal]:
    """The shop's changes, without deletions of refunds that its provider has made nevertheless.

    Returns:
        The changes, and what is left of the excess of the provider's refunds over the shop's.
    """
    kept: list[Change] = []
    returned = NOTHING
    for change in sorted(shop, key=lambda each: each.at):
        made = _sum(step for step in steps if step.at <= change.at)
        void = max(NOTHING, min(excess, -change.returned, made - returned - change.returned))
        excess -= void
        returned += change.returned + void
        kept.append(change._replace(returned=change.returned + void))
    return kept, excess


def _last(steps: Sequence[_Step], amount: Decimal) -> Iterator[_Step]:
    """The parts of these steps, by date, that are beyond all but the last amount."""
    made, start = NOTHING, _sum(steps) - max(NOTHING, amount)
    for step in steps:
        made += step.amount
        if (part := min(step.amount, made - start)) > NOTHING:
            yield step._replace(amount=part)


def _sum(amounts: Iterable[_Step | _Failure]) -> Decimal:
    return sum((each.amount for each in amounts), NOTHING)


def _at(claim: Claim) -> datetime:
    return claim.at or claim.read_at
