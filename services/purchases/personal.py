"""The personal tables of purchases, and what an erasure leaves in them: the money, under a pseudonym."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from kit.people.hashing import KeyedHasher
from kit.people.keys.seals import BILLING_CONTEXT, EMAIL_CONTEXT, VISITOR_CONTEXT
from kit.people.subjects.personal_tables import Ages, Becomes, IdentifierKind, Part, PersonalTable, Row, Stays, nothing
from kit.people.subjects.words import OTHER, PAYMENTS, SENDERS, word
from services.purchases.erasure import reference_pseudonym
from services.purchases.models import EntryRow, LineRow, PurchaseRow, ReportRow
from services.purchases.statuses import Reason


def _reason(row: Row) -> str:
    """The reason for an order's status, which is a word of the contract; a text written about a refund is removed."""
    return row["reason"] if row["reason"] in set(Reason) else ""


def personal_tables(hasher: KeyedHasher, erased: Literal["keep", "delete"]) -> tuple[PersonalTable, ...]:
    """The personal tables of purchases.

    Args:
        hasher: makes the pseudonyms of references.
        erased: whether the shop keeps or deletes an erased person's purchases.
    """

    def pseudonym_of(column: str) -> Becomes:
        return lambda row: reference_pseudonym(hasher, row[column])

    references: dict[str, Becomes] = {"reference": pseudonym_of("reference")}
    ids = {"purchase_id": Stays.ID, "site": Stays.ID, "order_id": Stays.SHOP}
    products = {"product_id": Stays.SHOP, "product_name": Stays.SHOP, "product_type": Stays.WORD}
    kept = PersonalTable(
        PurchaseRow,
        section="purchase_history",
        why="what was sold, for the shop's books and its figures",
        kept="as long as tax law asks, or as long as `PMP_SITE_RETENTION_TABLES` says; "
        "after an erasure without the person, or deleted with it (`PMP_SITE_ERASED_PURCHASES`)",
        identifiers={
            "subject": IdentifierKind.SUBJECT,
            "user_id": IdentifierKind.USER_ID,
            "email_hash": IdentifierKind.EMAIL_HASH,
            "session_id": IdentifierKind.SESSION_ID,
        },
        personal={
            **nothing("email", "billing_data", "visitor", "metadata", "utm_attribution", "coupon_codes", "referral_code"),
            **word("payment_method", PAYMENTS, otherwise=OTHER),
        },
        stays={
            "id": Stays.ID,
            "site": Stays.ID,
            "order_id": Stays.SHOP,
            **products,
            "currency": Stays.WORD,
            "payment_status": Stays.WORD,
            "base_currency": Stays.WORD,
            "country": Stays.WORD,
        },
        sealed={"email": EMAIL_CONTEXT, "billing_data": BILLING_CONTEXT, "visitor": VISITOR_CONTEXT},
        internal=("lines_fixed", "ordered_on"),
        ages=Ages("timestamp", key="id"),
        parts=(
            Part(LineRow, "purchase_id", stays={"purchase_id": Stays.ID, "course_ids": Stays.SHOP, **products}),
            Part(EntryRow, "purchase_id", references, {**ids, "kind": Stays.WORD, "reason": Stays.WORD, "returned_lines": Stays.SHOP}),
            Part(
                ReportRow,
                "purchase_id",
                {**references, "payment": pseudonym_of("payment"), "reason": _reason, **word("source", SENDERS, otherwise=OTHER)},
                {
                    "purchase_id": Stays.ID,
                    "returned_lines": Stays.SHOP,
                    **dict.fromkeys(("kind", "status", "currency", "changed"), Stays.WORD),
                },
            ),
        ),
    )
    return (kept if erased == "keep" else replace(kept, deletes_rows=True),)
