"""Facts about an order's money, and the order's state that follows from them: pure decisions.

An order has several sources (the plugin, a page, a payment webhook), and each of them reports late, repeatedly and in any
order. So reports do not move an order from state to state: they add to a set of facts, from which its state follows. Adding
facts is commutative and idempotent, with one exception that is intended: of several paid reports with different amounts the
first to arrive counts, and the order is marked as disputed. Only dated reports take something back (`reconciliation.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from services.purchases.claims import Claim, ReportKind
from services.purchases.money import NOTHING
from services.purchases.statuses import PAID, Status


@dataclass(frozen=True, slots=True)
class ReportedRefund:
    """A refund as reported under one reference."""

    amount: Decimal
    total: Decimal | None
    """The order's cumulative refunded total, this refund included; None when not reported."""
    at: datetime | None = None
    """The earliest time that was reported for it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was reported of an order's money."""

    amount: Decimal = NOTHING
    currency: str = ""
    fixed: bool = False
    """A paid report had the amount: no other report changes it."""
    paid: bool = False
    paid_at: datetime | None = None
    """The earliest time that was reported."""
    failed: bool = False
    failed_at: datetime | None = None
    """The latest time at which a payment provider reported a failure."""
    refunded_whole: bool = False
    charged_back: bool = False
    returned_at: datetime | None = None
    """The earliest time at which all of the money was reported to have gone back: an earlier one is a new fact, which dates an entry."""
    conflicting: bool = False
    """A paid report had another amount than the one that counts."""
    refunded_total: Decimal = NOTHING
    """The largest that was reported."""
    refunds: Mapping[str, ReportedRefund] = field(default_factory=dict[str, ReportedRefund])

    def adding(self, claim: Claim) -> Facts:
        """These facts and what a claim adds to them."""
        facts = self._with_amount(claim) if claim.kind is ReportKind.PURCHASE else self
        total = claim.refunded_total
        if claim.currency != facts.currency:
            total = None  # an amount in another currency is no total of this order
        if claim.kind is ReportKind.REFUND:
            facts = replace(facts, refunds={**facts.refunds, claim.reference: _merged(facts.refunds.get(claim.reference), claim)})
        return replace(
            facts,
            paid=facts.paid or claim.status in PAID,
            paid_at=min(filter(None, (facts.paid_at, claim.at if _dates_payment(claim) else None)), default=None),
            failed=facts.failed or claim.status is Status.FAILED,
            failed_at=max(filter(None, (facts.failed_at, claim.at if _dates_failure(claim) else None)), default=None),
            refunded_whole=facts.refunded_whole or (claim.status is Status.REFUNDED and not claim.refunded_total),
            returned_at=min(filter(None, (facts.returned_at, claim.at if claim.returns_everything else None)), default=None),
            charged_back=facts.charged_back or claim.status is Status.CHARGED_BACK,
            refunded_total=max(facts.refunded_total, total or NOTHING),
        )

    def _with_amount(self, claim: Claim) -> Facts:
        """These facts with the order's amount: the newest reported one until the order is paid, then that of the first paid report."""
        amount = claim.amount or NOTHING
        if claim.status in PAID:
            if self.fixed or (self.paid and claim.currency != self.currency):
                differs = (amount, claim.currency) != (self.amount, self.currency)
                return replace(self, conflicting=self.conflicting or differs)
            return replace(self, amount=amount, currency=claim.currency, fixed=True)
        return self if self.paid else replace(self, amount=amount, currency=claim.currency)

    @property
    def refunds_due(self) -> Decimal:
        """The refunded amount according to all reports, even if it exceeds what was paid.

        A refund that came with its total T is the interval from T less its amount to T on the line of all money refunded, so
        that two sources reporting one refund cover the same interval. A refund without a total may be what lies below a total
        and is covered by no other; else it is added.
        """
        return max(self.refunded_total, refunded_beyond(NOTHING, self.refunds.values()))

    @property
    def returned(self) -> Decimal:
        """The amount that went back according to all reports: refunds, or everything."""
        everything = self.paid and (self.refunded_whole or self.charged_back)
        return max(self.refunds_due, self.amount if everything else NOTHING)


@dataclass(frozen=True, slots=True)
class State:
    """The state of an order's money."""

    status: Status
    amount: Decimal
    currency: str
    is_paid: bool
    paid_at: datetime | None
    """The time of the payment; None when not reported."""
    paid_amount: Decimal
    refunded_amount: Decimal
    disputed: bool
    """Reports contradict each other, or more was refunded than was paid: a person should look at it."""
    returned: Decimal
    """The amount that went back according to all reports, even if it exceeds what was paid."""
    sold_at: datetime | None
    """The time of the first payment, even if it was reversed since; None for an order that was never paid, or without a date."""


def facts_of(claims: Iterable[Claim]) -> Facts:
    """The facts that follow from claims, given in the order of their arrival."""
    facts = Facts()
    for claim in claims:
        facts = facts.adding(claim)
    return facts


def state_of(facts: Facts) -> State:
    """The state that follows from facts. Only a paid order has an amount paid, and no more is refunded than was paid."""
    paid = facts.amount if facts.paid else NOTHING
    refunded = min(paid, facts.returned)
    return State(
        status=status_for(facts, paid, refunded),
        amount=facts.amount,
        currency=facts.currency,
        is_paid=facts.paid,
        paid_at=facts.paid_at,
        paid_amount=paid,
        refunded_amount=refunded,
        disputed=facts.conflicting or (facts.paid and facts.returned > paid),
        returned=facts.returned,
        sold_at=facts.paid_at if facts.paid else None,
    )


def status_for(facts: Facts, paid: Decimal, refunded: Decimal) -> Status:
    """The status of an order with these amounts paid and refunded."""
    if not facts.paid:
        return Status.FAILED if facts.failed else Status.PENDING
    if facts.charged_back:
        return Status.CHARGED_BACK
    if facts.refunded_whole or NOTHING < paid <= refunded:
        return Status.REFUNDED
    return Status.PARTIALLY_REFUNDED if refunded else Status.COMPLETED


def refunded_beyond(known: Decimal, refunds: Collection[ReportedRefund]) -> Decimal:
    """The amount of these refunds that a known total does not include: by their own totals, else by their amounts."""
    intervals = [(max(known, each.total - each.amount), each.total) for each in refunds if each.total is not None]
    without_total = sum((each.amount for each in refunds if each.total is None), NOTHING)
    return _covered((start, stop) for start, stop in intervals if stop > known) + without_total


def _covered(intervals: Iterable[tuple[Decimal, Decimal]]) -> Decimal:
    """The length of a line that is covered by intervals, which may overlap."""
    length = end = NOTHING
    for start, stop in sorted(intervals):
        length += max(NOTHING, stop - max(start, end))
        end = max(end, stop)
    return length


def _merged(known: ReportedRefund | None, claim: Claim) -> ReportedRefund:
    """A refund reported again: the larger amount, since the first report may have none; the smaller total, as later refunds add to it."""
    amount, total = claim.amount or NOTHING, claim.refunded_total
    if known is None:
        return ReportedRefund(amount, total, claim.at)
    totals = [each for each in (known.total, total) if each is not None]
    times = [each for each in (known.at, claim.at) if each is not None]
    return ReportedRefund(max(known.amount, amount), min(totals, default=None), min(times, default=None))


def _dates_failure(claim: Claim) -> bool:
    return claim.kind is ReportKind.STATUS and claim.status is Status.FAILED


def _dates_payment(claim: Claim) -> bool:
    """True for a claim whose time is that of the payment: a refund or chargeback that is reported by itself happened later."""
    return claim.status is Status.COMPLETED or (claim.kind is ReportKind.PURCHASE and claim.status in PAID)
