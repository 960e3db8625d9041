"""What an order comes to by reports: its whole state as a source read it, with the time of that. Pure.

Of reports the newest says how the order stands, and the sequence of them says what its ledger has to tell, and of which
dates. All of it follows from the set of what was told: the order of arrival and repetitions change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from services.purchases.ledger import EntryKind, Step
from services.purchases.money import NOTHING
from services.purchases.refunds import Change, back_of
from services.purchases.rules import (
    PAID,
    Claim,
    Facts,
    NoticeKind,
    Reason,
    State,
    Status,
    facts_of,
    state,
    status_by,
    takes_all,
)


def stands(claims: Sequence[Claim]) -> tuple[State, Sequence[Step] | None]:
    """Where an order stands, and what its ledger has to tell, by date; None where that depends on what came first.

    Args:
        claims: all that was told of it, in the order of arrival, which counts among those alone that nobody dated.
    """
    if not any(claim.takes_back for claim in claims):
        return state(facts_of(claims)), None
    told = _sequence(claims)
    reports = [report for report in told if report.currency == _currency(told)]
    newest = {report.source: report.read_at for report in reports}
    said = [claim for claim in claims if not claim.takes_back and not _replaced(claim, newest)]
    facts = facts_of(said)
    if not reports:
        plain = state(facts)
        back = back_of(claims, said, plain)
        return _state(facts, plain, back.due, disputed=facts.conflicting), None
    lead = reports[-1]
    sales = list(_sales(reports, facts))
    paid = sum((sale.paid for sale in sales), NOTHING)
    is_paid = _is_paid(lead, facts)
    sold_at = sales[0].at if sales else None
    known = State(
        status=lead.status or Status.PENDING,
        amount=lead.amount or NOTHING,
        currency=lead.currency,
        is_paid=is_paid,
        paid_at=sold_at if is_paid else None,
        paid_amount=paid,
        refunded_amount=NOTHING,
        disputed=False,
        paid_back=NOTHING,
        sold_at=sold_at,
    )
    back = back_of(claims, said, known, lead)
    disputed = len(reports) < len(told) or _contradicted(reports, facts)
    stand = _state(_with(facts, lead, is_paid=is_paid), known, back.due, disputed=disputed)
    return stand, list(_steps(sorted([*sales, *back.changes], key=lambda change: (change.at, change.back != NOTHING))))


def _sequence(claims: Iterable[Claim]) -> Sequence[Claim]:
    """The reports in the order of their making. That somebody else knows of no payment yet contradicts nobody who does."""
    reports = sorted({c for c in claims if c.kind is NoticeKind.PURCHASE and c.reported_at is not None}, key=lambda claim: claim.version)
    paid = {report.source for report in reports if report.status in PAID}
    return [report for report in reports if report.status is not Status.PENDING or not paid - {report.source}]


def _currency(reports: Sequence[Claim]) -> str:
    """That of the first sale, which no later report changes; until there is one, that of the newest report."""
    return next((report.currency for report in reports if report.status in PAID or report.paid_at), reports[-1].currency if reports else "")


def _replaced(claim: Claim, newest: Mapping[str, datetime]) -> bool:
    """A source's report says all of the order that the same source said before."""
    if claim.source not in newest or claim.kind is NoticeKind.REFUND:
        return False
    return claim.kind is NoticeKind.PURCHASE or claim.read_at <= newest[claim.source]


def _is_paid(report: Claim, facts: Facts) -> bool:
    """A shop that does not know of the payment yet is not against it."""
    return report.status in PAID or (report.status is Status.PENDING and facts.paid)


def _sales(reports: Sequence[Claim], facts: Facts) -> Iterator[Change]:
    """The sale, at the time of its payment, and what became of its amount, at the times of the reports."""
    sold_at: datetime | None = None
    money, was_paid = NOTHING, False
    for report in reports:
        is_paid, amount = _is_paid(report, facts), report.amount or NOTHING
        if sold_at is None and (is_paid or report.paid_at):
            paid_at = reports[-1].paid_at or report.paid_at or (facts.paid_at if report.status is Status.PENDING else None)
            sold_at = paid_at or report.at or report.read_at
            yield Change(sold_at, EntryKind.SALE, amount)
            money, was_paid = amount, True
        now = amount if is_paid else NOTHING
        if sold_at is not None and now != money:
            reason = (Reason.EDITED if was_paid else Reason.RESTORED) if is_paid else report.reason or Reason.EDITED
            yield Change(max(report.read_at, sold_at), EntryKind.CORRECTION, now - money, reason=reason)
            money = now
        was_paid = is_paid


def _steps(changes: Iterable[Change]) -> Iterator[Step]:
    """The entries of a ledger: what each change makes of the balance."""
    paid = back = balance = NOTHING
    for change in changes:
        paid, back = paid + change.paid, back + change.back
        after = paid - min(max(paid, NOTHING), max(back, NOTHING))
        amount, balance = after - balance, after
        kind = change.kind
        if kind is EntryKind.REFUND and -amount != paid:
            kind = EntryKind.PARTIAL_REFUND
        if amount or kind is EntryKind.SALE:
            yield Step(change.at, kind, amount, change.reference, change.reason)


def _contradicted(reports: Sequence[Claim], facts: Facts) -> bool:
    """Somebody else says what the source of the newest report never said, or says of a paid order that the payment failed since."""
    lead = reports[-1]
    own = [report for report in reports if report.source == lead.source]
    amounts = {(report.amount, report.currency) for report in own}
    was_paid = lead.status is Status.PENDING or any(report.status in PAID or report.paid_at for report in own)
    others = {report.source: report for report in reports if report.source != lead.source}
    paid = [(each.amount, each.currency) for each in others.values() if each.status in PAID]
    if facts.fixed:
        paid.append((facts.amount, facts.currency))
    failed = facts.failed_at is not None and facts.failed_at > lead.read_at
    return (
        facts.conflicting
        or not amounts.issuperset(paid)
        or (not was_paid and (facts.paid or bool(paid)))
        or (failed and _is_paid(lead, facts))
    )


def _with(facts: Facts, lead: Claim, *, is_paid: bool) -> Facts:
    """What decides an order's status, in the words of facts."""
    return Facts(
        paid=is_paid,
        failed=lead.status is Status.FAILED,
        refunded_whole=facts.refunded_whole or (lead.status is Status.REFUNDED and takes_all(lead)),
        charged_back=facts.charged_back or lead.status is Status.CHARGED_BACK,
    )


def _state(facts: Facts, known: State, back: Decimal, *, disputed: bool) -> State:
    """A state with what was paid back."""
    paid = known.paid_amount if known.is_paid else NOTHING
    refunded = min(paid, back)
    return replace(
        known,
        status=status_by(facts, paid, refunded),
        paid_amount=paid,
        refunded_amount=refunded,
        disputed=disputed or (known.is_paid and back > paid),
        paid_back=back,
    )
