"""The plugin's readme.txt is what WordPress's directory accepts without a complaint, and says what the plugin's header says."""

from __future__ import annotations

import re

import pytest

from tests.shape.repository import ROOT

PLUGIN = ROOT / "wordpress" / "pmp-analytics"
README = (PLUGIN / "readme.txt").read_text()
HEADER = (PLUGIN / "pmp-analytics.php").read_text().split("*/")[0]
REQUIRED = ("Contributors", "Tags", "Requires at least", "Tested up to", "Requires PHP", "Stable tag", "License", "License URI")
SECTIONS = ("Description", "Installation", "Frequently Asked Questions", "Changelog")
MOST_WORDS = {"Frequently Asked Questions": 5000, "Changelog": 5000}
"""Longer sections are cut by the directory; the others at 2500 words."""

PREAMBLE, *_PARTS = re.split(r"^== (.+?) ==$", README, flags=re.MULTILINE)
TEXTS = dict(zip(_PARTS[::2], (text.strip() for text in _PARTS[1::2]), strict=True))
NAME, *_LINES = PREAMBLE.strip().splitlines()
_HEAD = _LINES[: _LINES.index("")]
FIELDS: dict[str, str] = {name: value for line in _HEAD for name, _, value in [line.partition(": ")]}
SHORT = "\n".join(_LINES[_LINES.index("") :]).strip()


def _of_header(name: str) -> str:
    (found,) = re.findall(rf"^ \* {name}: (.+)$", HEADER, flags=re.MULTILINE)
    return found


def test_its_fields_are_those_of_the_directory() -> None:
    assert sorted(FIELDS) == sorted(REQUIRED)
    assert all(re.fullmatch(r"[a-z0-9-]+", each.strip()) for each in FIELDS["Contributors"].split(","))
    tags = [tag.strip() for tag in FIELDS["Tags"].split(",")]
    assert len(set(tags)) == len(tags) <= 5
    assert not {"plugin", "wordpress"} & {*tags}, "the directory ignores these"
    assert re.fullmatch(r"\d+\.\d+", FIELDS["Tested up to"])


@pytest.mark.parametrize("name", ["Requires at least", "Requires PHP", "License"])
def test_it_agrees_with_the_plugins_header(name: str) -> None:
    assert FIELDS[name] == _of_header(name)


def test_its_name_and_version_are_the_plugins() -> None:
    assert f"=== {_of_header('Plugin Name')} ===" == NAME
    assert FIELDS["Stable tag"] == _of_header("Version")
    assert _of_header("Text Domain") == PLUGIN.name


def test_its_short_description_is_one_line_of_150_characters_without_markup() -> None:
    assert SHORT
    assert "\n" not in SHORT
    assert len(SHORT) <= 150
    assert not re.search(r"[*_`<>\[\]]", SHORT)


def test_its_sections_are_known_and_short_enough() -> None:
    assert [name for name in SECTIONS if not TEXTS.get(name)] == []
    assert {name: len(text.split()) for name, text in TEXTS.items() if len(text.split()) > MOST_WORDS.get(name, 2500)} == {}
    assert len(README.encode()) <= 10_000, "the directory refuses larger ones"


def test_it_says_which_external_service_is_sent_what() -> None:
    """Rule 6 of the directory, for a plugin that sends data elsewhere."""
    assert "privacy policy" in TEXTS["External services"]


def test_its_changelog_begins_with_the_current_version() -> None:
    assert re.findall(r"^= (.+) =$", TEXTS["Changelog"], flags=re.MULTILINE)[0] == FIELDS["Stable tag"]
