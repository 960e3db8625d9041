"""Tables of analytics: facts of sessions, orders and registrations, and the totals by day that are derived from them."""

from __future__ import annotations

from datetime import datetime
from typing import Final, cast

from sqlalchemy import BigInteger, Index, Integer, MetaData, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kit.database.columns import FROM_TOPICS, Id, LongText, Serial, UtcDateTime


class Base(DeclarativeBase):
    """Tables of this service: all of them follow from topics."""

    metadata = MetaData(info=FROM_TOPICS)


class SessionRow(Base):
    """A fact: one session, or one event of the shop's server about a user."""

    __tablename__ = "analytics_sessions"
    __table_args__ = (
        Index("idx_analytics_sessions_carrier", "carrier", "ended_at"),
        Index("idx_analytics_sessions_subject", "subject"),
        Index("idx_analytics_sessions_started_at", "started_at"),
    )

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    carrier: Mapped[str] = mapped_column(Id(280))
    """The identifier under which its events came, `messages.Seen.carrier`. It may have several sessions."""
    subject: Mapped[str | None] = mapped_column(Id(280))
    """The identifier of the user, or of an e-mail address; NULL if none is known."""
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime] = mapped_column(UtcDateTime)
    payload: Mapped[str] = mapped_column(LongText)
    """Its events, `sessions.dumps`."""


class OrderRow(Base):
    """A fact: an order as the last applied change of the topic `purchases` states it."""

    __tablename__ = "analytics_orders"
    __table_args__ = (
        Index("idx_analytics_orders_subject", "subject"),
        Index("idx_analytics_orders_carrier", "carrier"),
        Index("idx_analytics_orders_visitor", "visitor"),
        Index("idx_analytics_orders_sold_at", "sold_at"),
        Index("idx_analytics_orders_is_excluded", "is_excluded"),
    )

    purchase_id: Mapped[str] = mapped_column(Id, primary_key=True)
    subject: Mapped[str] = mapped_column(Id(280))
    carrier: Mapped[str | None] = mapped_column(Id(280))
    """The carrier of the session in which it was bought; NULL if that is unknown."""
    visitor: Mapped[str | None] = mapped_column(Id(280))
    """For whom that session counts: its user, or its carrier; NULL if the session is unknown."""
    sold_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """NULL for an order that does not count: never paid, or excluded."""
    is_excluded: Mapped[bool] = mapped_column(default=False)
    """Whether it is in no total: a test, or one of the shop's staff."""
    net: Mapped[int] = mapped_column(BigInteger)
    """Net revenue in ten-thousandths of the base currency."""
    payload: Mapped[str] = mapped_column(LongText)
    """The order, `orders.Order.dumps`; empty for one that was excluded when only those that count were kept."""
    position: Mapped[int] = mapped_column(BigInteger)
    """Offset of the last applied change in the topic's partition: changes before it are older."""
    ordinal: Mapped[int] = mapped_column(Integer)


class ProductRow(Base):
    """The title of a product, as the last order with it states it."""

    __tablename__ = "analytics_products"

    product_id: Mapped[str] = mapped_column(Id(100), primary_key=True)
    title: Mapped[str] = mapped_column(String(255))


class CourseRow(Base):
    """The title of a course, as the last enrolment in it, or the last order of it alone, states it."""

    __tablename__ = "analytics_courses"

    course_id: Mapped[str] = mapped_column(Id, primary_key=True)
    title: Mapped[str] = mapped_column(String(255))


class RegistrationRow(Base):
    """A fact: a user who registered."""

    __tablename__ = "analytics_registrations"

    user_id: Mapped[str] = mapped_column(Id, primary_key=True)
    day: Mapped[int] = mapped_column(Integer)


class PresenceRow(Base):
    """A fact: an identifier that was in an audience on a day, and the visitor it stood for."""

    __tablename__ = "analytics_presences"
    __table_args__ = (Index("idx_analytics_presences_visitor", "visitor"),)

    subject: Mapped[str] = mapped_column(Id(280), primary_key=True)
    audience: Mapped[str] = mapped_column(Id(280), primary_key=True)
    """All visitors, all customers, or the visitors of one source, campaign or course, `counts.audience`."""
    day: Mapped[int] = mapped_column(Integer, primary_key=True)
    """The day in the site's time zone, `date.toordinal`; so are all days of this service."""
    visitor: Mapped[str] = mapped_column(Id(280))
    """`user:` and the person whom the identifier leads to, or the identifier itself."""
    count: Mapped[int] = mapped_column(Integer)
    """How many facts show it."""


class CustomerMonthRow(Base):
    """A fact: what an identifier bought in a month, or that it registered, and the customer it stood for."""

    __tablename__ = "analytics_customer_months"
    __table_args__ = (Index("idx_analytics_customer_months_customer", "customer"),)

    subject: Mapped[str] = mapped_column(Id(280), primary_key=True)
    month: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """`days.month_number`."""
    customer: Mapped[str] = mapped_column(Id(280))
    """`user:` and the person whom the identifier leads to, or the identifier itself."""
    orders: Mapped[int] = mapped_column(Integer)
    """Orders sold."""
    net: Mapped[int] = mapped_column(BigInteger)
    """Net revenue in ten-thousandths of the base currency."""
    registrations: Mapped[int] = mapped_column(Integer)


class CohortRow(Base):
    """A total: how many persons of a cohort bought in a month, and for how much, `cohorts.cells_of`."""

    __tablename__ = "analytics_cohorts"

    basis: Mapped[str] = mapped_column(Id(16), primary_key=True)
    cohort: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    month: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """0 for the number of all persons of the cohort."""
    members: Mapped[int] = mapped_column(BigInteger)
    net: Mapped[int] = mapped_column(BigInteger)


class AudienceRow(Base):
    """A total: how many members of an audience were in it on a day, and before that last on another, `counts.cells`."""

    __tablename__ = "analytics_audiences"

    audience: Mapped[str] = mapped_column(Id(280), primary_key=True)
    day: Mapped[int] = mapped_column(Integer, primary_key=True)
    previous_day: Mapped[int] = mapped_column(Integer, primary_key=True)
    """0 for none."""
    members: Mapped[int] = mapped_column(BigInteger)


class TrafficRow(Base):
    """A total: figures of the site by day or month, and by the value of a dimension, `counts.Traffic`."""

    __tablename__ = "analytics_traffic"

    dimension: Mapped[str] = mapped_column(Id(16), primary_key=True)
    day: Mapped[int] = mapped_column(Integer, primary_key=True)
    """The day, the month as `days.month_of` has it, or the hour as `Calendar.hour` has it."""
    value: Mapped[str] = mapped_column(Id, primary_key=True)
    visits: Mapped[int] = mapped_column(BigInteger)
    """Sessions that began."""
    bounces: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[int] = mapped_column(BigInteger)
    page_views: Mapped[int] = mapped_column(BigInteger)
    events: Mapped[int] = mapped_column(BigInteger)
    leads: Mapped[int] = mapped_column(BigInteger)
    registrations: Mapped[int] = mapped_column(BigInteger)
    enrolments: Mapped[int] = mapped_column(BigInteger)
    completions: Mapped[int] = mapped_column(BigInteger)


class RevenueRow(Base):
    """A total: figures of orders by day or month, value of a dimension and currency, `counts.Revenue`."""

    __tablename__ = "analytics_revenue"

    dimension: Mapped[str] = mapped_column(Id(16), primary_key=True)
    day: Mapped[int] = mapped_column(Integer, primary_key=True)
    """The day, the month or the hour, as in TrafficRow."""
    value: Mapped[str] = mapped_column(Id, primary_key=True)
    currency: Mapped[str] = mapped_column(Id(3), primary_key=True)
    orders: Mapped[int] = mapped_column(BigInteger)
    quantity: Mapped[int] = mapped_column(BigInteger)
    gross: Mapped[int] = mapped_column(BigInteger)
    refunds: Mapped[int] = mapped_column(BigInteger)
    corrections: Mapped[int] = mapped_column(BigInteger)
    base_gross: Mapped[int] = mapped_column(BigInteger)
    base_refunds: Mapped[int] = mapped_column(BigInteger)
    base_corrections: Mapped[int] = mapped_column(BigInteger)
    entries: Mapped[int] = mapped_column(BigInteger)
    unrated: Mapped[int] = mapped_column(BigInteger)
    discounts: Mapped[int] = mapped_column(BigInteger)
    taxes: Mapped[int] = mapped_column(BigInteger)
    shipping: Mapped[int] = mapped_column(BigInteger)
    base_discounts: Mapped[int] = mapped_column(BigInteger)
    base_taxes: Mapped[int] = mapped_column(BigInteger)
    base_shipping: Mapped[int] = mapped_column(BigInteger)
    base_commissions: Mapped[int] = mapped_column(BigInteger)


class ContentRow(Base):
    """A total: what led to a course by day or month, `counts.Content`: the value of a dimension, for one course."""

    __tablename__ = "analytics_content"

    dimension: Mapped[str] = mapped_column(Id(16), primary_key=True)
    day: Mapped[int] = mapped_column(Integer, primary_key=True)
    """The day, or the month as `days.month_of` has it."""
    course: Mapped[str] = mapped_column(Id, primary_key=True)
    value: Mapped[str] = mapped_column(Id, primary_key=True)
    visits: Mapped[int] = mapped_column(BigInteger)
    orders: Mapped[int] = mapped_column(BigInteger)
    base_gross: Mapped[int] = mapped_column(BigInteger)
    base_refunds: Mapped[int] = mapped_column(BigInteger)
    base_corrections: Mapped[int] = mapped_column(BigInteger)


class ContentFeedRow(Base):
    """The feed of changes of content: one row, which a transaction that numbers changes locks."""

    __tablename__ = "analytics_content_feed"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """1."""
    epoch: Mapped[str] = mapped_column(Id(16))
    """At random: a replay, after which versions begin again, makes a new one."""
    version: Mapped[int] = mapped_column(BigInteger)
    """The version of the last change."""


class ContentChangeRow(Base):
    """The last change of a row of content, by day."""

    __tablename__ = "analytics_content_changes"
    __table_args__ = (Index("idx_analytics_content_changes_version", "version", unique=True),)

    dimension: Mapped[str] = mapped_column(Id(16), primary_key=True)
    day: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    course: Mapped[str] = mapped_column(Id, primary_key=True)
    value: Mapped[str] = mapped_column(Id, primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger)
    """Identifies the row to readers: the version of its first change."""
    version: Mapped[int] = mapped_column(BigInteger)


class ContentRemovalRow(Base):
    """A row of content that is gone, with nothing of what it was about."""

    __tablename__ = "analytics_content_removals"
    __table_args__ = (Index("idx_analytics_content_removals_version", "version", unique=True),)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(BigInteger)


sessions: Final = cast("Table", SessionRow.__table__)
orders: Final = cast("Table", OrderRow.__table__)
products: Final = cast("Table", ProductRow.__table__)
courses: Final = cast("Table", CourseRow.__table__)
registrations: Final = cast("Table", RegistrationRow.__table__)
presences: Final = cast("Table", PresenceRow.__table__)
customer_months: Final = cast("Table", CustomerMonthRow.__table__)
cohorts: Final = cast("Table", CohortRow.__table__)
audiences: Final = cast("Table", AudienceRow.__table__)
traffic: Final = cast("Table", TrafficRow.__table__)
revenue: Final = cast("Table", RevenueRow.__table__)
content: Final = cast("Table", ContentRow.__table__)
content_feed: Final = cast("Table", ContentFeedRow.__table__)
content_changes: Final = cast("Table", ContentChangeRow.__table__)
content_removals: Final = cast("Table", ContentRemovalRow.__table__)
