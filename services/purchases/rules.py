"""What an order's notices come to: pure decisions.

An order has several tellers (the plugin, a page, a payment webhook), and each tells late, again and in any order. So an
order is not a state that notices move: it is a set of facts that notices add to, and where it stands follows from the
facts. Adding facts is commutative and idempotent, with one exception that is meant: of several paid notices with different
amounts the first to arrive counts, and the order is marked as disputed. What takes something back are reports (`reports.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from services.purchases.money import NOTHING


class Status(StrEnum):
    """Where an order stands, as the contract names it."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    REFUNDED = "refunded"
    PARTIALLY_REFUNDED = "partially_refunded"
    CHARGED_BACK = "charged_back"


class NoticeKind(StrEnum):
    """Which call told something."""

    PURCHASE = "purchase"
    REFUND = "refund"
    STATUS = "status"


class Reason(StrEnum):
    """Why the ledger is corrected, as the contract names it."""

    CANCELLED = "cancelled"
    FAILED = "failed"
    BOUNCED = "bounced"
    TRASHED = "trashed"
    DELETED = "deleted"
    RESTORED = "restored"
    EDITED = "edited"
    REFUND_DELETED = "refund_deleted"
    RESTATED = "restated"


# Ours, WooCommerce's (https://woocommerce.com/document/managing-orders/order-statuses/) and Stripe's.
_WORDS: Final[Mapping[str, Status]] = {
    **{status.value: status for status in Status},
    **dict.fromkeys(("on_hold", "checkout_draft"), Status.PENDING),
    **dict.fromkeys(("processing", "paid", "succeeded"), Status.COMPLETED),
    **dict.fromkeys(("cancelled", "canceled"), Status.FAILED),
    **dict.fromkeys(("chargeback", "dispute", "disputed"), Status.CHARGED_BACK),
}
_STATUSES: Final = list(Status)
PAID: Final = frozenset({Status.COMPLETED, Status.REFUNDED, Status.PARTIALLY_REFUNDED, Status.CHARGED_BACK})
"""What only a paid order can be: whoever says one of these says that the order was paid."""


_PAID_LATER: Final = re.compile(r"(^|_)(cod|bacs|cheque|sepa|becs|ach|direct_?debit|bank_?transfer|invoice)(_|$)")
"""Payment methods, as WooCommerce's plugins name them, of orders that are in processing before anybody has paid."""


def status_of(word: str) -> Status | None:
    """The status that a word of a shop or payment provider stands for; None for a word that nobody knows."""
    return _WORDS.get(_plain(word))


def paid_when_paid(status: Status, word: str, *, method: str = "", paid_at: datetime | None = None, reported: bool = False) -> Status:
    """The status of an order with regard to when it was paid.

    WooCommerce sets a date of payment when an order is paid, and puts orders that are paid later into processing without one.

    Args:
        status: what the word stands for.
        word: as it was told.
        method: of payment.
        paid_at: when the payment arrived, if anybody said.
        reported: by a source that would say when it was paid.
    """
    if _plain(word) == "processing" and paid_at is None and (reported or _PAID_LATER.search(_plain(method))):
        return Status.PENDING
    if _plain(word) == "on_hold" and paid_at is not None and reported:
        return Status.COMPLETED
    return status


def reason_of(told: str, word: str) -> Reason | None:
    """Why an order stands so: by the reason that was told, else by the word for its status; None where neither says."""
    said = {_plain(each): each for each in (word, told) if _plain(each) in set(Reason)}
    return Reason(_plain(said.popitem()[1])) if said else None


def _plain(word: str) -> str:
    return word.strip().lower().removeprefix("wc-").replace("-", "_")


@dataclass(frozen=True, slots=True)
class Claim:
    """What one notice says of an order's money."""

    kind: NoticeKind
    status: Status | None = None
    """Where the order stands; None in a refund's notice."""
    amount: Decimal | None = None
    """Of the order, or of the refund."""
    currency: str = ""
    at: datetime | None = None
    """When it happened. Of a purchase: when it was paid."""
    reference: str = ""
    """Which refund it is."""
    refunded_total: Decimal | None = None
    """All that was paid back so far."""
    source: str = ""
    """Who says it."""
    reported_at: datetime | None = None
    """When the source read it; None when nobody said."""
    paid_at: datetime | None = None
    """When the order was paid, if that was said."""
    reason: Reason | None = None
    """Why the order stands so."""
    deleted: bool = False
    """The shop deleted the refund."""

    @property
    def takes_back(self) -> bool:
        """It may take something back that was told before."""
        return self.reported_at is not None or self.deleted

    @property
    def read_at(self) -> datetime:
        """When its source knew it."""
        at = self.reported_at or self.at
        assert at is not None  # noqa: S101 (whatever is told has a time)
        return at

    @property
    def version(self) -> tuple[Any, ...]:
        """Sorts claims by when they were made, and those of one time, too, whatever came first."""
        total = NOTHING if self.refunded_total is None else self.refunded_total
        status = -1 if self.status is None else _STATUSES.index(self.status)
        return (self.read_at, self.deleted, status, self.amount or NOTHING, total, self.source, self.reference)


@dataclass(frozen=True, slots=True)
class Refunded:
    """What was told under one reference."""

    amount: Decimal
    total: Decimal | None
    """What was paid back until then, itself included; None when nobody said."""
    at: datetime | None = None
    """When it was told to have happened, at the earliest."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that notices have told of an order's money."""

    amount: Decimal = NOTHING
    currency: str = ""
    fixed: bool = False
    """A paid notice told the amount: no other changes it."""
    paid: bool = False
    paid_at: datetime | None = None
    """The earliest time that was told."""
    failed: bool = False
    failed_at: datetime | None = None
    """The latest time at which a provider said so."""
    refunded_whole: bool = False
    charged_back: bool = False
    taken_at: datetime | None = None
    """The earliest time at which all of it was said to have gone back."""
    conflicting: bool = False
    """A paid notice told another amount than the one that counts."""
    refunded_total: Decimal = NOTHING
    """The largest that was told."""
    refunds: Mapping[str, Refunded] = field(default_factory=dict[str, Refunded])

    def told(self, claim: Claim) -> Facts:
        """These facts and what a notice adds to them."""
        facts = self._ordered(claim) if claim.kind is NoticeKind.PURCHASE else self
        total = claim.refunded_total
        if claim.currency != facts.currency:
            total = None  # money of another currency says nothing of this order's
        if claim.kind is NoticeKind.REFUND:
            facts = replace(facts, refunds={**facts.refunds, claim.reference: _joined(facts.refunds.get(claim.reference), claim)})
        claims_payment = claim.status in PAID
        return replace(
            facts,
            paid=facts.paid or claims_payment,
            paid_at=min(filter(None, (facts.paid_at, claim.at if _tells_when_paid(claim) else None)), default=None),
            failed=facts.failed or claim.status is Status.FAILED,
            failed_at=max(filter(None, (facts.failed_at, claim.at if _tells_of_failure(claim) else None)), default=None),
            refunded_whole=facts.refunded_whole or (claim.status is Status.REFUNDED and not claim.refunded_total),
            taken_at=min(filter(None, (facts.taken_at, claim.at if takes_all(claim) else None)), default=None),
            charged_back=facts.charged_back or claim.status is Status.CHARGED_BACK,
            refunded_total=max(facts.refunded_total, total or NOTHING),
        )

    def _ordered(self, claim: Claim) -> Facts:
        """What a notice says of the order itself: the newest counts until one says it is paid, and that one for good."""
        amount = claim.amount or NOTHING
        if claim.status in PAID:
            if self.fixed or (self.paid and claim.currency != self.currency):
                differs = (amount, claim.currency) != (self.amount, self.currency)
                return replace(self, conflicting=self.conflicting or differs)
            return replace(self, amount=amount, currency=claim.currency, fixed=True)
        return self if self.paid else replace(self, amount=amount, currency=claim.currency)

    @property
    def refunds_due(self) -> Decimal:
        """What was paid back by all that is told, be it more than was paid.

        A refund that came with its total T is the stretch from T less its amount to T on the line of all money paid back,
        so that two tellers of one refund cover the same stretch. What is told without a total may be what lies under a
        total and is covered by nobody; else it comes on top.
        """
        return max(self.refunded_total, on_top(self.refunds.values(), NOTHING))

    @property
    def paid_back(self) -> Decimal:
        """What went back by all that is told: refunds, or all of it."""
        takes_all = self.paid and (self.refunded_whole or self.charged_back)
        return max(self.refunds_due, self.amount if takes_all else NOTHING)


@dataclass(frozen=True, slots=True)
class State:
    """Where an order stands."""

    status: Status
    amount: Decimal
    currency: str
    is_paid: bool
    paid_at: datetime | None
    """When it was paid, if anybody said."""
    paid_amount: Decimal
    refunded_amount: Decimal
    disputed: bool
    """Notices contradict each other, or more was paid back than was paid: a person should look."""
    paid_back: Decimal
    """What went back by all that is told, be it more than was paid."""
    sold_at: datetime | None
    """When it was paid first, also if the payment was taken back since; None if it never was, or nobody said when."""


def state(facts: Facts) -> State:
    """Where an order stands by the facts. Only a paid order has money in it, and no more comes back than was paid."""
    paid = facts.amount if facts.paid else NOTHING
    refunded = min(paid, facts.paid_back)
    return State(
        status=status_by(facts, paid, refunded),
        amount=facts.amount,
        currency=facts.currency,
        is_paid=facts.paid,
        paid_at=facts.paid_at,
        paid_amount=paid,
        refunded_amount=refunded,
        disputed=facts.conflicting or (facts.paid and facts.paid_back > paid),
        paid_back=facts.paid_back,
        sold_at=facts.paid_at if facts.paid else None,
    )


def facts_of(claims: Iterable[Claim]) -> Facts:
    """The facts that an order's notices tell, given in the order of their arrival."""
    facts = Facts()
    for claim in claims:
        facts = facts.told(claim)
    return facts


def status_by(facts: Facts, paid: Decimal, refunded: Decimal) -> Status:
    """Where an order stands with so much paid, and so much of it paid back."""
    if not facts.paid:
        return Status.FAILED if facts.failed else Status.PENDING
    if facts.charged_back:
        return Status.CHARGED_BACK
    if facts.refunded_whole or NOTHING < paid <= refunded:
        return Status.REFUNDED
    return Status.PARTIALLY_REFUNDED if refunded else Status.COMPLETED


def takes_all(claim: Claim) -> bool:
    """It says that all of the money went back."""
    return claim.status is Status.CHARGED_BACK or (claim.status is Status.REFUNDED and not claim.refunded_total)


def _tells_of_failure(claim: Claim) -> bool:
    return claim.kind is NoticeKind.STATUS and claim.status is Status.FAILED


def _tells_when_paid(claim: Claim) -> bool:
    """A purchase's notice has the time of its payment; that of a refund or chargeback is of something later."""
    return claim.status is Status.COMPLETED or (claim.kind is NoticeKind.PURCHASE and claim.status in PAID)


def _joined(known: Refunded | None, claim: Claim) -> Refunded:
    """The larger amount, since a refund may be told before it has one; the smaller total, since later refunds are in the larger."""
    amount, total = claim.amount or NOTHING, claim.refunded_total
    if known is None:
        return Refunded(amount, total, claim.at)
    totals = [each for each in (known.total, total) if each is not None]
    times = [each for each in (known.at, claim.at) if each is not None]
    return Refunded(max(known.amount, amount), min(totals, default=None), min(times, default=None))


def on_top(refunds: Collection[Refunded], known: Decimal) -> Decimal:
    """What refunds tell beyond what is known already: by their totals, or without one."""
    stretches = [(max(known, each.total - each.amount), each.total) for each in refunds if each.total is not None]
    loose = sum((each.amount for each in refunds if each.total is None), NOTHING)
    return _covered((start, stop) for start, stop in stretches if stop > known) + loose


def _covered(stretches: Iterable[tuple[Decimal, Decimal]]) -> Decimal:
    """How much of a line is covered by stretches that may overlap."""
    length = end = NOTHING
    for start, stop in sorted(stretches):
        length += max(NOTHING, stop - max(start, end))
        end = max(end, stop)
    return length
