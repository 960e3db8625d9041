"""What streams of realtime are made of: cursors, what is kept for slow readers, what is personal, how many there may be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from pmp.options.v1 import options_pb2
from pmp.realtime.v1 import realtime_pb2 as pb

from kit.errors import InvalidRequest, Overloaded
from services.realtime.cursor import Partition, cursor_of, positions_of
from services.realtime.lifetime import Lifetimes
from services.realtime.messages import leave_out_personal
from services.realtime.selection import EventsFrame, position
from services.realtime.window import Window

PARTITIONS = [Partition(topic, number) for topic in ("events", "purchases") for number in range(3)]


@given(st.lists(st.integers(0, 2**63 - 1), min_size=6, max_size=6))
def test_a_cursor_is_read_as_it_was_written(offsets: list[int]) -> None:
    positions = dict(zip(PARTITIONS, offsets, strict=True))
    assert positions_of(cursor_of(positions), reversed(PARTITIONS)) == positions


@given(st.text(max_size=7))
def test_a_text_that_is_too_short_for_a_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="since is not the cursor"):
        positions_of(text, PARTITIONS)


def frame(cursor: str, size: int = 1) -> EventsFrame:
    made = position(cursor)
    made.message.messages.add(type="x" * size)
    return made


def test_a_reader_that_was_overtaken_is_given_the_number_of_what_it_missed() -> None:
    window = Window("start")
    for number in range(5):
        window.add(frame(f"after-{number}", 400), 3, float(number), 4000)
    assert (window.first, window.end, window.left) == (9, 15, "after-2")
    kept = window.at(9)
    assert kept is not None
    assert (kept.frame.cursor, kept.end) == ("after-3", 12)
    assert window.at(15) is None
    with pytest.raises(LookupError):
        window.at(3)


def test_the_newest_response_is_kept_whatever_its_size() -> None:
    window = Window("start")
    window.add(frame("small"), 1, 0.0, 1000)
    window.add(frame("large", 5000), 1, 0.0, 1000)
    assert (window.first, window.end, window.left) == (1, 2, "small")


def test_a_response_is_kept_for_a_minute() -> None:
    window = Window("start")
    window.add(frame("old"), 2, 100.0, 1000)
    window.add(frame("new"), 1, 130.0, 1000)
    window.expire(160.0)
    assert (window.first, window.left) == (0, "start")
    window.expire(161.0)
    assert (window.first, window.left) == (2, "old")
    window.expire(191.0)
    assert (window.first, window.end, window.left) == (3, 3, "new")


def test_a_reader_follows_until_it_refuses_a_response() -> None:
    window, written = Window("start"), list[str]()

    def offer(response: EventsFrame) -> bool:
        written.append(response.cursor)
        return len(written) < 3

    follower, other = window.follow(offer), window.follow(lambda _: True)
    for number in range(4):
        window.add(frame(f"after-{number}"), 2, float(number), 4000)
    assert written == ["after-0", "after-1", "after-2"], "none after the one that it has refused"
    assert (follower.woken.is_set(), follower.number, follower.cursor) == (True, 4, "after-1")
    left = window.at(follower.number)
    assert left is not None
    assert left.frame.cursor == "after-2"
    window.leave(follower)
    window.leave(other)
    assert (other.woken.is_set(), other.number, other.cursor) == (False, 8, "after-3")
    assert (follower.number, follower.cursor) == (4, "after-1")
    again = window.follow(offer)
    window.wake()
    assert again.woken.is_set()


async def test_a_heartbeat_is_due_when_nothing_was_written_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.realtime.lifetime._HEARTBEAT_SECONDS", 0.1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with Lifetimes(1, 1).stream(("a",)) as lifetime:
        assert not await lifetime.wait(asyncio.Event(), lambda: began + 0.2)
    assert 0.3 <= loop.time() - began < 2


def filled(kind: Descriptor) -> Message:
    """A message with a value in every field."""
    message: Any = pb.LiveMessage() if kind is pb.LiveMessage.DESCRIPTOR else getattr(pb, kind.name)()
    for field in kind.fields:
        if field.message_type is not None and field.message_type.file is pb.DESCRIPTOR:
            value = filled(field.message_type)
            (getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)).CopyFrom(value)
        elif field.message_type is not None:
            getattr(message, field.name).GetCurrentTime()
        else:
            setattr(message, field.name, "text" if field.type == FieldDescriptor.TYPE_STRING else 1)
    return message


@pytest.mark.parametrize("kind", [pb.LiveEvent, pb.LiveOrder])
def test_what_is_declared_personal_is_left_out_and_nothing_else(kind: type[Any]) -> None:
    message = filled(kind.DESCRIPTOR)
    before = {field.name for field, _ in message.ListFields()}
    assert before == {field.name for field in kind.DESCRIPTOR.fields}
    leave_out_personal(message)
    options = {field.name: field.GetOptions().Extensions for field in kind.DESCRIPTOR.fields}
    personal = {
        name
        for name, declared in options.items()
        if declared[options_pb2.identifier] or declared[options_pb2.text] == options_pb2.TEXT_PERSONAL
    }
    assert {"user_id", "session_id"} <= personal
    assert before - {field.name for field, _ in message.ListFields()} == personal


def test_personal_data_is_left_out_of_what_a_message_contains() -> None:
    message = pb.LiveMessage(event=pb.LiveEvent(id="kept", user_id="7"))
    leave_out_personal(message)
    assert message == pb.LiveMessage(event=pb.LiveEvent(id="kept"))


async def test_a_caller_and_all_callers_have_so_many_streams() -> None:
    lifetimes = Lifetimes(3, 2)
    one, other = ("shop", "read", "1"), ("shop", "read", "2")
    with lifetimes.stream(one), lifetimes.stream(one):
        with pytest.raises(Overloaded, match="2 streams open"), lifetimes.stream(one):
            pass
        with lifetimes.stream(other), pytest.raises(Overloaded, match="too many streams"), lifetimes.stream(("", "", "")):
            pass
    with lifetimes.stream(one), lifetimes.stream(one):
        pass


async def test_a_stream_from_inside_of_the_mesh_is_limited_by_all_streams_alone() -> None:
    lifetimes = Lifetimes(3, 1)
    inside = ("", "", "")
    with lifetimes.stream(inside), lifetimes.stream(inside):
        pass


async def test_ended_streams_are_over_and_later_ones_are_not_unless_the_process_ends() -> None:
    lifetimes = Lifetimes(9, 9)
    with lifetimes.stream(("a",)) as before:
        lifetimes.end_all(for_good=False)
        with lifetimes.stream(("a",)) as after:
            assert (before.is_over, after.is_over) == (True, False)
            lifetimes.end_all(for_good=True)
            with lifetimes.stream(("a",)) as late:
                assert after.is_over
                assert late.is_over


async def test_a_stream_waits_for_a_change() -> None:
    changed = asyncio.Event()
    with Lifetimes(1, 1).stream(("a",)) as lifetime:
        waiting = asyncio.create_task(lifetime.wait(changed))
        await asyncio.sleep(0)
        assert not waiting.done()
        changed.set()
        assert await waiting
