"""Files that people have, read into records for the mesh."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from pyarrow import parquet

from cli.errors import CommandFailed
from cli.importing.events_file import read_events, read_ndjson
from cli.importing.files import FileSource, Read, read_header, read_table
from cli.importing.ga4_file import read_ga4
from cli.importing.items import Kind, UnusableError
from cli.importing.mapping import EVENT_FIELDS, ORDER_FIELDS, FileMapping, read_mapping
from cli.importing.orders_file import REQUIRED, read_orders
from cli.importing.stripe_file import read_payments
from cli.importing.values import amount, moment

BERLIN = ZoneInfo("Europe/Berlin")
_arrow: Any = pa
_parquet: Any = parquet


@pytest.mark.parametrize(
    ("text", "decimal", "value"),
    [
        ("1234.5", "", 1234.5),
        ("1,234.50", "", 1234.5),
        ("1.234,50 €", "", 1234.5),
        ("€ 12,5", "", 12.5),
        ("1 234,56", "", 1234.56),
        ("$1234", "", 1234),
        ("\N{MINUS SIGN}3.00", "", -3),
        ("1.234", ",", 1234),
        ("1.234", ".", 1.234),
    ],
)
def test_amounts_are_read_as_they_are_written_in_different_countries(text: str, decimal: str, value: float) -> None:
    assert amount(text, decimal) == value


@pytest.mark.parametrize("text", ["1.234", "12,345", "", "free", "1.2.3"])
def test_an_amount_that_may_be_two_or_none_is_refused(text: str) -> None:
    with pytest.raises(UnusableError):
        amount(text)


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ("2024-07-01 12:30:00", "", datetime(2024, 7, 1, 10, 30, tzinfo=UTC)),
        ("2024-01-01 12:30", "", datetime(2024, 1, 1, 11, 30, tzinfo=UTC)),
        ("2024-07-01T12:30:00Z", "", datetime(2024, 7, 1, 12, 30, tzinfo=UTC)),
        ("2024-07-01 12:30:00 UTC", "", datetime(2024, 7, 1, 12, 30, tzinfo=UTC)),
        ("1719837000", "", datetime(2024, 7, 1, 12, 30, tzinfo=UTC)),
        ("1719837000000", "", datetime(2024, 7, 1, 12, 30, tzinfo=UTC)),
        ("July 1, 2024", "", datetime(2024, 6, 30, 22, tzinfo=UTC)),
        ("01.07.2024 12:30", "%d.%m.%Y %H:%M", datetime(2024, 7, 1, 10, 30, tzinfo=UTC)),
        # The hour that summer time skips.
        ("2024-03-31 02:30:00", "", datetime(2024, 3, 31, 1, 30, tzinfo=UTC)),
    ],
)
def test_times_without_a_zone_are_the_shops(text: str, form: str, expected: datetime) -> None:
    assert moment(text, BERLIN, form).astimezone(UTC) == expected


@pytest.mark.parametrize("text", ["01/02/2024", "yesterday", "2024-13-01"])
def test_a_day_that_may_be_a_month_is_refused(text: str) -> None:
    with pytest.raises(UnusableError, match="date_format"):
        moment(text, UTC)


@pytest.mark.parametrize(
    ("content", "cells"),
    [
        (b'\xef\xbb\xbfa,b\r\n1,"x\r\ny"\r\n', {"a": "1", "b": "x\r\ny"}),
        ("a;b\n1,5;Zürich\n".encode("cp1252"), {"a": "1,5", "b": "Zürich"}),
        (b"a\tb\n 1 \t2\n", {"a": "1", "b": "2"}),
        (b"a,b\n1,2,3\n", {"a": "1", "b": "2"}),
    ],
)
def test_a_table_is_read_whatever_its_encoding_and_delimiter_are(tmp_path: Path, content: bytes, cells: dict[str, str]) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(content)
    assert [dict(row.cells) for row in read_table(file)] == [cells]
    assert read_header(file) == ["a", "b"]


def mapping_of(file: Path, toml: str = "", **fields: Any) -> FileMapping:
    named = None
    if toml:
        named = file.with_suffix(".toml")
        named.write_text(toml)
    return read_mapping(named, read_header(file), fields.get("fields", ORDER_FIELDS), fields.get("required", REQUIRED), "UTC")


def written(folder: Path, text: str, name: str = "file.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def bodies(reads: Iterable[Read]) -> list[dict[str, Any]]:
    return [dict(item.body) for read in reads for item in read.items]


def test_an_export_plugins_orders_are_recognised_by_their_header(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "order_id,order_number,order_date,paid_date,status,order_total,order_currency,billing_email,customer_id,refunded_total,line_item_1\n"
        "12,W-12,2024-07-01 10:00:00,2024-07-01 10:05:00,wc-completed,199.00,eur,ada@example.org,42,20.00,"
        '"name:Course|product_id:201|quantity:2|total:199.00"\n'
        "13,W-13,2024-07-01 11:00:00,,wc-cancelled,99.00,eur,ada@example.org,0,,\n"
        "14,W-14,soon,,wc-completed,99.00,eur,ada@example.org,0,,\n",
    )
    paid, unpaid, broken = read_orders(file, mapping_of(file))
    assert (unpaid.skipped, broken.line, broken.reject) == ("never paid", 4, "a time can't be read: set `date_format` in the mapping")
    [body] = bodies([paid])
    assert body == {
        "id": "wc-order-12-import",
        "order_id": "12",
        "timestamp": "2024-07-01T10:00:00Z",
        "paid_at": "2024-07-01T10:05:00Z",
        "reported_at": "2024-07-01T10:05:00Z",
        "user_id": "42",
        "email": "ada@example.org",
        "billing_address": {"email": "ada@example.org"},
        "amount": 199.0,
        "currency": "EUR",
        "payment_status": "completed",
        "product_id": "201",
        "product_name": "Course",
        "product_type": "other",
        "lines": [{"product_id": "201", "product_name": "Course", "product_type": "other", "quantity": 2, "amount": 199.0}],
        "metadata": {"order_number": "W-12"},
        "refunded_total": 20.0,
        "is_staff": False,
        "source": "plugin",
        "historical": True,
    }


def test_translated_headers_are_named_in_a_mapping(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "Date;Commande n°;État;Produit(s);Ventes nettes\n2024-07-01 00:00:00;#1016;Terminée;Cours;1.234,50\n",
    )
    with pytest.raises(CommandFailed, match="could be recognised as order_id, amount; its columns are Date, Commande n°"):
        mapping_of(file)
    toml = """
        timezone = "Europe/Paris"
        currency = "EUR"
        [columns]
        order_id = "Commande n°"
        status = "État"
        amount = "Ventes nettes"
        product_name = "Produit(s)"
        [statuses]
        "Terminée" = "completed"
    """
    [body] = bodies(read_orders(file, mapping_of(file, toml)))
    assert (body["order_id"], body["amount"], body["currency"], body["payment_status"]) == ("1016", 1234.5, "EUR", "completed")
    assert (body["timestamp"], body["paid_at"]) == ("2024-06-30T22:00:00Z",) * 2
    assert body["lines"] == [{"product_id": "Cours", "product_name": "Cours", "product_type": "other", "quantity": 1, "amount": 1234.5}]


def test_rows_of_one_order_are_its_lines(tmp_path: Path) -> None:
    rows = ("7,2024-01-01,30,201,10", "7,2024-01-01,30,202,20", "8,2024-01-02,5,203,5")
    file = written(tmp_path, "\n".join(["Order ID,Order Date,Order Total,Product ID,Line total", *rows]))
    first, second = read_orders(file, mapping_of(file))
    assert (first.line, second.line) == (3, 4)
    assert [(line["product_id"], line["amount"]) for line in bodies([first])[0]["lines"]] == [("201", 10), ("202", 20)]
    assert [line["amount"] for line in bodies([second])[0]["lines"]] == [5]


def test_without_dates_of_payment_the_method_decides_about_an_order_in_processing(tmp_path: Path) -> None:
    rows = ("1,2024-01-01,5,processing,stripe", "2,2024-01-01,5,processing,cod", "3,2024-01-01,5,on-hold,bacs")
    file = written(tmp_path, "\n".join(["order_id,order_date,order_total,status,payment_method", *rows]))
    assert [body.get("paid_at") for body in bodies(read_orders(file, mapping_of(file)))] == ["2024-01-01T00:00:00Z", None]


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ('[columns]\norder = "a"', "there is no field order"),
        ('[columns]\norder_id = "c"', "the file has no column c: it has a, b"),
        ('colour = "red"', "colour: Extra inputs"),
        ('timezone = "Mars"', "no time zone"),
        ("[", "is no TOML file"),
    ],
)
def test_a_mapping_that_fits_no_file_is_explained(tmp_path: Path, toml: str, reason: str) -> None:
    file = written(tmp_path, "a,b\n1,2\n")
    with pytest.raises(CommandFailed, match=reason):
        mapping_of(file, toml)


def test_a_payment_without_an_order_or_a_buyer_is_an_order_of_its_own(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "id,Created (UTC),Amount,Amount Refunded,Currency,Captured,Status,Customer Email,order_id (metadata),Refunded date (UTC)\n"
        "ch_1,2024-01-02 10:30,40.00,15.00,eur,TRUE,Partially Refunded,,,2024-02-01 08:00\n"
        "ch_2,2024-01-02 10:30,40.00,0,eur,TRUE,Paid,ada@example.org,#77,\n"
        "ch_3,2024-01-02 10:30,40.00,0,eur,FALSE,Paid,ada@example.org,,\n"
        "ch_4,,40.00,0,eur,TRUE,Paid,ada@example.org,,\n",
    )
    own, shops, uncaptured, broken = read_payments(file)
    assert (uncaptured.skipped, broken.reject) == ("not paid", "the payment has no id, no date or no amount")
    refund, purchase = own.items
    assert (refund.kind, refund.order_id, refund.body["timestamp"]) == (Kind.REFUNDS, "stripe:ch_1", "2024-02-01T08:00:00Z")
    assert (purchase.body["order_id"], purchase.body["reported_at"], purchase.body["amount"]) == ("stripe:ch_1", "2024-01-02T10:30:00Z", 40)
    [body] = bodies([shops])
    assert (body["order_id"], body["email"], "reported_at" in body, body["source"]) == ("77", "ada@example.org", False, "stripe")
    with pytest.raises(CommandFailed, match="no export of payments by Stripe"):
        next(read_payments(written(tmp_path, "id,total\n1,2\n")))


def test_events_without_an_id_have_the_same_one_in_a_file_that_has_grown(tmp_path: Path) -> None:
    line = '{"timestamp": "2024-05-01T10:00:00Z", "event_type": "click"}\n'
    before = bodies(read_ndjson(written(tmp_path, line * 2, "a.ndjson")))
    after = bodies(read_ndjson(written(tmp_path, "[1]\n" + line * 3 + "\n", "b.ndjson")))
    ids = [body["id"] for body in after]
    assert ids[:2] == [body["id"] for body in before]
    assert len({*ids}) == 3
    assert all(body["historical"] for body in after)


def test_a_table_of_events_has_its_columns_as_fields_and_metadata(tmp_path: Path) -> None:
    file = written(tmp_path, "time,event,url,utm_source,plan\n2024-05-01 10:00:00,Added to cart,https://shop.example/,ads,pro\nx,y,,,\n")
    toml = 'metadata = ["plan"]\n[event_types]\n"Viewed" = "page_view"\n'
    mapping = mapping_of(file, toml, fields=EVENT_FIELDS, required=("timestamp", "event_type"))
    event, broken = read_events(file, mapping)
    assert broken.line == 3
    assert broken.reject
    [body] = bodies([event])
    assert body.pop("id").startswith("import:")
    assert body == {
        "timestamp": "2024-05-01T10:00:00Z",
        "event_type": "Added_to_cart",
        "page_url": "https://shop.example/",
        "utm_parameters": {"source": "ads"},
        "metadata": {"plan": "pro"},
        "source": "import",
        "historical": True,
    }


GA4: dict[str, Any] = {
    "event_date": "20240501",
    "event_timestamp": "1714557600123456",
    "event_name": "purchase",
    "batch_event_index": "3",
    "user_pseudo_id": "123.456",
    "user_id": "42",
    "event_params": [
        {"key": "ga_session_id", "value": {"int_value": "1714557000"}},
        {"key": "page_location", "value": {"string_value": "https://shop.example/thanks?utm_source=ads"}},
        {"key": "value", "value": {"double_value": 199.5}},
        {"key": "engaged_session_event", "value": {"int_value": "1"}},
    ],
    "collected_traffic_source": {"manual_source": "ads", "manual_medium": "cpc", "manual_campaign_name": "(not set)"},
    "device": {"category": "mobile"},
    "geo": {"country": "Germany"},
    "ecommerce": {"transaction_id": "12"},
    "items": [{"item_id": "201", "item_name": "Course", "quantity": "1", "price": 199.5}],
}


@pytest.mark.parametrize("form", ["json", "gzip", "parquet"])
def test_an_export_of_ga4_is_read_in_each_of_its_formats(tmp_path: Path, form: str) -> None:
    file = tmp_path / "events_20240501"
    text = json.dumps(GA4).encode() + b"\n"
    if form == "parquet":
        _parquet.write_table(_arrow.Table.from_pylist([GA4]), file)
    else:
        file.write_bytes(gzip.compress(text) if form == "gzip" else text)
    [body] = bodies(read_ga4(file, wordpress_users=True))
    assert body.pop("id").startswith("ga4:")
    assert body == {
        "timestamp": "2024-05-01T10:00:00.123456Z",
        "event_type": "purchase",
        "user_id": "42",
        "session_id": "ga4:123.456.1714557000",
        "page_url": "https://shop.example/thanks?utm_source=ads",
        "utm_parameters": {"source": "ads", "medium": "cpc"},
        "metadata": {
            "value": 199.5,
            "device": "mobile",
            "country": "Germany",
            "items": [{"item_id": "201", "item_name": "Course", "quantity": "1", "price": 199.5}],
        },
        "platform": "ga4",
        "source": "import",
        "historical": True,
    }


def test_a_restated_day_of_ga4_has_the_same_events(tmp_path: Path) -> None:
    restated = {**GA4, "is_active_user": True, "user_ltv": {"revenue": 9}, "traffic_source": {"source": "google"}}
    file = written(tmp_path, "\n".join(map(json.dumps, [GA4, restated, {**GA4, "batch_event_index": "4"}])) + "\nx\n", "events.json")
    *reads, broken = read_ga4(file, wordpress_users=False)
    first, again, other = bodies(reads)
    assert first == again
    assert other["id"] != first["id"]
    assert "user_id" not in first
    assert (broken.line, broken.reject) == (4, "the line is no JSON object")


async def test_a_file_goes_on_after_the_line_where_it_was_stopped(tmp_path: Path) -> None:
    file = written(tmp_path, '{"timestamp": "2024-05-01T10:00:00Z", "event_type": "click"}\n' * 450, "a.ndjson")
    source = FileSource("events", file, lambda: read_ndjson(file))
    pages = [page async for page in source.pages({})]
    assert [(page.cursor["line"], page.read, len(page.items)) for page in pages] == [(200, 200, 200), (400, 200, 200), (450, 50, 50)]
    rest = [page async for page in source.pages(pages[0].cursor)]
    assert [[item.body["id"] for item in page.items] for page in rest] == [[item.body["id"] for item in page.items] for page in pages[1:]]
    assert source.total == 450
    assert source.name == FileSource("events", file, lambda: iter(())).name
    assert source.name != FileSource("events", file, lambda: iter(()), b"other mapping").name
