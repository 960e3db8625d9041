"""Which column of a file is which field: named in a TOML file, or guessed from the header."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cli.errors import CommandFailed

ORDER_FIELDS: Final[Mapping[str, Sequence[str]]] = {
    "order_id": ("orderid", "id", "order", "ordernumber"),
    "order_number": ("ordernumber",),
    "placed_at": ("orderdate", "datecreatedgmt", "datecreated", "date"),
    "paid_at": ("paiddate", "datepaidgmt", "datepaid", "paidat"),
    "changed_at": ("datemodifiedgmt", "datemodified", "modifieddate"),
    "status": ("status", "orderstatus"),
    "amount": ("ordertotal", "ordertotalamount", "total", "netsales"),
    "currency": ("ordercurrency", "currency"),
    "user_id": ("customerid", "customeruser", "userid", "customeruserid"),
    "email": ("billingemail", "emailbilling", "customeremail", "email"),
    "first_name": ("billingfirstname", "firstnamebilling"),
    "last_name": ("billinglastname", "lastnamebilling"),
    "country": ("billingcountry", "countrycodebilling", "countrybilling"),
    "payment_method": ("paymentmethod", "paymentmethodtitle"),
    "discount_total": ("discounttotal", "cartdiscountamount", "cartdiscount"),
    "tax_total": ("taxtotal", "ordertotaltaxamount", "totaltax", "ordertax"),
    "shipping_total": ("shippingtotal", "ordershippingamount", "ordershipping"),
    "coupon_codes": ("coupons", "couponcode", "couponcodes"),
    "refunded_total": ("refundedtotal", "orderrefundamount", "refundtotal", "totalrefunded"),
    "product_id": ("productid", "itemid"),
    "product_name": ("productname", "itemname", "products"),
    "product_type": ("producttype",),
    "quantity": ("quantity", "itemquantity"),
    "line_amount": ("linetotal", "itemtotal", "orderlinetotal"),
}
"""Fields of an order, and the names under which exports have them, in lower case without anything but letters and digits."""
EVENT_FIELDS: Final[Mapping[str, Sequence[str]]] = {
    **{name: (name.replace("_", ""),) for name in ("id", "user_id", "session_id", "page_title", "referrer", "user_agent", "email")},
    "timestamp": ("timestamp", "time", "createdat", "date"),
    "event_type": ("eventtype", "event", "eventname", "name"),
    "event_category": ("eventcategory", "category"),
    "page_url": ("pageurl", "url", "page"),
    "ip_address": ("ipaddress", "ip"),
    **{f"utm_{name}": (f"utm{name}",) for name in ("source", "medium", "campaign", "term", "content")},
}
"""Fields of an event, likewise."""


class FileMapping(BaseModel):
    """How a file is read. Columns are by field; everything else has defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: dict[str, str] = Field(default_factory=dict)
    """The column of each field."""
    timezone: str = "UTC"
    """Of times without a zone: where the shop is."""
    date_format: str = ""
    """As of `strptime`; empty for ISO 8601 and what can't be misread."""
    decimal: Literal["", ".", ","] = ""
    """The decimal separator; empty if each amount shows it."""
    currency: str = ""
    """Of orders without one; empty for the shop's base currency."""
    statuses: dict[str, str] = Field(default_factory=dict)
    """WooCommerce's status for each word of the file."""
    event_types: dict[str, str] = Field(default_factory=dict)
    """The mesh's type for each event of the file."""
    metadata: list[str] = Field(default_factory=list)
    """Columns that become metadata of events."""

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError("is no time zone of the IANA database, such as Europe/Berlin") from error
        return name

    @cached_property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.timezone)

    def cell(self, cells: Mapping[str, str], field: str) -> str:
        """The value of a field in a row; empty for none."""
        return cells.get(self.columns.get(field, ""), "")


def read_mapping(
    file: Path | None, header: Sequence[str], fields: Mapping[str, Sequence[str]], required: Iterable[str], timezone: str
) -> FileMapping:
    """The mapping of a file: its columns as named, and those of other fields as guessed.

    Args:
        file: a TOML file; None for none.
        header: the columns of the table.
        fields: the fields there are, with the names by which they are guessed.
        required: fields without which nothing can be imported.
        timezone: of times without a zone, if the mapping names none.

    Raises:
        CommandFailed: the mapping is malformed, names what is not there, or lacks a required field.
    """
    named: dict[str, Any] = {"timezone": timezone}
    try:
        named |= tomllib.loads(file.read_text()) if file else {}
        mapping = FileMapping.model_validate(named)
    except OSError as error:
        raise CommandFailed(f"{file} can't be read: {error.strerror or error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise CommandFailed(f"{file or 'the mapping'} can't be used: {faults}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{file} is no TOML file: {error}") from error
    if unknown := sorted(mapping.columns.keys() - fields.keys()):
        raise CommandFailed(f"there is no field {', '.join(unknown)}: there are {', '.join(fields)}")
    if missing := sorted({*mapping.columns.values(), *mapping.metadata} - {*header}):
        raise CommandFailed(f"the file has no column {', '.join(missing)}: it has {', '.join(header)}")
    guessed = _guessed(header, {name: names for name, names in fields.items() if name not in mapping.columns})
    whole = mapping.model_copy(update={"columns": {**guessed, **mapping.columns}})
    if lacking := [name for name in required if name not in whole.columns]:
        raise CommandFailed(
            f"no column of the file could be recognised as {', '.join(lacking)}; its columns are {', '.join(header)}. "
            f'Name them in a file for --mapping: [columns] {lacking[0]} = "..."; see docs/import.md'
        )
    return whole


def _guessed(header: Sequence[str], fields: Mapping[str, Sequence[str]]) -> dict[str, str]:
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(header)}
    found = {field: next((plain[name] for name in names if name in plain), "") for field, names in fields.items()}
    return {field: column for field, column in found.items() if column}
