"""Holds the repository to its layout: one name, one shape, no generated files, and modules of limited size."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from pmp.options.v1 import options_pb2

from tests.shape.repository import ROOT, tracked_files

SHARED_PACKAGES = {"log", "options", "privacy"}
TOP_LEVEL = {
    *(".ci", ".github", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "README.md", "SECURITY.md"),
    *("buf.yaml", "pyproject.toml", "requirements.lock", "skaffold.yaml"),
    *("bench", "cli", "client", "dashboard", "deploy", "docs", "gateway", "kit", "protos", "services", "tests", "wordpress"),
}
SERVICE_MODULES = {
    "__init__": "what the service is",
    "actions": "actions of persons, read page by page",
    "alarms": "what needs the owner's attention",
    "archive": "collected from holders while it is downloaded",
    "attribution_store": "reads paths, and keeps them current",
    "balance_store": "reads what is compared",
    "calls": "go to systems outside of the mesh",
    "certificates": "are fetched to verify what others sign",
    "clearance": "what may be sent to a destination at this moment",
    "cohort_store": "reads cohorts, and keeps them current",
    "comparison": "compares the ledger with the shop",
    "composition": "what the role consists of",
    "configuration": "opens the systems that a file names",
    "connected": "the site that was connected by a code, as a destination",
    "connection": "the rpcs by which a site gets its settings",
    "consumers": "handlers of topics",
    "contacts": "the SQL of addresses under which a destination keeps persons",
    "content_changes": "numbers what changes of performance",
    "content_feed": "follows what changes of content",
    "content_store": "reads what performance shows",
    "customers": "the report of customers, with the first sources of those it shows",
    "dashboard": "sums up what is read of topics",
    "deadlines": "are exported as metrics",
    "email_tool": "what tools for e-mail marketing have in common",
    "erasing": "deletes persons at destinations",
    "exports": "tables for files",
    "first_sources": "reads where persons first came from",
    "holders": "the services that a saga works with",
    "http_client": "the connections to destinations",
    "inactivity": "finds persons who become inactive",
    "inclusion": "adds what a request asks for beside",
    "journeys_client": "asks another service",
    "kind": "the interface of what is sent to another system",
    "live": "streams what is read of topics",
    "losses": "events that the log lost after the service had answered",
    "mesh_client": "asks other services what notices consist of",
    "migrations": "of its tables",
    "models": "its tables",
    "notice_store": "the SQL of notices",
    "notices": "what the mesh itself has to say to destinations",
    "operations": "what an operator does to destinations",
    "performance": "rpcs on one subject beside those of the servicer",
    "postback": "asks a sender whether a webhook is its own",
    "pricing": "what a command does to stored rows",
    "profiles": "what destinations are sent of persons",
    "projection": "derived from other tables of the service, and kept ready to be read",
    "publishing": "the last step of recording and pricing",
    "queue": "what is due to one destination",
    "reading": "what rpcs read of tables that consumers write",
    "recorder": "writes what calls report",
    "repository": "its SQL",
    "saga": "work over several services that outlives its process",
    "senders": "a sender for each destination",
    "sending": "makes the attempts at deliveries",
    "servicer": "its rpcs",
    "sign_in": "the rpcs by which a browser gets its session",
    "store": "a repository of one subject",
    "summaries": "notices of weeks and months that are over",
    "today": "what is asked of another service, as a client does",
    "topics": "are read without a database",
    "unit_of_work": "collects the changes of one transaction, writes and publishes them",
    "upkeep": "what a queue needs beside sending",
    "waking": "signals to other processes",
    "worker": "a role beside the service's own",
}
"""Modules of a service that may reach the outside world, and what each is. The others are pure."""
OUTSIDE_WORLD = re.compile(r"grpc|sqlalchemy|redis|httpx|kit\.(boundary\.(boundary|caller|outcome)|database|log|migrate|server)")
PACKAGES = ("cli", "client", "gateway", "kit", "services")
MOST_MODULES = 12
"""Modules in a package of the kit, `__init__` not counted."""
MOST_LINES = 300
"""Lines of a module, unless its docstring has a line that starts with `LONG_BECAUSE`."""
LONG_BECAUSE = "Long because "
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "manager"}
GENERATED = re.compile(r"(^|/)(gen/|uv\.lock$)|_pb2(_grpc)?\.pyi?$|\.(binpb|pyc|egg-info|whl)$")
MACHINE_PATH = re.compile(r"""(?<![\w.$}/-])/(?:home|root|Users|work)/[\w.-]+""")
REGISTRY_HOST = re.compile(
    # `docker.io` without a path is Debian's package.
    r"\b(?:(?:files\.)?pythonhosted|pypi|registry\.npmjs)\.org\b|\b(?:docker\.io/|(?:ghcr|gcr|quay|registry\.k8s)\.io\b)"
)


def _services() -> set[str]:
    return {path.parent.name for path in ROOT.glob("services/*/composition.py")}


def _contracts() -> dict[str, list[FileDescriptorProto]]:
    """The files of each service's package."""
    known = FileDescriptorSet.FromString((ROOT / "gen" / "mesh.binpb").read_bytes())
    packages: dict[str, list[FileDescriptorProto]] = {}
    for file in known.file:
        if file.package.startswith("pmp.") and (name := file.package.split(".")[1]) not in SHARED_PACKAGES:
            packages.setdefault(name, []).append(file)
    return packages


def _is_routed(files: list[FileDescriptorProto]) -> bool:
    methods = [method for file in files for service in file.service for method in service.method]
    return any(method.options.Extensions[options_pb2.access] != options_pb2.ACCESS_INTERNAL for method in methods)


def _kustomization(path: Path) -> dict[str, list[str]]:
    return yaml.safe_load((path / "kustomization.yaml").read_text())


FILES = tracked_files()
SERVICES = sorted(_services())
CONTRACTS = _contracts()


def test_there_is_a_service() -> None:
    assert SERVICES


def test_the_top_level_is_fixed() -> None:
    assert {path.split("/")[0] for path in FILES} <= TOP_LEVEL


def test_a_package_belongs_to_a_service_with_rpcs() -> None:
    assert sorted(CONTRACTS) == [service for service in SERVICES if (ROOT / "services" / service / "servicer.py").exists()]


def test_every_service_is_deployed_under_its_name() -> None:
    folder = ROOT / "deploy" / "services"
    assert sorted(_kustomization(folder)["resources"]) == SERVICES
    assert sorted(path.parent.name for path in folder.glob("*/kustomization.yaml")) == SERVICES
    for service in SERVICES:
        own = (folder / service / "kustomization.yaml").read_text()
        assert own.count(service) == 1, "a service's name stands in its namePrefix alone"
        assert _kustomization(folder / service)["namePrefix"] == f"{service}-"


def test_a_worker_is_deployed_exactly_where_there_is_one() -> None:
    with_worker = {service for service in SERVICES if (ROOT / "services" / service / "worker.py").exists()}
    resources = {service: _kustomization(ROOT / "deploy" / "services" / service)["resources"] for service in SERVICES}
    assert {service for service in SERVICES if "../../service/worker" in resources[service]} == with_worker


def test_the_port_for_streams_is_open_exactly_where_there_are_some() -> None:
    with_streams = {
        name
        for name, files in CONTRACTS.items()
        for method in (method for file in files for service in file.service for method in service.method)
        if method.options.Extensions[options_pb2.stream]
    }
    assert with_streams
    components = {service: _kustomization(ROOT / "deploy" / "services" / service).get("components", []) for service in SERVICES}
    assert {service for service in SERVICES if "../../service/streams" in components[service]} == with_streams


def test_the_gateway_has_a_cluster_for_every_service_it_routes_to() -> None:
    config = yaml.safe_load((ROOT / "gateway" / "envoy.yaml").read_text())
    clusters = {cluster["name"] for cluster in config["static_resources"]["clusters"]}
    assert clusters & {*SERVICES, *CONTRACTS} == {name for name, files in CONTRACTS.items() if _is_routed(files)}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_modules_of_a_service_and_beside_them_pure_decisions(service: str) -> None:
    folder = ROOT / "services" / service
    modules = {path.stem: path for path in folder.iterdir() if path.suffix == ".py" or path.name == "migrations"}
    assert {"__init__", "composition"} <= modules.keys()
    assert ("models" in modules) == ("migrations" in modules), "tables and their migrations come together"
    for name in modules.keys() - SERVICE_MODULES.keys():
        assert _outside_world(modules[name]) == [], f"{name} is not pure"
    # A kind of destination is its own outside world; other packages are like the service itself.
    for package in (path.parent for path in folder.glob("*/__init__.py") if not (path.parent / "destination.py").exists()):
        impure = [path.stem for path in package.rglob("*.py") if path.stem not in SERVICE_MODULES and _outside_world(path)]
        assert impure == [], f"{package.name}: not pure"


def _outside_world(module: Path) -> list[str]:
    return [imported for imported in _imports(module) if OUTSIDE_WORLD.match(imported)]


def _imports(module: Path) -> set[str]:
    """Full names of the modules that a module imports."""
    nodes = list(ast.walk(ast.parse(module.read_text())))
    named = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
    return named | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_packages_of_the_kit_stay_small() -> None:
    packages = {path.parent for path in (ROOT / "kit").rglob("__init__.py")}
    sizes = {package.relative_to(ROOT).as_posix(): len(_modules(package)) for package in packages}
    assert {name: size for name, size in sizes.items() if size > MOST_MODULES} == {}


def _modules(package: Path) -> set[str]:
    return {path.stem for path in package.glob("*.py")} - {"__init__"}


def test_modules_stay_short() -> None:
    sources = {path: (ROOT / path).read_text() for path in FILES if path.endswith(".py") and path.split("/")[0] in PACKAGES}
    assert len(sources) > 100
    assert [path for path, text in sources.items() if len(text.splitlines()) > MOST_LINES and not _says_why_long(text)] == []


def _says_why_long(text: str) -> bool:
    docstring = ast.get_docstring(ast.parse(text)) or ""
    return any(line.startswith(LONG_BECAUSE) and line != LONG_BECAUSE for line in docstring.splitlines())


def test_a_long_module_says_why_on_a_line_of_its_docstring() -> None:
    assert _says_why_long('"""A reader.\n\nLong because one loop decides everything.\n"""\n')
    assert not _says_why_long('"""A reader that is long because of its loop."""\nLONG = "Long because of it"\n')


def test_only_the_runtime_of_a_service_knows_persons() -> None:
    below = [path for path in (ROOT / "kit").rglob("*.py") if path.relative_to(ROOT / "kit").parts[0] not in {"people", "service"}]
    assert len(below) > 40
    assert {
        str(path.relative_to(ROOT)): found for path in below if (found := {n for n in _imports(path) if n.startswith("kit.people")})
    } == {}


def test_no_modules_import_each_other_in_a_circle() -> None:
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    modules = {name.removeprefix("client."): path for name, path in named.items()}
    imported = {name: {each for each in _imported(path) if each in modules} - {name} for name, path in modules.items()}
    while leaves := {name for name, needs in imported.items() if not needs}:
        imported = {name: needs - leaves for name, needs in imported.items() if name not in leaves}
    assert sorted(imported) == [], "each of these is in a circle, or needs one that is"


def _imported(module: Path) -> set[str]:
    """Full names of imported modules, and of imported names that may be modules."""
    nodes = [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
    return _imports(module) | {f"{node.module}.{each.name}" for node in nodes for each in node.names}


def test_no_name_says_nothing() -> None:
    assert [path for path in FILES if VAGUE_NAMES & {Path(part).stem for part in Path(path).parts}] == []


def test_imports_point_one_way() -> None:
    """The kit imports no service, a service imports no other; `[tool.importlinter]` in pyproject.toml has the contracts."""
    linter = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run([linter, "--no-cache"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_no_third_party_proto_is_kept() -> None:
    assert [path for path in FILES if path.endswith(".proto") and not path.startswith("protos/pmp/")] == []


def test_nothing_generated_is_kept() -> None:
    assert [path for path in FILES if GENERATED.search(path)] == []


def test_nothing_kept_knows_a_machine_or_a_registry() -> None:
    found: list[str] = []
    for path in FILES:
        text = (ROOT / path).read_text(errors="replace")
        found += [f"{path}: {match.group()}" for pattern in (MACHINE_PATH, REGISTRY_HOST) for match in pattern.finditer(text)]
    assert found == []
