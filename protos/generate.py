"""Build hook: makes `gen/` from `protos/`.

`gen/` holds the Python stubs and `mesh.binpb`, the descriptor set that Envoy, buf and the tests read. Third-party
protos are not copied into the repository: `google/*` come from the installed googleapis-common-protos, and
`buf/validate` from the descriptor inside the installed protovalidate.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent.parent


def generate(root: Path = ROOT) -> None:
    """Writes `gen/` anew; leaves the old one in place when protoc refuses the sources.

    Raises:
        RuntimeError: protoc refused the sources; its messages are on stderr.
    """
    from protovalidate._gen.buf.validate import validate_pb

    protos = sorted(str(path.relative_to(root / "protos")) for path in (root / "protos" / "pmp").rglob("*.proto"))
    googleapis = str(distribution("googleapis-common-protos").locate_file(""))
    wellknown = str(files("grpc_tools") / "_proto")
    with tempfile.TemporaryDirectory(dir=root) as work:
        out = Path(work) / "gen"
        out.mkdir()
        validate = Path(work) / "validate.binpb"
        # protoc wants a set (field 1 of FileDescriptorSet), protovalidate has one file with its own imports inside google/.
        validate.write_bytes(_as_set(validate_pb.desc().proto.to_binary()))
        mesh = out / "mesh.binpb"
        _protoc(
            f"-I{root / 'protos'}",
            f"-I{googleapis}",
            f"-I{wellknown}",
            f"--descriptor_set_in={_with_wellknown(validate, Path(work), wellknown)}",
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={mesh}",
            *protos,
        )
        _protoc(
            f"--descriptor_set_in={mesh}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=readable_stubs:{out}",
            f"--mypy_grpc_out=readable_stubs:{out}",
            "buf/validate/validate.proto",
            *protos,
        )
        for package in (*out.glob("pmp/*"), *out.glob("buf/*")):
            (package / "py.typed").touch()
        shutil.rmtree(root / "gen", ignore_errors=True)
        shutil.move(out, root / "gen")


def _as_set(file_descriptor: bytes) -> bytes:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

    return FileDescriptorSet(file=[FileDescriptorProto.FromString(file_descriptor)]).SerializeToString()


def _with_wellknown(validate: Path, work: Path, wellknown: str) -> Path:
    """A set in which the imports of buf/validate come before it, as protoc demands of `--descriptor_set_in`."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    own = FileDescriptorSet.FromString(validate.read_bytes())
    known = work / "wellknown.binpb"
    _protoc(f"-I{wellknown}", "--include_imports", f"--descriptor_set_out={known}", *own.file[0].dependency)
    merged = work / "merged.binpb"
    merged.write_bytes(known.read_bytes() + validate.read_bytes())
    return merged


def _protoc(*arguments: str) -> None:
    if protoc.main(["protoc", *arguments]) != 0:
        message = "protoc refused the protos"
        raise RuntimeError(message)


class GenerateHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs `generate` before hatchling packs, editable or not."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: D102 (hatchling calls it)
        generate(Path(self.root))
        if version == "standard":
            # An editable install reads gen/ itself.
            build_data["force_include"] |= {
                "dashboard/dist": "gateway/dashboard",
                "docs/openapi.json": "gateway/openapi.json",
                "gen/buf": "buf",
                "gen/mesh.binpb": "gateway/mesh.binpb",
                "gen/pmp": "pmp",
            }


if __name__ == "__main__":
    sys.exit(generate())
