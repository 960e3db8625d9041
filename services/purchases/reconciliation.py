"""Reconciles the reports of an order: its state, and all that its ledger has to contain. Pure.

A dated report is the whole order as its source read it at `reported_at`. The newest one decides the order's state, and their
sequence decides what the ledger contains, and at which dates. Everything follows from the set of reports: the order of their
arrival and repetitions change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from services.purchases.claims import Claim, ReportKind
from services.purchases.facts import Facts, State, facts_of, state_of, status_for
from services.purchases.ledger import EntryKind, LedgerEntry
from services.purchases.money import NOTHING
from services.purchases.provider import BY_PROVIDER, returned_by_provider
from services.purchases.refunds import Change, refunds_of
from services.purchases.statuses import PAID, Reason, Status


class Reconciliation(NamedTuple):
    """What follows from all reports of an order."""

    state: State
    ledger: Sequence[LedgerEntry] | None
    """All that the ledger has to contain, by date; None where it depends on the order of arrival."""


def reconcile(claims: Sequence[Claim]) -> Reconciliation:
    """Reconciles an order's claims, given in the order of their arrival, which counts among undated reports only."""
    state, changes = _by_shop([claim for claim in claims if claim.kind not in BY_PROVIDER])
    if by_provider := [claim for claim in claims if claim.kind in BY_PROVIDER]:
        state, returned = returned_by_provider(by_provider, state, changes or ())
        changes = None if changes is None else returned
    if changes is None:
        return Reconciliation(state, None)
    return Reconciliation(state, list(_entries(sorted(changes, key=lambda change: (change.at, change.returned != NOTHING)))))


def _by_shop(claims: Sequence[Claim]) -> tuple[State, Sequence[Change] | None]:
    """The state by all claims but those of payment providers, and its changes; None where these depend on the order of arrival."""
    if not any(claim.can_reverse for claim in claims):
        return state_of(facts_of(claims)), None
    dated = _dated_reports(claims)
    reports = [report for report in dated if report.currency == _currency(dated)]
    newest_read = {report.source: report.read_at for report in reports}
    current = [claim for claim in claims if not claim.can_reverse and not _is_replaced(claim, newest_read)]
    facts = facts_of(current)
    if not reports:
        before = state_of(facts)
        refunds = refunds_of(claims, current, before)
        return _with_refunds(facts, before, refunds.due, disputed=facts.conflicting), None
    newest = reports[-1]
    sales = list(_sales(reports, facts))
    is_paid = _is_paid(newest, facts)
    before = _state_before_refunds(newest, sales, is_paid=is_paid)
    refunds = refunds_of(claims, current, before, newest)
    disputed = len(reports) < len(dated) or _is_contradicted(reports, facts)
    state = _with_refunds(_facts_by(newest, facts, is_paid=is_paid), before, refunds.due, disputed=disputed)
    return state, [*sales, *refunds.changes]


def _dated_reports(claims: Iterable[Claim]) -> Sequence[Claim]:
    """The dated reports of the order, oldest first. A source that does not know of a payment yet contradicts no source that does."""
    purchases = {claim for claim in claims if claim.kind is ReportKind.PURCHASE and claim.reported_at is not None}
    reports = sorted(purchases, key=lambda claim: claim.version)
    paid = {report.source for report in reports if report.status in PAID}
    return [report for report in reports if report.status is not Status.PENDING or not paid - {report.source}]


def _currency(reports: Sequence[Claim]) -> str:
    """The currency of the first sale, which no later report changes; before there is a sale, that of the newest report."""
    return next((report.currency for report in reports if report.status in PAID or report.paid_at), reports[-1].currency if reports else "")


def _is_replaced(claim: Claim, newest_read: Mapping[str, datetime]) -> bool:
    """True for a claim that a dated report of the same source replaces: that report is the whole order."""
    if claim.source not in newest_read or claim.kind is ReportKind.REFUND:
        return False
    return claim.kind is ReportKind.PURCHASE or claim.read_at <= newest_read[claim.source]


def _is_paid(report: Claim, facts: Facts) -> bool:
    """A shop that does not know of the payment yet does not deny it."""
    return report.status in PAID or (report.status is Status.PENDING and facts.paid)


def _sales(reports: Sequence[Claim], facts: Facts) -> Iterator[Change]:
    """The sale, at the time of its payment, and the changes of its amount, at the times of the reports that show them."""
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


def _state_before_refunds(newest: Claim, sales: Sequence[Change], *, is_paid: bool) -> State:
    sold_at = sales[0].at if sales else None
    return State(
        status=newest.status or Status.PENDING,
        amount=newest.amount or NOTHING,
        currency=newest.currency,
        is_paid=is_paid,
        paid_at=sold_at if is_paid else None,
        paid_amount=sum((sale.paid for sale in sales), NOTHING),
        refunded_amount=NOTHING,
        disputed=False,
        returned=NOTHING,
        sold_at=sold_at,
    )


def _entries(changes: Iterable[Change]) -> Iterator[LedgerEntry]:
    """The ledger's entries: the difference that each change makes to the balance."""
    paid = returned = balance = NOTHING
    for change in changes:
        paid, returned = paid + change.paid, returned + change.returned
        after = paid - min(max(paid, NOTHING), max(returned, NOTHING))
        amount, balance = after - balance, after
        kind = change.kind
        if kind is EntryKind.REFUND and -amount != paid:
            kind = EntryKind.PARTIAL_REFUND
        if amount or kind is EntryKind.SALE:
            yield LedgerEntry(change.at, kind, amount, change.reference, change.reason)


def _is_contradicted(reports: Sequence[Claim], facts: Facts) -> bool:
    """True when another source reports a payment that the newest report's source never had, or that a paid order's payment failed since."""
    newest = reports[-1]
    own = [report for report in reports if report.source == newest.source]
    amounts = {(report.amount, report.currency) for report in own}
    was_paid = newest.status is Status.PENDING or any(report.status in PAID or report.paid_at for report in own)
    others = {report.source: report for report in reports if report.source != newest.source}
    paid = [(each.amount, each.currency) for each in others.values() if each.status in PAID]
    if facts.fixed:
        paid.append((facts.amount, facts.currency))
    failed = facts.failed_at is not None and facts.failed_at > newest.read_at
    return (
        facts.conflicting
        or not amounts.issuperset(paid)
        or (not was_paid and (facts.paid or bool(paid)))
        or (failed and _is_paid(newest, facts))
    )


def _facts_by(newest: Claim, facts: Facts, *, is_paid: bool) -> Facts:
    """The facts that decide the status of an order with dated reports."""
    return Facts(
        paid=is_paid,
        failed=newest.status is Status.FAILED,
        refunded_whole=facts.refunded_whole or (newest.status is Status.REFUNDED and newest.returns_everything),
        charged_back=facts.charged_back or newest.status is Status.CHARGED_BACK,
    )


def _with_refunds(facts: Facts, before: State, returned: Decimal, *, disputed: bool) -> State:
    """The state with its refunds."""
    paid = before.paid_amount if before.is_paid else NOTHING
    refunded = min(paid, returned)
    return replace(
        before,
        status=status_for(facts, paid, refunded),
        paid_amount=paid,
        refunded_amount=refunded,
        disputed=disputed or (before.is_paid and returned > paid),
        returned=returned,
    )
