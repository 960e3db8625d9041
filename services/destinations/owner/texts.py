"""The catalogue of what the owner is sent: every text in every language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

Language: TypeAlias = Literal["en", "de"]


class Texts(NamedTuple):
    """The texts and the notation of a language."""

    thousands: str
    decimal: str
    day: str
    """Format of a day."""
    moment: str
    """Format of a time, in UTC."""
    week: str
    """Subject of a weekly summary."""
    month: str
    """Subject of a monthly summary."""
    period: str
    now: str
    before: str
    change: str
    none: str
    """In the place of a figure that there is not."""
    most: str
    """Heading of what changed most."""
    rose: str
    fell: str
    same: str
    """When nothing changed."""
    figures: Mapping[str, str]
    """Names of figures by their keys, in the order in which they are shown."""
    rankings: Mapping[str, str]
    """Headings of rankings by their dimensions, in the order in which they are shown."""
    orders: str
    sessions: str
    began: str
    """Subject when an alarm begins."""
    ended: str
    """Subject when an alarm has ended."""
    since: str
    alarms: Mapping[str, tuple[str, str]]
    """What each alarm is, and what to do."""


CATALOGUE: Final[Mapping[Language, Texts]] = {
    "en": Texts(
        thousands=",",
        decimal=".",
        day="%Y-%m-%d",
        moment="%Y-%m-%d %H:%M UTC",
        week="{shop}: week {name}",
        month="{shop}: month {name}",
        period="{first} to {last} ({zone}), compared with {first_before} to {last_before}",
        now="Now",
        before="Before",
        change="Change",
        none="none",
        most="What changed most",
        rose="{name} rose from {before} to {now} ({change})",
        fell="{name} fell from {before} to {now} ({change})",
        same="Nothing changed.",
        figures={
            "net_revenue": "Net revenue",
            "orders": "Orders",
            "average_order_value": "Average order value",
            "refunds": "Refunds",
            "conversion_rate": "Conversion rate",
            "visitors": "Visitors",
            "sessions": "Sessions",
            "page_views": "Page views",
            "leads": "Leads",
            "registrations": "Registrations",
            "enrolments": "Enrolments",
            "completions": "Completions",
            "new_customers": "New customers",
            "returning_customers": "Returning customers",
        },
        rankings={"product": "Products", "source": "Sources", "campaign": "Campaigns", "page": "Pages"},
        orders="{count} orders, {revenue}",
        sessions="{count} sessions",
        began="{shop}: {alarm}",
        ended="{shop}: over: {alarm}",
        since="Since {since}.",
        alarms={
            "books": ("events are missing", "Events that were accepted are not accounted for: see `pmp books --lost`."),
            "shop": (
                "orders differ from the shop's",
                "The ledger does not agree with the shop: `pmp reconcile woocommerce` lists the orders.",
            ),
            "queue": (
                "deliveries to {destination} wait",
                "A delivery has been waiting for more than an hour: see `pmp destinations list`.",
            ),
            "paused": ("{destination} is paused", "Nothing is sent to it until it is resumed: see `pmp destinations list` for the reason."),
            "disk": ("the disk is nearly full", "Less than a tenth of the disk is free: events are refused once it is full."),
        },
    ),
    "de": Texts(
        thousands=".",
        decimal=",",
        day="%d.%m.%Y",
        moment="%d.%m.%Y %H:%M UTC",
        week="{shop}: Woche {name}",
        month="{shop}: Monat {name}",
        period="{first} bis {last} ({zone}), verglichen mit {first_before} bis {last_before}",
        now="Jetzt",
        before="Vorher",
        change="Änderung",
        none="keine",
        most="Was sich am meisten geändert hat",
        rose="{name}: gestiegen von {before} auf {now} ({change})",
        fell="{name}: gefallen von {before} auf {now} ({change})",
        same="Nichts hat sich geändert.",
        figures={
            "net_revenue": "Nettoumsatz",
            "orders": "Bestellungen",
            "average_order_value": "Durchschnittlicher Bestellwert",
            "refunds": "Erstattungen",
            "conversion_rate": "Konversionsrate",
            "visitors": "Besucher",
            "sessions": "Sitzungen",
            "page_views": "Seitenaufrufe",
            "leads": "Leads",
            "registrations": "Registrierungen",
            "enrolments": "Einschreibungen",
            "completions": "Abschlüsse",
            "new_customers": "Neue Kunden",
            "returning_customers": "Wiederkehrende Kunden",
        },
        rankings={"product": "Produkte", "source": "Quellen", "campaign": "Kampagnen", "page": "Seiten"},
        orders="{count} Bestellungen, {revenue}",
        sessions="{count} Sitzungen",
        began="{shop}: {alarm}",
        ended="{shop}: vorbei: {alarm}",
        since="Seit {since}.",
        alarms={
            "books": ("Ereignisse fehlen", "Angenommene Ereignisse sind nicht verbucht: siehe `pmp books --lost`."),
            "shop": (
                "Bestellungen weichen vom Shop ab",
                "Das Kassenbuch stimmt nicht mit dem Shop überein: `pmp reconcile woocommerce` zeigt die Bestellungen.",
            ),
            "queue": (
                "Lieferungen an {destination} warten",
                "Eine Lieferung wartet seit mehr als einer Stunde: siehe `pmp destinations list`.",
            ),
            "paused": ("{destination} ist angehalten", "Nichts wird gesendet, bis es fortgesetzt wird: siehe `pmp destinations list`."),
            "disk": (
                "die Festplatte ist fast voll",
                "Weniger als ein Zehntel ist frei: Ist sie voll, werden Ereignisse abgelehnt.",
            ),
        },
    ),
}
