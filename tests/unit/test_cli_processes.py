from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cli.processes import Command, SupervisedProcess, describe_exit, last_lines
from tests.servers import is_alive, niceness_of_session, until


async def is_ready() -> bool:
    return True


async def is_never_ready() -> bool:
    return False


def shell(script: str, log: Path, ready: Callable[[], Awaitable[bool]] = is_ready, grace_seconds: float = 10.0) -> Command:
    return Command("part", "service", ("sh", "-c", script), dict(os.environ), log, "127.0.0.1:1", ready, grace_seconds=grace_seconds)


@pytest.fixture
def said() -> list[str]:
    return []


async def deaths(part: SupervisedProcess, messages: asyncio.Queue[object], count: int) -> None:
    """Waits until the process has died so often."""
    while part.deaths < count:
        await messages.get()


async def test_a_process_that_dies_is_started_again_with_growing_pauses(tmp_path: Path, said: list[str]) -> None:
    messages: asyncio.Queue[object] = asyncio.Queue()

    def say(text: str) -> None:
        said.append(text)
        messages.put_nowait(text)

    part = SupervisedProcess(shell("echo once; exit 3", tmp_path / "log", is_never_ready), lambda: None, say)
    run = asyncio.create_task(part.run())
    await deaths(part, messages, 2)
    part.end()
    await run
    assert said == [f"part ended with exit status 3; starting it again in {pause} s" for pause in ("0.5", "1")]
    assert part.state.restarts == 1
    assert last_lines(tmp_path / "log") == ["once"] * 2


async def test_what_ended_a_process_is_reported_and_its_pauses_grow_no_longer_than_it_says(tmp_path: Path, said: list[str]) -> None:
    command = replace(shell("exit 1", tmp_path / "log", is_never_ready), longest_pause=0.6, why=lambda: "the disk is full")
    part = SupervisedProcess(command, lambda: None, said.append)
    run = asyncio.create_task(part.run())
    while len(said) < 3:  # noqa: ASYNC110 (nobody sets an event)
        await asyncio.sleep(0.01)
    part.end()
    await run
    assert said == [f"part ended with exit status 1 (the disk is full); starting it again in {pause} s" for pause in ("0.5", "0.6", "0.6")]


async def test_a_process_ends_on_request(tmp_path: Path, said: list[str]) -> None:
    part = SupervisedProcess(
        shell("trap 'echo drained; exit 0' TERM; while :; do sleep 0.05; done", tmp_path / "log"), lambda: None, said.append
    )
    run = asyncio.create_task(part.run())
    await part.was_ready.wait()
    await asyncio.sleep(0.3)  # the shell has set its trap
    part.end()
    await run
    assert last_lines(tmp_path / "log") == ["drained"]
    assert said == []
    assert (part.state.state, part.state.pid) == ("stopped", None)


async def test_a_process_that_does_not_end_is_killed(tmp_path: Path, said: list[str]) -> None:
    part = SupervisedProcess(
        shell("trap '' TERM; while :; do sleep 0.05; done", tmp_path / "log", grace_seconds=0.2), lambda: None, said.append
    )
    run = asyncio.create_task(part.run())
    await part.was_ready.wait()
    await asyncio.sleep(0.3)
    part.end()
    await run
    assert said == ["part did not end within 0.2 s: killing it"]


async def test_a_process_is_ready_only_when_it_says_so(tmp_path: Path, said: list[str]) -> None:
    part = SupervisedProcess(shell("exec sleep 60", tmp_path / "log", is_never_ready), lambda: None, said.append)
    run = asyncio.create_task(part.run())
    await asyncio.sleep(0.5)
    assert part.state.state == "starting"
    part.kill()
    await run
    assert not part.was_ready.is_set()


async def test_a_failure_of_its_supervision_is_reported_and_the_process_restarted(tmp_path: Path, said: list[str]) -> None:
    """If anything goes wrong with one process, its supervision continues, and with it the mesh."""
    answers = iter([ValueError("half an answer"), ValueError("again"), True])

    async def is_odd() -> bool:
        answer = next(answers)
        if isinstance(answer, ValueError):
            raise answer
        return answer

    argv = ("sh", "-c", "exec sleep 60")
    command = Command("part", "service", (*argv, "\0"), dict(os.environ), tmp_path / "log", "127.0.0.1:1", is_odd)
    part = SupervisedProcess(command, lambda: None, said.append)
    run = asyncio.create_task(part.run())
    while not said:  # noqa: ASYNC110 (nobody sets an event)
        await asyncio.sleep(0.01)
    assert said == ["part can't be started (ValueError: embedded null byte); starting it again in 0.5 s"]
    part.command = replace(command, argv=argv)
    await part.was_ready.wait()
    part.kill()
    await run
    assert said[1] == "part can't be asked whether it is ready (ValueError: half an answer)"
    assert len(said) == 3, said  # each is reported once


async def test_a_process_that_yields_does_so_with_all_it_starts(tmp_path: Path) -> None:
    command = Command(
        "part", "service", ("sh", "-c", "sleep 60; true"), dict(os.environ), tmp_path / "log", "127.0.0.1:1", is_never_ready, niceness=7
    )
    part = SupervisedProcess(command, lambda: None, print)
    run = asyncio.create_task(part.run())
    try:
        while not (part.state.pid and psutil.Process(part.state.pid).children()):  # noqa: ASYNC110 (nobody sets an event)
            await asyncio.sleep(0.01)
        shell = psutil.Process(part.state.pid)
        assert [each.nice() for each in (shell, *shell.children())] == [7, 7]
        assert niceness_of_session(shell.pid) in {7, None}
    finally:
        part.kill()
        await run


async def test_a_missing_program_is_reported(tmp_path: Path) -> None:
    messages: asyncio.Queue[object] = asyncio.Queue()
    command = Command("part", "service", ("there-is-no-such-program",), dict(os.environ), tmp_path / "log", "127.0.0.1:1", is_never_ready)
    part = SupervisedProcess(command, lambda: None, messages.put_nowait)
    run = asyncio.create_task(part.run())
    await deaths(part, messages, 1)
    part.end()
    await run
    assert "there-is-no-such-program" in "".join(last_lines(tmp_path / "log"))


def test_processes_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio, os, pathlib, sys\n"
        "from cli.processes import spawn\n"
        "async def main():\n"
        "    child = await spawn(('sleep', '300'), dict(os.environ), pathlib.Path(sys.argv[1]))\n"
        "    print(child.pid, flush=True)\n"
        "    await child.wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        child = int(supervisor.stdout.readline())
        until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
        supervisor.send_signal(signal.SIGKILL)
    until(lambda: not is_alive(child), 5)


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "ended with exit status 0"), (3, "ended with exit status 3"), (-9, "was killed by SIGKILL"), (-200, "was killed by signal 200")],
)
def test_an_end_is_described_in_words(status: int, words: str) -> None:
    assert describe_exit(status) == words
