"""Both sides of the synchronisation, as they decide: whatever is lost, repeated or delayed, they end up the same.

The site's side is the plugin's own code, run by PHP; the mesh's side is that of identity, gdpr and the destination.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pmp.analytics.v1.analytics_pb2 import GetFirstSourceResponse
from pmp.gdpr.v1.change_pb2 import Choice as ConsentChoice
from pmp.gdpr.v1.change_pb2 import ConsentConflict
from pmp.gdpr.v1.gdpr_pb2 import Consent as ConsentReport
from pmp.identity.v1.identity_pb2 import User

from kit.people.privacy import PURPOSES, Choice, Consent, in_force
from kit.times import timestamp
from services.destinations.conflicts.consumers import conflict_of
from services.destinations.wordpress.fields import FIELDS, NAMES, Owner
from services.destinations.wordpress.payload import user_changed
from services.gdpr.rules import choices
from services.identity.fields import microseconds, moment, wins
from tests.wordpress.sites import program

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
START = datetime(2026, 3, 1, 10, tzinfo=UTC)
WRITTEN = {each.name: each.written for each in FIELDS if each.owner is Owner.WORDPRESS}
VALUES = {
    "email": ["ada@example.org", "ada@lovelace.example", ""],
    "first_name": ["Ada", "Augusta", ""],
    "last_name": ["Lovelace", "Byron", ""],
    "language": ["en_US", "de_DE"],
}
ROUNDS = 4
"""After so many calls, at most, both sides are the same and nothing more is sent."""

Json = dict[str, Any]
Ask = Callable[[Json], Any]
Step = tuple[str, Any]
fast = hypothesis_settings(deadline=None, derandomize=True, max_examples=300)


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Asks the plugin's rules."""
    with subprocess.Popen([program("php"), HERE / "merge.php"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as php:
        assert php.stdin
        assert php.stdout
        yield partial(_asked, php)
        php.stdin.close()


def _asked(php: subprocess.Popen[str], call: Json) -> Any:
    assert php.stdin
    assert php.stdout
    php.stdin.write(json.dumps(call) + "\n")
    php.stdin.flush()
    return json.loads(php.stdout.readline())


@dataclass
class Mesh:
    """What identity and gdpr hold of one person, and what the destination states of it."""

    now: datetime = START
    user: User = field(default_factory=lambda: User(user_id="u1", wordpress_id=42, user_type="lead", currency="EUR"))
    times: dict[str, int] = field(default_factory=dict[str, int])
    made: dict[str, list[Choice]] = field(default_factory=lambda: {purpose: [] for purpose in PURPOSES})
    version: int = 0
    keeps_addresses: bool = True
    """False if those that are stated are of an erased person: what is kept is empty."""

    def write(self, name: str, value: str, at: datetime) -> None:
        """Writes a field of the profile, as identity does."""
        written = WRITTEN[name]
        if not wins(self.times, written, at):
            return
        self.times[written] = microseconds(at)
        self.user.written_at[written].FromDatetime(at)
        if name == "email" and not self.keeps_addresses:
            self.user.email = ""
        elif name == "language":
            self.user.preferences["language"] = value
        else:
            setattr(self.user, name, value)
        self.change()

    def derive(self, user_type: str) -> None:
        """Another stage follows from what happened."""
        self.user.user_type = user_type
        self.change()

    def choose(self, report: Json) -> None:
        """Records choices, as gdpr does."""
        made = ConsentReport(**{purpose: report[purpose] for purpose in PURPOSES if purpose in report})
        made.timestamp.FromDatetime(report["timestamp"])
        for each in choices(made, self.now):
            self.made[each.purpose].append(Choice(each.granted, each.decided_at))

    def change(self) -> None:
        """The user was updated."""
        self.version += 1
        self.user.updated_at.FromDatetime(START + self.version * timedelta(microseconds=1))

    @property
    def consent(self) -> Consent:
        """The choices in force."""
        return Consent(*(in_force(self.made[purpose]) for purpose in PURPOSES), person_id="u1")

    def call(self) -> Json:
        """What the destination states now."""
        return json.loads(json.dumps(user_changed(self.user, GetFirstSourceResponse(source="google"), self.consent)))

    def profile(self) -> dict[str, str]:
        """The profile by the names of its fields."""
        return {each.name: each.read(self.user) for each in FIELDS if each.owner is Owner.WORDPRESS}


@dataclass
class Site:
    """An account with what the plugin keeps of it, and its outbox."""

    ask: Ask
    now: datetime
    profile: dict[str, str] = field(default_factory=lambda: {name: values[0] for name, values in VALUES.items()})
    state: Json = field(default_factory=dict[str, Any])
    outbox: list[Json] = field(default_factory=list[Json])
    conflicts: list[Json] = field(default_factory=list[Json])

    def write(self, name: str, value: str) -> None:
        """The person changes the account."""
        self.profile[name] = value
        self.state = self._asked("report")
        self._report()

    def choose(self, purpose: str, granted: bool) -> None:
        """The person makes a choice."""
        before = self.state
        self.state = self._asked("choose", purpose=purpose, granted=granted)
        if self.state.get("consent") != before.get("consent"):
            self._report_choice(purpose)

    def receive(self, call: Json) -> None:
        """A call of the mesh arrives."""
        merged = self._asked("of", profile=self.profile, call=call)
        self.state = merged["state"]
        self.conflicts += merged["conflicts"]
        if merged["is_reported"]:
            self._report()
        for purpose in merged["choices"]:
            self._report_choice(purpose)

    def _report(self) -> None:
        self.outbox.append({"profile": dict(self.profile), "at": self.state["reported_at"]})

    def _report_choice(self, purpose: str) -> None:
        choice = self.state["consent"][purpose]
        self.outbox.append({"consent": {purpose: choice["granted"], "timestamp": moment(choice["decided_at"])}})

    def _asked(self, method: str, **more: Any) -> Any:
        return self.ask({"method": method, "state": self.state, "now": microseconds(self.now), **more})


class World:
    """A mesh and a site, and what is on its way between them."""

    def __init__(self, ask: Ask, ahead: int, *, is_registered: bool = True) -> None:
        self.mesh = Mesh()
        self.ahead = timedelta(milliseconds=ahead)
        self.site = Site(ask, START + self.ahead)
        self.calls: list[Json] = []
        self.made: list[Json] = []
        self.site.write("email", VALUES["email"][0])  # registers
        if is_registered:
            self.report(0)
        else:
            self._lose(self.site.outbox, 0)

    def step(self, step: Step) -> None:
        """Something happens."""
        what, value = step
        mesh, site = self.mesh, self.site
        happen: dict[str, Callable[[], None]] = {
            "time": lambda: self.wait(value),
            # Not at the instant of a report of the site: an empty value of that time is its answer.
            "mesh writes": lambda: mesh.write(value[0], value[1], mesh.now + timedelta(microseconds=1)),
            "mesh keeps no address": lambda: setattr(mesh, "keeps_addresses", False),
            "mesh derives": lambda: mesh.derive(value),
            "mesh chooses": lambda: mesh.choose({value[0]: value[1], "timestamp": mesh.now}),
            "site writes": lambda: site.write(*value),
            "site chooses": lambda: site.choose(*value),
            "call": self.make_call,
            "call arrives": lambda: self.call(*value),
            "report arrives": lambda: self.report(*value),
            "call is lost": lambda: self._lose(self.calls, value),
            "report is lost": lambda: self._lose(site.outbox, value),
        }
        happen[what]()

    def wait(self, milliseconds: int) -> None:
        """Time passes."""
        self.mesh.now += timedelta(milliseconds=milliseconds)
        self.site.now = self.mesh.now + self.ahead

    def make_call(self) -> None:
        """The mesh states what it knows now."""
        self.made.append(self.mesh.call())
        self.calls.append(self.made[-1])

    def call(self, index: int, again: bool) -> None:
        """A call arrives; if `again`, it will arrive once more."""
        if self.calls:
            self.site.receive(self._taken(self.calls, index, again=again))

    def report(self, index: int, again: bool = False) -> None:
        """A report of the site arrives; if `again`, it will arrive once more."""
        if not self.site.outbox:
            return
        report = self._taken(self.site.outbox, index, again=again)
        if "consent" in report:
            self.mesh.choose(report["consent"])
            return
        for name, value in report["profile"].items():
            if value or name != "email":  # no report states that an account has no address
                self.mesh.write(name, value, moment(report["at"]))

    def settle(self) -> None:
        """What is on its way arrives, and calls are made until nothing follows from them."""
        for call in self.calls:
            self.site.receive(call)
        for _ in range(ROUNDS):
            self.wait(1)
            while self.site.outbox:
                self.report(0)
            self.site.receive(self.mesh.call())
            if not self.site.outbox:
                return
        raise AssertionError(self.site.outbox)

    def _lose(self, messages: list[Json], index: int) -> None:
        if messages:
            self._taken(messages, index, again=False)

    def _taken(self, messages: list[Json], index: int, *, again: bool) -> Json:
        index %= len(messages)
        return messages[index] if again else messages.pop(index)


values = st.sampled_from([(name, value) for name, some in VALUES.items() for value in some])
decisions = st.tuples(st.sampled_from(PURPOSES[:2]), st.booleans())
indexes = st.integers(0, 5)
arrivals = st.tuples(indexes, st.booleans())
on_the_way = [
    st.tuples(st.just("time"), st.sampled_from([0, 1, 1, 900])),
    st.tuples(st.just("call"), st.none()),
    st.tuples(st.just("call arrives"), arrivals),
    st.tuples(st.just("report arrives"), arrivals),
    st.tuples(st.just("call is lost"), indexes),
    st.tuples(st.just("report is lost"), indexes),
]
at_the_site = [st.tuples(st.just("site writes"), values), st.tuples(st.just("site chooses"), decisions)]
derived = st.tuples(st.just("mesh derives"), st.sampled_from(["lead", "customer", "subscriber"]))
forgets = st.tuples(st.just("mesh keeps no address"), st.none())
in_the_mesh = [derived, forgets, st.tuples(st.just("mesh writes"), values), st.tuples(st.just("mesh chooses"), decisions)]
clocks = st.sampled_from([-3000, 0, 0, 2, 5000])
all_steps = st.lists(st.one_of(*on_the_way, *at_the_site, *in_the_mesh), max_size=30)


@given(ahead=clocks, steps=all_steps, is_registered=st.booleans())
@fast
def test_any_interleaving_with_losses_and_repetitions_converges(ask: Ask, ahead: int, steps: list[Step], is_registered: bool) -> None:
    world = World(ask, ahead, is_registered=is_registered)
    for each in steps:
        world.step(each)
    world.settle()
    mesh, site = world.mesh, world.site
    for late in world.made:
        site.receive(late)
    may_differ = {"email"} if not (site.profile["email"] and mesh.keeps_addresses) else set[str]()
    profiles = [{name: value for name, value in each.items() if name not in may_differ} for each in (mesh.profile(), site.profile)]
    assert profiles[0] == profiles[1]
    assert site.state["derived"] == mesh.call()["derived"]
    held: dict[str, Json] = dict(site.state["consent"])
    in_both = {purpose: choice.granted for purpose in PURPOSES if (choice := getattr(mesh.consent, purpose)) is not None}
    assert {purpose: choice["granted"] for purpose, choice in held.items()} == in_both


@given(ahead=clocks, steps=all_steps)
@fast
def test_a_denial_after_all_else_has_arrived_stays_although_clocks_differ(ask: Ask, ahead: int, steps: list[Step]) -> None:
    world = World(ask, ahead)
    for each in steps:
        world.step(each)
    world.settle()
    world.wait(1)
    world.mesh.choose({"marketing_emails": False, "timestamp": world.mesh.now})
    world.settle()
    choice = world.mesh.consent.marketing_emails
    assert choice
    assert (choice.granted, world.site.state["consent"]["marketing_emails"]["granted"]) == (False, False)


def test_a_site_whose_clock_is_ahead_does_not_undo_a_denial_that_followed_its_grant(ask: Ask) -> None:
    world = World(ask, 240_000)
    for granted in (False, True):
        world.step(("time", 1))
        world.site.choose("marketing_emails", granted)
        world.report(0)
    world.settle()
    world.step(("time", 900))
    world.mesh.choose({"marketing_emails": False, "timestamp": world.mesh.now})
    world.settle()
    choice = world.mesh.consent.marketing_emails
    assert choice
    assert not choice.granted


@pytest.mark.parametrize("email", ["", "ada@example.org"])
def test_a_report_that_crosses_a_call_starts_no_endless_exchange_about_an_address(ask: Ask, email: str) -> None:
    world = World(ask, 0)
    world.mesh.keeps_addresses = not email
    world.step(("time", 1))
    world.site.write("email", email)
    world.site.write("first_name", "Augusta")
    world.make_call()
    world.call(0, again=False)
    assert world.site.outbox, "the call was made before the report"
    for _ in range(6):
        world.step(("time", 1))
        world.report(0)
        world.make_call()
        world.call(0, again=False)
    assert world.site.outbox == []
    assert world.mesh.user.first_name == "Augusta"


def test_a_profile_that_the_mesh_does_not_have_is_reported_again(ask: Ask) -> None:
    world = World(ask, 0, is_registered=False)
    world.settle()
    assert world.mesh.profile() == world.site.profile


@given(steps=st.lists(st.one_of(*on_the_way, *at_the_site, derived), max_size=30))
@fast
def test_changes_of_owners_alone_are_no_conflict(ask: Ask, steps: list[Step]) -> None:
    world = World(ask, 0)
    for each in steps:
        world.step(each)
    world.settle()
    assert world.site.conflicts == []


def test_a_profile_that_another_system_wrote_is_a_conflict_that_the_site_wins(ask: Ask) -> None:
    world = World(ask, 0)
    world.settle()
    for each in [("time", 900), ("mesh writes", ("first_name", "Augusta"))]:
        world.step(each)
    world.settle()
    [conflict] = world.site.conflicts
    assert (conflict["field"], conflict["site_value"], conflict["mesh_value"], conflict["kept"]) == (
        "first_name",
        "Ada",
        "Augusta",
        "wordpress",
    )
    assert world.mesh.user.first_name == "Ada"


@pytest.mark.parametrize(("later", "kept"), [(-1, "wordpress"), (0, "mesh"), (1, "mesh")])
def test_of_two_choices_that_did_not_know_of_each_other_the_newer_one_or_the_denial_wins(ask: Ask, later: int, kept: str) -> None:
    world = World(ask, 0)
    world.step(("time", 900))
    world.site.choose("marketing_emails", True)
    world.mesh.choose({"marketing_emails": False, "timestamp": world.mesh.now + timedelta(milliseconds=min(later, 0))})
    if later > 0:
        world.step(("time", later))
        world.mesh.choose({"marketing_emails": False, "timestamp": world.mesh.now})
    world.step(("call", None))
    world.settle()
    assert [(each["field"], each["kept"]) for each in world.site.conflicts] == [("marketing_emails", kept)]
    choice = world.mesh.consent.marketing_emails
    assert choice
    assert choice.granted is (kept == "wordpress")
    # What gdpr finds has the id by which SyncedUsers.php would report the same conflict.
    [stated] = world.site.conflicts
    own = ConsentChoice(granted=True, decided_at=timestamp(moment(stated["at"]) - later * timedelta(seconds=1)))
    theirs = ConsentChoice(granted=False, decided_at=timestamp(moment(stated["at"])))
    found = conflict_of(ConsentConflict(subject="wordpress:42", purpose="marketing_emails", site=own, mesh=theirs))
    digest = sha256(f"42 {json.dumps(stated, separators=(',', ':'))}".encode()).hexdigest()
    assert (found.id, found.kept) == (f"wp-conflict-{digest}", kept)


def test_the_documentation_lists_every_field_with_its_owner() -> None:
    rows = [line for line in (ROOT / "docs" / "synchronisation.md").read_text().splitlines() if line.startswith("| `")]
    assert rows == [f"| `{each.name}` | {each.owner.value} | {each.meaning} |" for each in FIELDS]
    assert not NAMES[Owner.MESH] & (NAMES[Owner.WORDPRESS] | NAMES[Owner.NEWEST])
