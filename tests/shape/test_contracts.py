"""Holds the contracts to their rules, and to what was promised before."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto
from pmp.options.v1 import options_pb2

from tests.releases import check_out, git
from tests.shape.repository import ROOT

MESH = ROOT / "gen" / "mesh.binpb"
EVERYTHING = FileDescriptorSet.FromString(MESH.read_bytes())
FILES: list[FileDescriptorProto] = [file for file in EVERYTHING.file if file.package.startswith("pmp.")]
RPCS = [pytest.param(method, id=f"{file.package}.{method.name}") for file in FILES for service in file.service for method in service.method]


def _promised() -> str:
    """The commit whose contracts clients rely on: where this branch left the published one, else the commit before."""
    head = git("rev-parse", "HEAD")
    left = git("merge-base", "HEAD", "origin/HEAD")
    return left if left not in {"", head} else git("rev-parse", "--verify", "HEAD~1") or head


def _buf(*arguments: str | Path) -> str:
    """What buf complains about."""
    command = [Path(sys.executable).with_name("buf"), *arguments, "--config", ROOT / "buf.yaml"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    return ran.stdout + ran.stderr


def test_contracts_are_written_as_agreed() -> None:
    assert _buf("lint", MESH) == ""


def test_contracts_keep_what_they_promised(tmp_path: Path) -> None:
    check_out(_promised(), tmp_path, "protos")
    assert _buf("breaking", MESH, "--against", tmp_path / "gen" / "mesh.binpb") == ""


def test_a_broken_promise_is_noticed(tmp_path: Path) -> None:
    broken = FileDescriptorSet.FromString(MESH.read_bytes())
    message = next(file for file in broken.file if file.package == "pmp.ingestion.v1").message_type[0]
    gone = message.field.pop().name
    changed = tmp_path / "changed.binpb"
    changed.write_bytes(broken.SerializeToString())
    assert f'"{gone}"' in _buf("breaking", changed, "--against", MESH)


def test_a_protos_path_is_its_package() -> None:
    assert {file.name: file.package for file in FILES} == {file.name: str(Path(file.name).parent).replace("/", ".") for file in FILES}
    assert [file.name for file in FILES if not re.fullmatch(r"pmp\.[a-z]+\.v[1-9]", file.package)] == []


@pytest.mark.parametrize("method", RPCS)
def test_an_rpc_says_who_may_call_it_and_where(method: MethodDescriptorProto) -> None:
    access = method.options.Extensions[options_pb2.access]
    assert access != options_pb2.ACCESS_UNSPECIFIED
    rest = method.options.HasExtension(annotations_pb2.http)  # pyright: ignore[reportArgumentType]  (its stubs are none)
    stream = bool(method.options.Extensions[options_pb2.stream])
    assert not (rest and stream), "a stream over HTTP is the only path of its rpc"
    assert (rest or stream) == (access != options_pb2.ACCESS_INTERNAL), "an rpc has a REST path unless it is internal"
