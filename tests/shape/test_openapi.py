"""The OpenAPI document follows from the contracts, and says what the gateway and the services do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from buf.validate import validate_pb2
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pmp.options.v1 import options_pb2

from gateway.committed import keep_fresh
from gateway.contracts import read_descriptors, rpcs
from gateway.openapi.comments import comments
from gateway.openapi.document import COMMITTED, committed, document
from gateway.openapi.rules import constraints
from gateway.openapi.schemas import Location, Schemas

HTTP: Any = annotations_pb2.http  # Its stub does not say what it extends.
ROOT = Path(__file__).resolve().parents[2]
PAYLOADS = sorted((ROOT / "tests" / "payloads").glob("*.json"))
DOCUMENT: dict[str, Any] = json.loads(COMMITTED.read_text())
OPERATIONS = {
    operation["operationId"]: (verb, path, operation) for path, verbs in DOCUMENT["paths"].items() for verb, operation in verbs.items()
}
NUMBER = FieldDescriptorProto.TYPE_DOUBLE
TEXT = FieldDescriptorProto.TYPE_STRING


def test_the_committed_document_is_fresh() -> None:
    assert committed(read_descriptors()) == COMMITTED.read_text()


def test_a_stale_document_is_detected_and_rewritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "openapi.json"
    stale.write_text("stale")
    assert keep_fresh("gateway.openapi", stale, "fresh", ["--check"]) == 1
    assert capsys.readouterr().out == f"{stale} is stale: run `python -m gateway.openapi`\n"
    assert keep_fresh("gateway.openapi", stale, "fresh", []) == 0
    assert stale.read_text() == "fresh"
    assert keep_fresh("gateway.openapi", stale, "fresh", ["--check"]) == 0


def test_the_document_is_openapi() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_the_document_has_the_paths_of_the_gateway_and_no_others() -> None:
    routed = {(verb.lower(), path) for rpc in rpcs(read_descriptors()) for verb, path in rpc.rest}
    assert {(verb, path) for verb, path, _ in OPERATIONS.values()} == routed
    assert len(OPERATIONS) == len(routed), "an operation's id is its own"


def test_the_document_says_what_each_call_is_and_who_may_make_it() -> None:
    assert OPERATIONS["identity_MergeUsers"][2]["security"] == [{"api_key": [], "bearer": ["admin"]}]
    reading: list[dict[str, list[str]]] = [{"api_key": [], "bearer": ["read"]}, {"api_key": [], "bearer": ["admin"]}, {"session": []}]
    assert OPERATIONS["ingestion_GetAccounting"][2]["security"] == reading
    assert OPERATIONS["analytics_SignIn"][2]["security"] == [{"bearer": ["link"]}]
    undescribed = [name for name, (_, _, operation) in OPERATIONS.items() if not operation["summary"]]
    schemas = DOCUMENT["components"]["schemas"]
    undescribed += [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, each in schema.get("properties", {}).items()
        if not _described(each)
    ]
    assert undescribed == []


def _described(schema: dict[str, Any]) -> str:
    return schema.get("description", "")


def test_an_rpc_without_a_rest_path_has_no_operation() -> None:
    described = FileDescriptorSet()
    file = described.file.add(name="pmp/shop/v1/shop.proto", package="pmp.shop.v1", syntax="proto3")
    file.message_type.add(name="Nothing")
    service = file.service.add(name="ShopService")
    for name, path in (("Sell", "/api/v1/sell"), ("Watch", "")):
        method = service.method.add(name=name, input_type=".pmp.shop.v1.Nothing", output_type=".pmp.shop.v1.Nothing")
        method.options.Extensions[options_pb2.access] = options_pb2.ACCESS_READ
        if path:
            method.options.Extensions[HTTP].get = path
    made = document(described, {})
    assert {path: list(verbs) for path, verbs in made["paths"].items()} == {"/api/v1/sell": ["get"]}
    assert OpenAPIV31SpecValidator(made).is_valid()


def test_a_query_holds_no_personal_text() -> None:
    of_erasure = OPERATIONS["gdpr_EraseUserData_2"][2]["parameters"]
    assert [(each["name"], each["in"]) for each in of_erasure] == [("id", "path"), ("dry_run", "query")]


def test_a_call_that_changes_nothing_has_no_conflict_and_one_without_a_body_is_never_too_large() -> None:
    assert {"409", "413", "415"} <= OPERATIONS["ingestion_TrackEvent"][2]["responses"].keys()
    assert not {"409", "413", "415"} & OPERATIONS["ingestion_GetAccounting"][2]["responses"].keys()


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda path: path.stem)
def test_a_golden_payload_is_the_example_of_its_call_and_keeps_its_schema(payload: Path) -> None:
    service, _, method = payload.stem.partition(".")
    _, path, operation = OPERATIONS[f"{service}_{method}"]
    body = operation["requestBody"]["content"]["application/json"]
    sent = json.loads(payload.read_text(), object_hook=lambda given: {name: value for name, value in given.items() if value is not None})
    in_path = set(re.findall(r"\{(\w+)\}", path))
    assert body["example"] == {name: value for name, value in sent.items() if name not in in_path}
    schema = {**body["schema"], "components": DOCUMENT["components"]}
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert [error.message for error in validator.iter_errors(body["example"])] == []
    broken = {**body["example"], [*body["example"]][-1]: [["not this"]]}
    assert not validator.is_valid(broken), "a schema that refuses nothing shows nothing"


def test_answers_have_numbers_of_64_bits_as_text_and_all_fields_that_are_always_set() -> None:
    account = DOCUMENT["components"]["schemas"]["ingestion.Account"]
    assert account["required"] == list(account["properties"])
    assert account["properties"]["stored"]["type"] == "string"
    order = DOCUMENT["components"]["schemas"]["purchases.RecordedPurchase"]
    assert {"timestamp", "base_net_amount", "rate", "billing_address"} & set(order["required"]) == set()


def test_patterns_are_those_of_json_schema_too() -> None:
    patterns = re.findall(r'"pattern": (".*")', COMMITTED.read_text())
    assert len(patterns) > 20
    for pattern in patterns:
        re.compile(json.loads(pattern))


def _field(kind: FieldDescriptorProto.Type.ValueType, **rules: Any) -> Any:
    """A field with rules, as in a contract."""
    described = FileDescriptorSet()
    file = described.file.add(name="pmp/shop/v1/shop.proto", package="pmp.shop.v1", syntax="proto3")
    field = file.message_type.add(name="Sale").field.add(name="value", number=1, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
    field.options.Extensions[validate_pb2.field].CopyFrom(validate_pb2.FieldRules(**rules))
    if "repeated" in rules:
        field.label = FieldDescriptorProto.LABEL_REPEATED
    pool = DescriptorPool()
    pool.Add(file)
    return pool.FindFieldByName("pmp.shop.v1.Sale.value")


@pytest.mark.parametrize(
    ("kind", "rules", "schema"),
    [
        (TEXT, {"string": {"min_len": 2, "max_len": 9}}, {"type": "string", "minLength": 2, "maxLength": 9}),
        (TEXT, {"string": {"len": 3}}, {"type": "string", "minLength": 3, "maxLength": 3}),
        (TEXT, {"string": {"in": ["a", "b"]}}, {"type": "string", "enum": ["a", "b"]}),
        (TEXT, {"string": {"not_in": ["a"]}}, {"type": "string", "not": {"enum": ["a"]}}),
        (TEXT, {"string": {"const": "a"}}, {"type": "string", "const": "a"}),
        (TEXT, {"string": {"uuid": True}}, {"type": "string", "format": "uuid"}),
        (TEXT, {"string": {"email": True}}, {"type": "string", "format": "email"}),
        (TEXT, {"string": {"ip": True}}, {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}),
        (TEXT, {"string": {"pattern": "^[a-z]$"}}, {"type": "string", "pattern": "^[a-z]$"}),
        (TEXT, {"string": {"pattern": r"(?i)^a\z"}}, {"type": "string", "description": r"Rule: pattern: `(?i)^a\z`."}),
        (TEXT, {"string": {"max_bytes": 7}}, {"type": "string", "description": "Rule: max_bytes: `7`."}),
        (TEXT, {"required": True}, {"type": "string", "minLength": 1}),
        (TEXT, {"string": {"max_len": 9}, "ignore": validate_pb2.IGNORE_ALWAYS}, {"type": "string"}),
        (TEXT, {"cel": [{"id": "x", "message": "it is odd", "expression": "true"}]}, {"type": "string", "description": "Rule: it is odd."}),
        (NUMBER, {"double": {"gt": 0, "lte": 1.5, "finite": True}}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1.5}),
        (NUMBER, {"required": True}, {"type": "number", "not": {"const": 0.0}}),
        (FieldDescriptorProto.TYPE_UINT64, {"uint64": {"lte": 9}}, {"type": "integer", "format": "uint64", "minimum": 0, "maximum": 9}),
        (
            TEXT,
            {"repeated": {"min_items": 1, "max_items": 3, "unique": True, "items": {"string": {"max_len": 9}}}},
            {"type": "array", "items": {"type": "string", "maxLength": 9}, "minItems": 1, "maxItems": 3, "uniqueItems": True},
        ),
    ],
    ids=str,
)
def test_a_rule_becomes_a_keyword_or_a_sentence(kind: FieldDescriptorProto.Type.ValueType, rules: Any, schema: dict[str, Any]) -> None:
    field = _field(kind, **rules)
    assert Schemas({}).field(field, Location.URL) == schema
    assert constraints(field).is_required == rules.get("required", False)


def test_answers_are_not_held_to_the_rules_of_requests() -> None:
    assert Schemas({}).field(_field(TEXT, string={"max_len": 9}), Location.ANSWER) == {"type": "string"}


def test_a_comment_is_read_by_paragraphs_without_what_is_addressed_to_buf() -> None:
    texts = comments(read_descriptors())
    assert texts["pmp.ingestion.v1.IngestionService.TrackEvent"] == "Accepts one event. It is durable when the response arrives."
    assert texts["pmp.ingestion.v1.Event"].count("\n\n") == 1
    assert "buf:" not in texts["pmp.gdpr.v1.GdprService.DownloadArchive"]
    assert texts["pmp.options.v1.Access.ACCESS_READ"] == "Reports."
    assert options_pb2.Access.DESCRIPTOR.full_name in texts
