"""Holds the repository to the words of docs/glossary.md: each word has one meaning, and words it replaces do not come back."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.shape.repository import ROOT, tracked_files

SUFFIXES = {".py", ".md", ".proto", ".php", ".js", ".mjs", ".ts", ".lua", ".yaml", ".yml", ".toml", ".sh", ".env"}

WORDS = {
    **dict.fromkeys(("tell", "tells", "told", "telling", "retell", "retells", "retold", "news"), "report, publish, record, state"),
    "behind": "after (an offset), lagging",
    **dict.fromkeys(("learn", "learns", "learned", "learnt", "learning"), "apply, project"),
    **dict.fromkeys(("alias", "aliases"), "identifier, link"),
    "holdings": "personal tables",
    "vault": "KeyedHasher, Signer",
}
"""Words that no text or name contains, also as a part of snake_case or camelCase, with their replacement."""

NAMES = {
    "HeadBehindError": "TopicAheadOfDatabase",
    "Overtaken": "OffsetConflict",
    "Together": "GroupCommit",
    "NeedsNoCompany": "NotBatchable",
    "Lingering": "DeferredBatch",
    "Publisher": "ServiceRuntime",
    "Feed": "Subscription",
    "Holding": "PersonalTable",
    "each_name": "any_identifier",
    "Sighting": "IdentityObservation",
    "Bought": "PurchaseObservation",
    "Glimpse": "SessionFacts",
    "Standing": "LifecycleStage",
    "standing": "lifecycle_stage",
    "Opener": "Decryptor",
    "_Birth": "NewKey",
    "regularly": "run_every",
    "learn_rights": "project_consent",
    "bind_facts": "bind_log_fields",
    "Place": "TopicPartition, Offset",
    "names_in": "identifiers_in",
    "names_of": "identifiers_of",
    "subject_of": "identifier_of",
}
"""Names of Python code, with their replacement."""


@dataclass(frozen=True, slots=True)
class Exemption:
    """A use of a word that is not the repository's own choice."""

    files: str
    """Pattern of the paths."""
    text: str
    """Regular expression of the use."""
    reason: str
    """Why it stays."""


EXEMPTIONS = (
    Exemption("*", r"LearnDash|learndash", "the name of a WordPress plugin"),
    Exemption(
        "*",
        r"AliasChanged( alias = 1)?|\.alias\b|\balias=|\"alias\"|f\"alias ",
        "the wire: identity's changes and their keys; pydantic's and SQLAlchemy's word",
    ),
    Exemption("*", r"person_aliases", "a table"),
    Exemption("services/purchases/*", r"is_news", "a column"),
    Exemption("*", r"(PMP_)?VAULT_KEY|vault_key", "a setting"),
    Exemption("kit/*", r"pmp vault 1", "the context of derived keys: another one would be other keys"),
    Exemption("*", r"LogFallsBehind", "an alert, on which operators may route"),
    Exemption("*", r"behind (a|its|the) (\w+ )?(proxy|gateway|load balancer)", "the networks' own word"),
    Exemption("*", r"validation_alias|TypeAlias", "pydantic's and Python's words"),
    Exemption("tests/*", r"\.tell\(\)", "a method of Python's files"),
    Exemption("tests/unit/*", r"news\.google\.com", "a host of Google"),
    Exemption("protos/*", r"consent\.tells_a_choice", "the wire: the id of a rule"),
    Exemption("tests/referrers.py", r"images\|news\|video", "names of Google's services"),
    Exemption("*wordpress/*", r"pmp_analytics_tell_order|_pmp_told", "a cron hook and a meta key, stored in sites' databases"),
    Exemption("wordpress/*", r"'told'|\btold: int", "a key of an option, stored in sites' databases"),
    Exemption("*.py", r"\bpb\.Place\b|\bprivacy_pb2\.Place\b", "the wire: a message of SubjectDataService"),
)

_OWN = Path(__file__).resolve().relative_to(ROOT).as_posix()
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NAME = re.compile(rf"(?<!\w)({'|'.join(NAMES)})(?!\w)")


def _replaced(path: str, text: str) -> Counter[str]:
    """How often a text uses words and names that the glossary replaces."""
    for each in EXEMPTIONS:
        if fnmatch(path, each.files):
            text = re.sub(each.text, " ", text)
    found = Counter(word for part in _PART.findall(text) if (word := part.lower()) in WORDS)
    if path.endswith(".py"):
        found.update(_NAME.findall(text))
    return found


def test_replaced_words_do_not_come_back() -> None:
    paths = [path for path in tracked_files() if Path(path).suffix in SUFFIXES and path != _OWN]
    assert len(paths) > 300
    found = {path: counted for path in paths if (counted := _replaced(path, (ROOT / path).read_text()))}
    assert found == {}, {word: WORDS.get(word) or NAMES[word] for counted in found.values() for word in counted}


@pytest.mark.parametrize("exemption", EXEMPTIONS, ids=lambda each: each.text)
def test_an_exemption_has_a_use(exemption: Exemption) -> None:
    paths = [path for path in tracked_files() if fnmatch(path, exemption.files) and Path(path).suffix in SUFFIXES and path != _OWN]
    assert any(re.search(exemption.text, (ROOT / path).read_text()) for path in paths)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is told in words.", {"told": 1}),
        ("def _told_of(told): ...", {"told": 2}),
        ("class Retold: telling = TELLS", {"retold": 1, "telling": 1, "tells": 1}),
        ("newsletter, knews, bestTold", {"told": 1}),
        ("A site behind a proxy falls behind.", {"behind": 1}),
        ("Place, displacement, Marketplace, standing", {"Place": 1, "standing": 1}),
        ("alias = row.person_aliases, AliasChanged", {"alias": 1}),
    ],
)
def test_words_are_found_in_prose_and_within_names(text: str, found: dict[str, int]) -> None:
    assert _replaced("cli/example.py", text) == found


def test_names_are_those_of_python_alone() -> None:
    assert _replaced("docs/example.md", "The Publisher and its Feed stand Together.") == {}
