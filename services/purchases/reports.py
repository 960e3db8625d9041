"""What an order comes to by reports: its whole state as a source read it, with the time of that. Pure.

Of reports the newest says how the order stands, and the sequence of them says what its ledger has to tell, and of which
dates. All of it follows from the set of what was told: the order of arrival and repetitions change nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import chain
from typing import Any, Final, NamedTuple

from services.purchases.ledger import EntryKind, Step
from services.purchases.money import NOTHING
from services.purchases.rules import (
    PAID,
    Claim,
    Facts,
    NoticeKind,
    Reason,
    Refunded,
    State,
    Status,
    covered,
    facts_of,
    state,
    status_by,
    takes_all,
)

_STATUSES: Final = list(Status)


class _Change(NamedTuple):
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
class _Back:
    """What was paid back."""

    due: Decimal
    changes: Sequence[_Change] = field(default_factory=list[_Change])


def takes_back(claim: Claim) -> bool:
    """It may take something back that was told before."""
    return claim.reported_at is not None or claim.deleted


def stands(claims: Sequence[Claim]) -> tuple[State, Sequence[Step] | None]:
    """Where an order stands, and what its ledger has to tell, by date; None where that depends on what came first.

    Args:
        claims: all that was told of it, in the order of arrival, which counts among those alone that nobody dated.
    """
    if not any(map(takes_back, claims)):
        return state(facts_of(claims)), None
    told = _sequence(claims)
    reports = [report for report in told if report.currency == _currency(told)]
    newest = {report.source: _read_at(report) for report in reports}
    facts = facts_of(claim for claim in claims if not takes_back(claim) and not _replaced(claim, newest))
    if not reports:
        plain = state(facts)
        back = _back(claims, facts, newest, plain)
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
    back = _back(claims, facts, newest, known, lead)
    disputed = len(reports) < len(told) or _contradicted(reports, facts)
    stand = _state(_with(facts, lead, is_paid=is_paid), known, back.due, disputed=disputed)
    return stand, list(_steps(sorted([*sales, *back.changes], key=lambda change: (change.at, change.back != NOTHING))))


def _sequence(claims: Iterable[Claim]) -> Sequence[Claim]:
    """The reports in the order of their making. That somebody else knows of no payment yet contradicts nobody who does."""
    reports = sorted({c for c in claims if c.kind is NoticeKind.PURCHASE and c.reported_at is not None}, key=_version)
    paid = {report.source for report in reports if report.status in PAID}
    return [report for report in reports if report.status is not Status.PENDING or not paid - {report.source}]


def _currency(reports: Sequence[Claim]) -> str:
    """That of the first sale, which no later report changes; until there is one, that of the newest report."""
    return next((report.currency for report in reports if report.status in PAID or report.paid_at), reports[-1].currency if reports else "")


def _version(claim: Claim) -> tuple[Any, ...]:
    """Sorts what was read at one time, too, whatever came first."""
    total = NOTHING if claim.refunded_total is None else claim.refunded_total
    status = -1 if claim.status is None else _STATUSES.index(claim.status)
    return (_read_at(claim), claim.deleted, status, claim.amount or NOTHING, total, claim.source, claim.reference)


def _read_at(claim: Claim) -> datetime:
    at = claim.reported_at or claim.at
    assert at is not None  # noqa: S101 (whatever is told has a time)
    return at


def _replaced(claim: Claim, newest: Mapping[str, datetime]) -> bool:
    """A source's report says all of the order that the same source said before."""
    if claim.source not in newest or claim.kind is NoticeKind.REFUND:
        return False
    return claim.kind is NoticeKind.PURCHASE or _read_at(claim) <= newest[claim.source]


def _is_paid(report: Claim, facts: Facts) -> bool:
    """A shop that does not know of the payment yet is not against it."""
    return report.status in PAID or (report.status is Status.PENDING and facts.paid)


def _sales(reports: Sequence[Claim], facts: Facts) -> Iterator[_Change]:
    """The sale, at the time of its payment, and what became of its amount, at the times of the reports."""
    sold_at: datetime | None = None
    money, was_paid = NOTHING, False
    for report in reports:
        is_paid, amount = _is_paid(report, facts), report.amount or NOTHING
        if sold_at is None and (is_paid or report.paid_at):
            paid_at = reports[-1].paid_at or report.paid_at or (facts.paid_at if report.status is Status.PENDING else None)
            sold_at = paid_at or report.at or _read_at(report)
            yield _Change(sold_at, EntryKind.SALE, amount)
            money, was_paid = amount, True
        now = amount if is_paid else NOTHING
        if sold_at is not None and now != money:
            reason = (Reason.EDITED if was_paid else Reason.RESTORED) if is_paid else report.reason or Reason.EDITED
            yield _Change(max(_read_at(report), sold_at), EntryKind.CORRECTION, now - money, reason=reason)
            money = now
        was_paid = is_paid


def _back(claims: Sequence[Claim], facts: Facts, newest: Mapping[str, datetime], known: State, lead: Claim | None = None) -> _Back:
    """What was paid back, by date.

    Args:
        claims: all that was told.
        facts: what was told without a report.
        newest: when each source that reports reported last.
        known: the state but for this.
        lead: the newest report.
    """
    sold_at = known.sold_at
    told = [claim for claim in claims if claim.kind is NoticeKind.REFUND]
    sources = {*newest, *(claim.source for claim in told if takes_back(claim))}
    refunds = _refunds(claim for claim in told if claim.source in sources)
    totals = [_Total(_read_at(c), c.deleted, c.refunded_total) for c in claims if takes_back(c) and c.refunded_total is not None]
    base = max(totals, default=None)
    alive = [refund for refund in refunds.values() if refund.at and not refund.deleted_at]
    own = named = sum((refund.amount for refund in alive), NOTHING)
    if base is not None:
        own = base.total + sum((each.amount for each in alive if each.read_at and each.read_at > base.at), NOTHING)
    others = facts_of(claim for claim in told if claim.source not in sources).refunds
    later = {reference: each for reference, each in others.items() if base is None or (each.at and each.at > base.at)}
    due = max(own + _on_top(later.values(), own), facts.refunded_total if base is None else NOTHING)
    whole, taken = _taken(claims, lead, newest), (lead is not None and lead.status is Status.CHARGED_BACK) or facts.charged_back
    changes = list(chain.from_iterable(_told(reference, refund, sold_at) for reference, refund in refunds.items()))
    if base is not None and own != named:
        changes.append(_rest(base.at, own - named, sold_at))
    if due != own:
        last = max(((each.at or sold_at, reference) for reference, each in later.items()), default=(sold_at, ""))
        changes.append(_rest(last[0], due - own, sold_at, last[1]))
    paid = known.paid_amount
    if whole is not None and known.is_paid and paid > due:
        kind = EntryKind.CHARGEBACK if taken else EntryKind.REFUND
        changes.append(_Change(_not_before(_read_at(whole), sold_at), kind, back=paid - due, reference=whole.reference))
        due = paid
    return _Back(due, changes)


def _refunds(claims: Iterable[Claim]) -> Mapping[str, _Refund]:
    """Refunds as they were read last; of what nobody dated, the largest. One that was deleted stays so."""
    refunds: dict[str, _Refund] = {}
    for claim in sorted(claims, key=lambda claim: (claim.reported_at is not None, _version(claim))):
        refund, at = refunds.setdefault(claim.reference, _Refund()), claim.at or _read_at(claim)
        if claim.deleted:
            refund.deleted_at = min(at, refund.deleted_at or at)
            continue
        amount, dated = claim.amount or NOTHING, claim.reported_at is not None
        refund.amount = amount if dated else max(amount, refund.amount)
        refund.at = min(at, refund.at or at)
        refund.read_at = _read_at(claim) if dated else refund.at
    return refunds


def _on_top(refunds: Collection[Refunded], known: Decimal) -> Decimal:
    """What others tell beyond what is known already: by their totals, or without one."""
    totals = [(max(known, each.total - each.amount), each.total) for each in refunds if each.total is not None]
    loose = sum((each.amount for each in refunds if each.total is None), NOTHING)
    return covered((start, stop) for start, stop in totals if stop > known) + loose


def _taken(claims: Iterable[Claim], lead: Claim | None, newest: Mapping[str, datetime]) -> Claim | None:
    """What says that all of it went back; None where nothing does."""
    if lead is not None and takes_all(lead):
        return lead
    said = (c for c in claims if c.kind is not NoticeKind.REFUND and takes_all(c) and not takes_back(c) and not _replaced(c, newest))
    return min(said, key=_version, default=None)


def _told(reference: str, refund: _Refund, sold_at: datetime | None) -> Iterator[_Change]:
    if refund.at is None:
        return
    at = _not_before(refund.at, sold_at)
    yield _Change(at, EntryKind.REFUND, back=refund.amount, reference=reference)
    if refund.deleted_at is not None:
        yield _Change(max(at, refund.deleted_at), EntryKind.CORRECTION, back=-refund.amount, reason=Reason.REFUND_DELETED)


def _rest(at: datetime | None, back: Decimal, sold_at: datetime | None, reference: str = "") -> _Change:
    """What a total says beyond the refunds that are known by their references, or short of them."""
    when = _not_before(at or datetime.min, sold_at)  # noqa: DTZ901 (never without either)
    if back < NOTHING:
        return _Change(when, EntryKind.CORRECTION, back=back, reason=Reason.REFUND_DELETED)
    return _Change(when, EntryKind.REFUND, back=back, reference=reference)


def _not_before(at: datetime, sold_at: datetime | None) -> datetime:
    """Nothing goes back before it came."""
    return at if sold_at is None else max(at, sold_at)


def _steps(changes: Iterable[_Change]) -> Iterator[Step]:
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
    failed = facts.failed_at is not None and facts.failed_at > _read_at(lead)
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
