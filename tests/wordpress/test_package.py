"""What a shop installs: the zip that `make plugin` builds."""

from __future__ import annotations

import gettext
import re
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.wordpress.sites import DASHBOARD, PLUGIN, ROOT, program, run

_TEMPLATE: Final = "pmp-analytics/languages/pmp-analytics.pot"
_GERMAN: Final = "pmp-analytics/languages/pmp-analytics-de_DE"
_SAID: Final = re.compile(r"\b(?:__|_e|_n|_x|(?:esc_html|esc_attr)(?:__|_e|_x))\(\s*'((?:[^'\\]|\\.)*)'(.*?)\)", re.DOTALL)
"""A text for people, and what follows it in the call."""


@pytest.fixture
def package(tmp_path: Path) -> zipfile.ZipFile:
    run([ROOT / "wordpress" / "build", tmp_path], PLUGIN)
    return zipfile.ZipFile(tmp_path / "pmp-analytics.zip")


def test_the_zip_is_the_plugin_with_the_dashboard_and_its_translations(package: zipfile.ZipFile) -> None:
    sources = {str(path.relative_to(PLUGIN.parent)) for path in PLUGIN.rglob("*") if path.is_file()}
    dashboard = {f"{PLUGIN.name}/dashboard/{path.relative_to(DASHBOARD)}" for path in DASHBOARD.rglob("*") if path.is_file()}
    assert f"{PLUGIN.name}/dashboard/index.html" in dashboard
    assert {name for name in package.namelist() if not name.endswith("/")} == sources | dashboard | {_TEMPLATE, f"{_GERMAN}.mo"}
    assert "Domain Path: /languages" in package.read("pmp-analytics/pmp-analytics.php").decode()


def test_every_text_for_people_can_be_translated(package: zipfile.ZipFile, tmp_path: Path) -> None:
    calls = [found for path in sorted(PLUGIN.rglob("*.php")) for found in _SAID.findall(path.read_text())]
    assert [text for text, rest in calls if "'pmp-analytics'" not in rest] == []
    template = package.read(_TEMPLATE).decode()
    wanted = set(re.findall(r'^msgid "(.+)"$', re.sub(r'"\n"', "", template), re.MULTILINE))
    assert {re.sub(r"\\'", "'", text).replace('"', '\\"') for text, _ in calls} == wanted
    (tmp_path / "template.pot").write_text(template)
    run([program("msgfmt"), "--check-format", "--output-file=/dev/null", tmp_path / "template.pot"], PLUGIN)


def test_every_text_is_there_in_german(package: zipfile.ZipFile, tmp_path: Path) -> None:
    for name in (_TEMPLATE, f"{_GERMAN}.po", f"{_GERMAN}.mo"):
        package.extract(name, tmp_path)
    texts = tmp_path / f"{_GERMAN}.po"
    run([program("msgcmp"), texts, tmp_path / _TEMPLATE], PLUGIN)
    run([program("msgfmt"), "--check-format", "--output-file=/dev/null", texts], PLUGIN)
    with (tmp_path / f"{_GERMAN}.mo").open("rb") as compiled:
        german = gettext.GNUTranslations(compiled)
    assert german.gettext("Connect this shop") == "Diesen Shop verbinden"
