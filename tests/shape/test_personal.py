"""Personal data is declared: no table holds more of it, and the documentation says the same."""

from __future__ import annotations

import asyncio
import base64
import importlib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from pmp.options.v1 import options_pb2
from pmp.privacy.v1.privacy_pb2_grpc import SubjectDataServiceServicer
from sqlalchemy import Column, MetaData, Table

from kit.log import tables
from kit.people import persons
from kit.people.privacy import person_consents
from kit.people.subjects.personal_tables import SHARED, PersonalTable
from kit.service.resources import open_resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from services.gdpr.archive import SECTIONS
from tests.roles import ROLES

ROOT = Path(__file__).resolve().parents[2]
KEY = base64.b64encode(bytes(32)).decode()
SERVICES = sorted(path.parent.name for path in ROOT.glob("services/*/models.py"))
TEXTS = {str, dict, list, bytes}
IMPERSONAL = {
    *("exchange_rates", "identity_graph", "shop_comparisons"),
    # sums over all persons
    *("attribution_totals", "analytics_audiences", "analytics_cohorts", "analytics_traffic", "analytics_revenue", "analytics_content"),
    *("analytics_content_changes", "analytics_content_removals", "analytics_content_feed"),
    *("analytics_products", "analytics_courses"),  # what the shop sells
    *("destinations", "destination_erasures"),  # systems that are sent what happens, and their answers
    "received_payments",  # orders of payments, as payment providers state them
    *("content_cursors", "alarms", "connected_sites"),  # what about the mesh itself they are sent, and the shop itself
    *("event_processing_log", "receipts"),  # ids of events, and places in the log
    *(
        "subject_requests",
        "request_steps",
        "suppressed_names",
        "audit_log",
        "archive_links",
    ),  # digests, and what is sealed until it is done
}
"""Tables without personal data."""
LEADS_TO_A_PERSON = re.compile(r"user_id|wordpress_id|session|e?mail|address|subject|person|billing|first_name|last_name|phone")
CONTRACTS = [
    file for file in FileDescriptorSet.FromString((ROOT / "gen" / "mesh.binpb").read_bytes()).file if file.package.startswith("pmp.")
]
PERSONAL_FIELD = re.compile(
    r"((merged_)?user|wordpress|person|session|anonymous)_ids?|session|visitor|.*subject|(.*_)?e?mails?(_.*)?|.*address.*|.*names?|.*phone.*"
)
"""Names of fields that may identify a person, or describe one."""
PERSONAL_TYPES = {FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES, FieldDescriptorProto.TYPE_UINT64}


async def _composed(role: Role[Any]) -> ServiceRuntime:
    """A role as it would start; nothing is connected to."""
    needed = {"mesh_token": "token", "vault_key": KEY, "key_encryption_keys": KEY, "redis_url": "redis://127.0.0.1:1"}
    settings = role.settings.model_validate({**needed, "database_url": "sqlite+aiosqlite:///nowhere/{service}.db"})
    async with open_resources(settings) as resources:
        return role.compose(settings, resources)


RUNTIMES = [asyncio.run(_composed(role)) for role in ROLES.values()]
DECLARED = {runtime.service: runtime.personal_tables for runtime in RUNTIMES if runtime.personal_tables}
"""The tables that the roles of each service show and erase; what they take from settings changes no column."""


def _uncovered(table: Table, personal_tables: Sequence[PersonalTable]) -> list[str]:
    """Columns that by their names lead to a person and are not declared."""
    covered = {
        name for declaration in personal_tables if declaration.table is table for name in (*declaration.identifiers, *declaration.personal)
    }
    covered |= {name for declaration in personal_tables for part in declaration.parts if part.table is table for name in part.personal}
    return [column.name for column in table.columns if LEADS_TO_A_PERSON.search(column.name) and column.name not in covered]


def _undecided(table: Table, decided: Collection[str]) -> list[str]:
    """Text columns of rows that stay for which it is not declared what an erasure leaves in them."""
    return [f"{table.name}.{each.name}" for each in table.columns if _kind(each) in TEXTS and each.name not in decided]


def _kind(column: Column[Any]) -> type:
    kind: Any = getattr(column.type, "impl_instance", None) or column.type
    return kind.python_type


@pytest.mark.parametrize("service", SERVICES)
def test_of_every_text_in_a_row_that_stays_it_is_said_why_or_that_it_goes(service: str) -> None:
    stay = [declaration for declaration in DECLARED[service] if not declaration.deletes_rows]
    undecided = [name for each in stay for name in _undecided(each.table, {*each.identifiers, *each.personal, *each.stays})]
    undecided += [name for each in stay for part in each.parts for name in _undecided(part.table, {*part.personal, *part.stays})]
    assert undecided == []
    for each in stay:
        assert not {*each.identifiers, *each.personal} & each.stays.keys(), "what goes does not stay"


@pytest.mark.parametrize("service", SERVICES)
def test_a_table_without_a_person_is_one_that_says_nothing_of_any(service: str) -> None:
    metadata: MetaData = importlib.import_module(f"services.{service}.models").Base.metadata
    declared = {table for declaration in DECLARED[service] for table in _tables(declaration)}
    assert metadata.tables.keys() - declared <= IMPERSONAL


@pytest.mark.parametrize("service", SERVICES)
def test_what_leads_to_a_person_is_declared(service: str) -> None:
    metadata: MetaData = importlib.import_module(f"services.{service}.models").Base.metadata
    declared = DECLARED[service]
    assert {table.name: found for table in metadata.sorted_tables if (found := _uncovered(table, declared))} == {}
    assert {declaration.table.name for declaration in declared} <= metadata.tables.keys()
    assert all(bool(declaration.ages) == ("PMP_SITE_RETENTION_TABLES" in declaration.kept) for declaration in declared)
    assert all(
        {*declaration.identifiers, *declaration.personal, *declaration.sealed, *declaration.internal} <= set(declaration.table.c.keys())
        for declaration in declared
    )


def test_what_the_kits_tables_keep_of_persons_is_declared() -> None:
    own = [*persons.person_links.metadata.sorted_tables, person_consents, *tables.outbox.metadata.sorted_tables]
    assert {table.name: found for table in own if (found := _uncovered(table, SHARED))} == {}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_with_a_database_shows_and_erases_what_it_holds(service: str) -> None:
    served = [registration for runtime in RUNTIMES if runtime.service == service for registration in runtime.rpcs]
    assert [servicer for _, servicer in served if isinstance(servicer, SubjectDataServiceServicer)]
    assert DECLARED[service]


def test_an_archive_explains_each_part_and_shows_each_table_once() -> None:
    shown = [
        (declaration.section, table)
        for service in SERVICES
        for declaration in DECLARED[service]
        if declaration.section
        for table in _tables(declaration)
    ]
    assert {section for section, _ in shown} == set(SECTIONS)
    assert len(shown) == len(set(shown)), "two services have a table of one name"


def _tables(declaration: PersonalTable) -> list[str]:
    return [declaration.table.name, *(part.table.name for part in declaration.parts)]


def test_the_documentation_says_what_is_kept_of_persons() -> None:
    text = (ROOT / "docs" / "privacy.md").read_text()
    rows = [_line(service, declaration) for service in SERVICES for declaration in DECLARED[service]]
    rows += [_line("every service", declaration) for declaration in SHARED]
    _, _, table = text.partition("| table | columns |")
    assert [line for line in table.partition("\n\n")[0].splitlines() if line.startswith("| `")] == rows


def _line(service: str, declaration: PersonalTable) -> str:
    columns = [*declaration.identifiers, *(name for name in declaration.personal if name not in declaration.identifiers)]
    parts = [f"{part.table.name}.{name}" for part in declaration.parts for name in part.personal]
    fields = ", ".join(f"`{name}`" for name in (*columns, *parts))
    becomes = "deleted" if declaration.deletes_rows else "stays without the person"
    return f"| `{service}` `{declaration.table.name}` | {fields} | {declaration.why} | {declaration.kept} | {becomes} |"


def test_a_field_that_may_be_personal_declares_what_it_carries() -> None:
    fields = [(message, field) for file in CONTRACTS for message in file.message_type for field in message.field]
    assert [f"{message.name}.{field.name}" for message, field in fields if _may_be_personal(field) and not _is_declared(field)] == []


def test_a_field_carries_an_identifier_or_a_text_of_a_kind_and_never_both() -> None:
    for file in CONTRACTS:
        for message in file.message_type:
            for field in message.field:
                options = field.options.Extensions
                assert not (options[options_pb2.identifier] and options[options_pb2.text]), f"{message.name}.{field.name}"


def test_an_undeclared_field_is_found() -> None:
    name = FieldDescriptorProto(name="maiden_name", type=FieldDescriptorProto.TYPE_STRING)
    assert _may_be_personal(name)
    assert not _is_declared(name)
    name.options.Extensions[options_pb2.text] = options_pb2.TEXT_PERSONAL
    assert _is_declared(name)


def _may_be_personal(field: FieldDescriptorProto) -> bool:
    has_text = field.type in PERSONAL_TYPES or field.type_name == ".google.protobuf.Struct"
    return has_text and PERSONAL_FIELD.fullmatch(field.name) is not None


def _is_declared(field: FieldDescriptorProto) -> bool:
    options = field.options.Extensions
    return bool(options[options_pb2.identifier] or options[options_pb2.text])
