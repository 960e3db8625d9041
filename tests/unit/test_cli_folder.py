from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from cli.errors import CommandFailed
from cli.folder import DataFolder, write_private
from cli.local_secrets import Secrets
from cli.logs import rotate
from cli.state import running_mesh


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "data")
    made.create()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_for_its_owner_only(folder: DataFolder) -> None:
    assert [mode(path) for path in (folder.path, folder.logs, folder.redis)] == [0o700] * 3


def test_what_other_users_could_read_is_closed_to_them(folder: DataFolder) -> None:
    files = [folder.path / "purchases.db", folder.redis / "appendonlydir" / "appendonly.aof.1.incr.aof", folder.logs / "old.log"]
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.touch()
        path.chmod(0o644)
        path.parent.chmod(0o755)
    opened = [*files, *(path.parent for path in files)]
    assert sorted(folder.create()) == sorted(opened)
    assert not [path for path in opened if mode(path) & 0o077]
    assert folder.create() == []


def test_a_link_out_of_the_folder_is_left_alone(folder: DataFolder, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch(0o644)
    (folder.logs / "linked.log").symlink_to(elsewhere)
    (folder.logs / "gone.log").symlink_to(tmp_path / "nowhere")
    assert folder.create() == []
    assert mode(elsewhere) == 0o644


def test_a_folder_that_everybody_may_write_to_is_refused(folder: DataFolder) -> None:
    folder.path.chmod(0o1777)
    with pytest.raises(CommandFailed, match="everybody may write to"):
        folder.create()
    assert mode(folder.path) == 0o1777


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_another_user_is_refused(folder: DataFolder) -> None:
    (folder.path / "purchases.db").touch()
    os.chown(folder.path / "purchases.db", 65534, 65534)
    with pytest.raises(CommandFailed, match=r"purchases\.db belongs to another user \(65534\)"):
        folder.create()


def test_a_folder_is_held_by_one_mesh(folder: DataFolder) -> None:
    with folder.lock():
        assert folder.is_locked()
        with pytest.raises(CommandFailed, match="another `pmp up` runs on"), DataFolder(folder.path).lock():
            pass
    assert not folder.is_locked()


def test_a_folder_that_was_never_used_is_not_held(tmp_path: Path) -> None:
    assert not DataFolder(tmp_path / "nothing").is_locked()


def test_a_state_left_over_is_not_a_running_mesh(folder: DataFolder) -> None:
    folder.state.write_text("{}")
    with pytest.raises(CommandFailed, match="run `pmp up` first"):
        running_mesh(folder)


def test_a_state_of_another_version_is_reported(folder: DataFolder) -> None:
    folder.state.write_text("{}")
    with folder.lock(), pytest.raises(CommandFailed, match="of another version"):
        running_mesh(folder)


def test_secrets_are_made_once_and_kept(folder: DataFolder) -> None:
    made = Secrets.load_or_make(folder)
    assert Secrets.load_or_make(folder) == made == Secrets.load(folder)
    assert mode(folder.secrets) == 0o600


def test_a_folder_from_before_the_sites_secret_gets_one_and_keeps_that_of_the_environment(folder: DataFolder) -> None:
    made = Secrets.load_or_make(folder, {}).model_dump(exclude={"site_secret"})
    folder.secrets.write_text(json.dumps(made))
    added = Secrets.load_or_make(folder, {})
    assert added.site_secret.startswith("whsec_")
    assert Secrets.load(folder) == added
    assert added.model_dump(exclude={"site_secret"}) == Secrets.model_validate(made).model_dump(exclude={"site_secret"})
    own = Secrets.load_or_make(folder, {"PMP_SITE_ERASURE_SECRET": "whsec_own"})
    assert (own.site_secret, Secrets.load(folder).site_secret) == ("whsec_own", "whsec_own"), "what `pmp connect` hands over"


def test_each_secret_is_another(folder: DataFolder) -> None:
    made = Secrets.load_or_make(folder)
    values = [
        made.mesh_token,
        made.vault_key,
        *made.key_encryption_keys,
        *made.api_keys,
        *made.browser_api_keys,
        *made.jwt_secrets,
        made.redis_password,
        made.site_secret,
    ]
    assert len(set(values)) == len(values)
    assert min(map(len, values)) >= 43  # 256 bits


def test_damaged_secrets_are_never_replaced_nor_shown(folder: DataFolder) -> None:
    folder.secrets.write_text('{"mesh_token": "do not show me"}')
    with pytest.raises(CommandFailed, match="is damaged") as failure:
        Secrets.load_or_make(folder)
    assert "do not show me" not in str(failure.value)
    assert "do not show me" in folder.secrets.read_text()


def test_a_private_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as reader:
        write_private(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_that_grew_too_large_is_set_aside(tmp_path: Path) -> None:
    large, small = tmp_path / "large.log", tmp_path / "small.log"
    large.write_text("x" * 101)
    small.write_text("x" * 100)
    with large.open("a") as writer:
        rotate(tmp_path, 100)
        writer.write("goes on")
    assert (tmp_path / "large.log.1").read_text() == "x" * 101
    assert large.read_text() == "goes on"
    assert small.stat().st_size == 100
