"""What is recorded of an erased person's orders: the money, under a pseudonym. Pure."""

from __future__ import annotations

from dataclasses import replace

from kit.people.hashing import KeyedHasher
from kit.people.subjects.words import OTHER, SENDERS, listed
from kit.people.suppression import Suppressed
from services.purchases.claims import Claim
from services.purchases.details import ERASED
from services.purchases.reports import OrderReport


def without_erased(report: OrderReport, identifier: str | None, suppressed: Suppressed, hasher: KeyedHasher) -> OrderReport:
    """A report as it may be stored: without erased persons. Of an erased person's order only the money is left.

    Args:
        report: the report as received.
        identifier: the identifier of the order's buyer so far; None for a new order.
        suppressed: which of the reported identifiers are suppressed.
        hasher: makes the pseudonyms of references.
    """
    is_erased, details = (identifier or "").startswith(ERASED), report.details
    if details is not None:
        details = details.anonymised() if is_erased else details.unsuppressed(suppressed)
        is_erased = is_erased or (not identifier and details.erased)
    if is_erased:
        return replace(report, claim=_pseudonymised(report.claim, hasher), note="", details=details)
    return replace(report, details=details)


def reference_pseudonym(hasher: KeyedHasher, reference: str) -> str:
    """The pseudonym of a report's reference, or of the payment it is about: the same when it is reported again. Empty for none."""
    return f"erased-{hasher.digest(reference.encode(), purpose='reference').hex()}" if reference else ""


def _pseudonymised(claim: Claim, hasher: KeyedHasher) -> Claim:
    source = claim.source and (listed(claim.source, SENDERS) or OTHER)
    reference, payment = (reference_pseudonym(hasher, each) for each in (claim.reference, claim.payment))
    return replace(claim, reference=reference, payment=payment, source=source)
