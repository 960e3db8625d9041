"""Exchange rates as the European Central Bank publishes them, and which one an order gets."""

from __future__ import annotations

import io
import zipfile
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from services.purchases.exchange import MalformedRatesError, Quote, by_day, rate_on, read_rates
from services.purchases.money import PAR, Rate

HISTORY = """Date,USD,JPY,CYP,
2026-11-20,1.1523,160.55,N/A,
2026-11-19,1.15,160.1,N/A,
2007-12-31,1.4721,164.93,0.585274,
"""


def zipped(**files: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name.replace("_", "."), text)
    return target.getvalue()


def quote(day: int, currency: str, units: str) -> Quote:
    return Quote(date(2026, 11, day), currency, Decimal(units))


def test_a_history_is_read_as_it_is_shipped() -> None:
    quotes = read_rates(HISTORY.encode())
    assert len(quotes) == 7
    assert (quotes[0], quotes[-1]) == (quote(20, "USD", "1.1523"), Quote(date(2007, 12, 31), "CYP", Decimal("0.585274")))
    assert read_rates(HISTORY.replace("\n", "\r\n").encode("utf-8-sig")) == quotes
    assert read_rates(zipped(history_csv=HISTORY)) == quotes


def test_any_table_with_date_currency_and_rate_is_read() -> None:
    assert read_rates(b"date,currency,rate\n2026-11-20,KWD,0.3541\n2026-11-20,usd,1.1523\n") == [
        quote(20, "KWD", "0.3541"),
        quote(20, "USD", "1.1523"),
    ]
    other = "\ufeffRate;Note;Currency;Date\r\n0.3541;x;KWD;2026-11-20T00:00:00Z\r\n;;;\r\nN/A;;JPY;2026-11-20\r\n"
    assert read_rates(other.encode()) == [quote(20, "KWD", "0.3541")]
    dollars = b"date\tbase\tcurrency\trate\n2026-11-20\tUSD\tEUR\t0.8\n2026-11-20\tUSD\tKWD\t0.3\n"
    assert read_rates(dollars) == [quote(20, "USD", "1.25"), quote(20, "KWD", "0.375")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"date,currency,rate\n", "the file has no rates"),
        (b"date,currency,rate\n2026-11-20,KWD,x\n", "line 2: 'x' is no rate of KWD"),
        (b"date,currency,rate\n2026-11-20,dinar,1\n", "line 2: 'dinar' is no code of a currency"),
        (b"date,currency,rate\n20.11.2026,KWD,1\n", "line 2: '20.11.2026' is no day"),
        (b"date,currency,rate\n2026-11-20,KWD,1\n2026-11-20,KWD,1\n", "line 3: KWD of 2026-11-20 is there twice"),
        (b"date,base,currency,rate\n2026-11-20,USD,KWD,0.3\n", "2026-11-20 has no rate of EUR for one USD"),
        (b"", "line 1: the header does not begin with Date"),
        (b"day,USD\n", "line 1: the header does not begin with Date"),
        (b"Date,\n", "line 1: there are no currencies"),
        (b"Date,USD,USD\n", "one is there twice"),
        (b"Date,usd\n", "'usd' is no code of a currency"),
        (b"Date,USD\n", "the file has no rates"),
        (b"Date,USD\n20.11.2026,1.1\n", "line 2: '20.11.2026' is no day"),
        (b"Date,USD,JPY\n2026-11-20,1.1\n", "line 2: 1 rates for 2 currencies"),
        (b"Date,USD\n2026-11-20,1.1,160\n", "line 2: 2 rates for 1 currencies"),
        (b"Date,USD\n2026-11-20,1.1\n2026-11-20,1.1\n", "line 3: 2026-11-20 is there twice"),
        *(
            (f"Date,USD\n2026-11-20,{cell}\n".encode(), "is no rate of USD")
            for cell in ("x", "0", "-1", "NaN", "Infinity", "1e99", "1e-99")
        ),
        (b"Date,USD\n2026-11-20,\xff\n", "not text in UTF-8"),
        (b"PK\x03\x04 broken", "the archive is broken"),
        (zipped(readme_txt="nothing"), "does not hold one CSV file"),
        (zipped(a_csv=HISTORY, b_csv=HISTORY), "does not hold one CSV file"),
    ],
)
def test_what_is_no_history_is_refused_as_a_whole(content: bytes, reason: str) -> None:
    with pytest.raises(MalformedRatesError) as raised:
        read_rates(content)
    assert reason in str(raised.value)


def test_the_rate_is_that_of_the_last_day_that_knows_both_currencies() -> None:
    quotes = [quote(20, "USD", "1.15"), quote(19, "USD", "1.14"), quote(19, "JPY", "160"), quote(12, "KWD", "0.35"), quote(12, "USD", "1")]
    days, friday = by_day(quotes), date(2026, 11, 20)
    assert rate_on(friday, "EUR", "USD", days) == Rate(Decimal(1), Decimal("1.15"))
    assert rate_on(date(2026, 11, 22), "USD", "EUR", days) == Rate(Decimal("1.15"), Decimal(1))
    assert rate_on(friday, "JPY", "USD", days) == Rate(Decimal(160), Decimal("1.14"))
    assert rate_on(date(2026, 11, 19), "EUR", "USD", days) == Rate(Decimal(1), Decimal("1.14"))
    assert rate_on(friday, "KWD", "USD", days) is None
    assert rate_on(date(2026, 11, 19), "KWD", "USD", days) == Rate(Decimal("0.35"), Decimal(1))
    assert rate_on(date(2026, 11, 11), "EUR", "USD", days) is None
    assert rate_on(friday, "USD", "USD", {}) == PAR


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "rates.csv"
    file.write_text("nonsense")
    for arguments, words in (([str(tmp_path / "none.csv")], "can't be read"), ([str(file)], "nothing was loaded: line 1")):
        refusal = CliRunner().invoke(app, ["rates", "import", *arguments, "--data", str(tmp_path)])
        assert (refusal.exit_code, refusal.stdout) == (1, "")
        assert words in " ".join(refusal.stderr.split())
    file.write_text(HISTORY)
    refusal = CliRunner().invoke(app, ["rates", "import", str(file), "--data", str(tmp_path)])
    assert "run `pmp up` first" in refusal.stderr


def test_the_command_loads_a_history(tmp_path: Path) -> None:
    file = tmp_path / "rates.zip"
    file.write_bytes(zipped(history_csv=HISTORY))
    assert CliRunner().invoke(app, ["migrate", "purchases", "--data", str(tmp_path)]).exit_code == 0
    loaded = CliRunner().invoke(app, ["rates", "import", str(file), "--data", str(tmp_path)])
    assert loaded.exit_code == 0, loaded.stderr
    assert "7 rates from 2007-12-31 to 2026-11-20; 0 orders that had none are priced." in loaded.stdout
