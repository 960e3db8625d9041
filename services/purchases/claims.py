"""What a report claims of an order's money. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from services.purchases.money import NOTHING, exact
from services.purchases.statuses import Reason, Status

_STATUSES: Final = list(Status)


class ReportKind(StrEnum):
    """The call that reported something."""

    PURCHASE = "purchase"
    REFUND = "refund"
    STATUS = "status"
    PROVIDER_REFUND = "provider_refund"
    """The refund of a payment provider, which moved the money itself."""
    CHARGEBACK = "chargeback"
    """Money that the buyer's bank took back."""


@dataclass(frozen=True, slots=True)
class ReturnedLine:
    """What was refunded of one line of an order."""

    product_id: str
    quantity: int
    """0 for a part of the price alone."""
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Claim:
    """What one report claims of an order's money."""

    kind: ReportKind
    status: Status | None = None
    """The order's status; None in the report of a refund."""
    amount: Decimal | None = None
    """The amount of the order, or of the refund."""
    currency: str = ""
    """Empty until the order is known, in reports that are in the order's currency."""
    at: datetime | None = None
    """The time at which it happened; of a purchase, the time of its payment."""
    reference: str = ""
    """The id of the refund, or of the report."""
    refunded_total: Decimal | None = None
    """The order's cumulative refunded total."""
    source: str = ""
    """The reporting system."""
    reported_at: datetime | None = None
    """The time at which the source read the order; None when not reported."""
    paid_at: datetime | None = None
    """The time of the payment; None when not reported."""
    reason: Reason | None = None
    """The reason for the order's status."""
    deleted: bool = False
    """The shop deleted the refund, its provider could not deliver it, or the bank returned a chargeback."""
    payment: str = ""
    """The payment that the money is of; empty if it is not known."""
    lines: tuple[ReturnedLine, ...] = ()
    """What was returned; empty if it is not known."""

    @property
    def can_reverse(self) -> bool:
        """True for a claim that may take back what earlier reports claimed."""
        return self.reported_at is not None or self.deleted

    @property
    def read_at(self) -> datetime:
        """The time at which the source knew what it claims."""
        at = self.reported_at or self.at
        assert at is not None  # noqa: S101 (every claim has a time)
        return at

    @property
    def version(self) -> tuple[Any, ...]:
        """Sorts claims by the time at which they were made; the order of claims of the same time does not depend on their arrival."""
        total = NOTHING if self.refunded_total is None else self.refunded_total
        status = -1 if self.status is None else _STATUSES.index(self.status)
        first = (self.read_at, self.deleted, status, self.amount or NOTHING, total, self.source, self.reference)
        # Whatever else two claims differ in decides; a claim that states less comes first.
        others = (
            self.kind,
            self.reason or "",
            self.currency,
            self.payment,
            *map(_known, (self.paid_at, self.at, self.amount, self.refunded_total)),
        )
        return (*first, *others, tuple(map(astuple, self.lines)))

    @property
    def returns_everything(self) -> bool:
        """True for a claim that all of the money went back to the buyer."""
        return self.status is Status.CHARGED_BACK or (self.status is Status.REFUNDED and not self.refunded_total)

    def in_currency(self, currency: str) -> Claim:
        """The claim with its amounts in the order's currency, if it names none of its own."""
        if self.currency or not currency:
            return self
        amount, total = (None if each is None else exact(each, currency) for each in (self.amount, self.refunded_total))
        lines = tuple(replace(line, amount=exact(line.amount, currency)) for line in self.lines)
        return replace(self, currency=currency, amount=amount, refunded_total=total, lines=lines)


def _known(value: datetime | Decimal | None) -> tuple[Any, ...]:
    return () if value is None else (value,)


def in_order_currency(currency: str, claims: Sequence[Claim]) -> list[Claim]:
    """Claims with those that arrived before the order in its currency; the order itself then comes first."""
    if all(claim.currency for claim in claims):
        return list(claims)
    first = next((number for number, claim in enumerate(claims) if claim.kind is ReportKind.PURCHASE), 0)
    ordered = [claims[first], *claims[:first], *claims[first + 1 :]]
    return [claim.in_currency(currency) for claim in ordered]
