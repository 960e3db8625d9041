"""Keys of persons: a sealed value opens until its key is destroyed, and only with all of its parts."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr
from sqlalchemy import select, text

from kit.database.engine import Database, open_database
from kit.errors import Unavailable
from kit.migrate import migrate
from kit.people.derivation import InvalidKey
from kit.people.keys.rotation import KeyRotation
from kit.people.keys.seals import Decryptor, KeyId, Seal, Unsealable
from kit.people.keys.store import Keys
from kit.people.keys.table import keys as table
from kit.people.keys.wrapping import EnvironmentKeys, configured_wrapping
from kit.settings import KEYS_DATABASE, Settings

ADA, BOB = "email:ada", "user:bob"
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
ID = KeyId(b"0123456789abcdef", 1)
CIPHER = AESGCM(bytes(32))
SEAL, OPENER = Seal(ID, CIPHER), Decryptor({ID: CIPHER})
ERASED = datetime(2026, 11, 23, tzinfo=UTC)
LATER = ERASED + timedelta(seconds=1)


async def sealed(keys: Keys, identifier: str, plain: str, *, returned: datetime | None = None) -> bytes:
    return (await keys.seals([identifier], {identifier: returned} if returned else None))[identifier].seal(plain, context="c")


async def opened(keys: Keys, value: bytes) -> str:
    return (await keys.decryptor([value])).open(value, context="c")


def reopened(keys: Keys, database: Database, *wrapping: bytes) -> Keys:
    """Another process."""
    return Keys(database, keys.hasher, EnvironmentKeys(*(wrapping or (bytes([1]) * 32,))))


def at_another_time(keys: Keys, database: Database) -> tuple[Keys, list[datetime]]:
    """A process whose clock shows the last of the times."""
    times = [datetime.now(UTC)]
    return Keys(database, keys.hasher, EnvironmentKeys(bytes([1]) * 32), clock=lambda: times[-1]), times


def holding(folder: Path, value: bytes) -> list[str]:
    """The files in which a value is found."""
    return [path.name for path in folder.iterdir() if value in path.read_bytes()]


async def rows(database: Database) -> Sequence[object]:
    async with database.sessions() as session:
        return (await session.execute(select(table).order_by(table.c.owner, table.c.generation))).all()


@pytest.mark.parametrize("plain", ["", "ada@example.com", "Zoë Ødegård", "x" * 100_000])
def test_what_was_sealed_opens_in_its_context(plain: str) -> None:
    assert OPENER.open(SEAL.seal(plain, context="event:email"), context="event:email") == plain


def test_a_text_seals_differently_each_time_and_47_bytes_longer() -> None:
    made = {SEAL.seal("ada@example.com", context="c") for _ in range(100)}
    assert len(made) == 100
    assert {(len(each), each[:1], b"ada" in each) for each in made} == {(15 + 47, b"\x02", False)}


def test_another_context_does_not_open() -> None:
    with pytest.raises(Unsealable, match=r"^the sealed value does not open here$"):
        OPENER.open(SEAL.seal("ada", context="user 1"), context="user 2")


def test_a_value_that_is_passed_off_as_anothers_does_not_open() -> None:
    other = KeyId(b"fedcba9876543210", 1)
    value = SEAL.seal("ada", context="c")
    forged = value[:1] + other.owner + value[17:]
    with pytest.raises(Unsealable):
        Decryptor({ID: CIPHER, other: CIPHER}).open(forged, context="c")


def test_every_changed_or_missing_byte_is_noticed() -> None:
    value = SEAL.seal("ada", context="c")
    for place in range(len(value)):
        changed = bytearray(value)
        changed[place] ^= 1
        for wrong in (bytes(changed), value[:place]):
            # A changed owner or generation leads to no key, and so to nothing.
            try:
                assert OPENER.open(wrong, context="c") == ""
                assert not wrong or 1 <= place < 19
            except Unsealable:
                pass


async def test_each_identifier_has_a_key_of_its_own(keys: Keys) -> None:
    ada, bob = await sealed(keys, ADA, "ada"), await sealed(keys, BOB, "bob")
    assert (await opened(keys, ada), await opened(keys, bob)) == ("ada", "bob")
    assert ada[1:19] != bob[1:19]
    assert ada[1:19] == (await sealed(keys, ADA, "again"))[1:19]
    decryptor = await keys.decryptor([ada, None, b"", bob])
    assert [decryptor.open(each, context="c") for each in (bob, None, ada)] == ["bob", "", "ada"]


async def test_several_processes_that_seal_for_the_same_identifiers_at_once_use_the_same_keys(keys: Keys, keys_database: Database) -> None:
    processes = [keys, reopened(keys, keys_database), reopened(keys, keys_database)]
    identifiers = [f"user:{number}" for number in range(20)]
    made = await asyncio.gather(*(sealed(process, each, each) for each in identifiers for process in processes))
    reader = reopened(keys, keys_database)
    assert [await opened(reader, value) for value in made] == [each for each in identifiers for _ in processes]
    assert len(await rows(keys_database)) == len(identifiers)


async def test_a_destroyed_key_opens_nothing_and_is_not_replaced_for_late_values(keys: Keys, keys_database: Database) -> None:
    ada, bob = await sealed(keys, ADA, "ada"), await sealed(keys, BOB, "bob")
    assert await keys.destroy([ADA, "session:never sealed for"], ERASED) == 1
    for process in (keys, reopened(keys, keys_database)):
        assert (await opened(process, ada), await opened(process, bob)) == ("", "bob")
        for identifier in (ADA, "session:never sealed for"):
            assert await sealed(process, identifier, "late") == b""
            assert await sealed(process, identifier, "late", returned=ERASED) == b""
    assert await keys.destroy([ADA], ERASED) == 0
    assert "wrapped=b" not in repr([row for row in await rows(keys_database) if getattr(row, "destroyed_at", None)])


async def test_a_person_who_registers_again_gets_another_key_which_the_old_erasure_does_not_destroy(keys: Keys) -> None:
    before = await sealed(keys, ADA, "before")
    await keys.destroy([ADA], ERASED)
    after = await sealed(keys, ADA, "after", returned=LATER)
    also = await sealed(keys, ADA, "also")
    assert await keys.destroy([ADA], ERASED) == 0, "the same erasure, taken up again"
    assert [await opened(keys, value) for value in (before, after, also)] == ["", "after", "also"]
    assert await keys.destroy([ADA], LATER) == 1
    assert [await opened(keys, value) for value in (before, after, also)] == ["", "", ""]


async def test_another_process_stops_using_a_destroyed_key_within_seconds(keys: Keys, keys_database: Database) -> None:
    other, clock = at_another_time(keys, keys_database)
    value = await sealed(other, ADA, "ada")
    await keys.destroy([ADA], ERASED)
    clock.append(clock[-1] + timedelta(seconds=10))
    assert await opened(other, value) == ""
    assert await sealed(other, ADA, "late") == b""


async def test_without_the_wrapping_key_the_database_of_keys_is_of_no_use(keys: Keys, keys_database: Database) -> None:
    value = await sealed(keys, ADA, "ada")
    thief = reopened(keys, keys_database, OLD)
    with pytest.raises(Unavailable, match=r"^a person's key is wrapped by none of PMP_KEY_ENCRYPTION_KEYS$"):
        await opened(thief, value)


async def test_keys_are_rewrapped_while_others_use_them(keys: Keys, keys_database: Database) -> None:
    old = reopened(keys, keys_database, OLD)
    values = [await sealed(old, f"user:{number}", f"{number}") for number in range(5)]
    await old.destroy(["user:4"], ERASED)
    both = reopened(keys, keys_database, NEW, OLD)
    rotation = KeyRotation(keys_database, EnvironmentKeys(NEW, OLD))
    assert await rotation.stale() == 4
    assert sum([done async for done in rotation.run()]) == 4
    assert await rotation.stale() == 0
    new = reopened(keys, keys_database, NEW)
    assert [await opened(new, value) for value in values] == ["0", "1", "2", "3", ""]
    assert await sealed(both, "user:4", "late") == b""


async def test_the_intake_has_a_key_of_the_day_and_expired_ones_are_deleted(keys: Keys, keys_database: Database) -> None:
    value = (await keys.intake()).seal("ada@example.org", context="c")
    assert value[1:19] == (await reopened(keys, keys_database).intake()).seal("x", context="c")[1:19]
    process, clock = at_another_time(keys, keys_database)
    for days, found in ((30, "ada@example.org"), (31, "")):
        clock.append(clock[0] + timedelta(days=days))
        assert value[1:19] != (await process.intake()).seal("x", context="c")[1:19]
        assert await opened(process, value) == found


async def test_while_the_database_of_keys_is_down_yesterdays_intake_key_does(keys: Keys, keys_database: Database) -> None:
    process, clock = at_another_time(keys, keys_database)
    known = await process.intake()
    clock.append(clock[0] + timedelta(days=1))
    async with keys_database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE subject_keys RENAME TO out_of_reach"))
    try:
        assert await process.intake() is known
        with pytest.raises(Unavailable, match=r"^the keys of persons are out of reach$"):
            await reopened(keys, keys_database).intake()
    finally:
        async with keys_database.engine.begin() as connection:
            await connection.execute(text("ALTER TABLE out_of_reach RENAME TO subject_keys"))
    assert await process.intake() is not known


async def test_a_destroyed_key_is_in_no_file_of_sqlite(keys: Keys, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/subject_keys.db"
    await migrate(KEYS_DATABASE, url)
    async with open_database(url) as database:
        here = reopened(keys, database)
        await sealed(here, ADA, "ada")
        async with database.sessions() as session:
            wrapped = await session.scalar(select(table.c.wrapped)) or b"none"
        assert holding(tmp_path, wrapped)
        await here.destroy([ADA], ERASED)
        assert await here.scrub()
        assert holding(tmp_path, wrapped) == []


@pytest.mark.parametrize("key", ["", "not base64!", b64encode(bytes(31)).decode(), f"{b64encode(OLD).decode()},"])
def test_wrong_wrapping_keys_are_refused_without_showing_them(settings: Settings, key: str) -> None:
    with pytest.raises(InvalidKey) as refused:
        configured_wrapping(settings.model_copy(update={"key_encryption_keys": SecretStr(key)}))
    assert str(refused.value) == "PMP_KEY_ENCRYPTION_KEYS is not 32 bytes in base64, or several such keys with commas between them"
    assert refused.value.__cause__ is None
