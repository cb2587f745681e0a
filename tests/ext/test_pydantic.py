"""Models in pydantic and FastAPI: as results, response models, fields and input, without connection URIs and keys."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Body, FastAPI
from pydantic import BaseModel, TypeAdapter, ValidationError

import infrai_async
from infrai_async import (
    Ack,
    Activation,
    Balance,
    Branch,
    Bucket,
    CacheStats,
    Flag,
    FlagRule,
    FlagValues,
    Metadata,
    Page,
    PresignedUrl,
    Project,
    ProjectInventory,
    RolloutConfig,
    Snapshot,
    Variant,
)
from infrai_async.models import Model
from infrai_async.models.base import Shown

SECRET = "DBPASSWORD_4711"
URI = f"postgresql://u:{SECRET}@127.0.0.1:1/d"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
PROJECT = Project(
    id="prj_1",
    name="shop",
    connection_uri=URI,
    created_at=NOON,
    extra={"api_key": SECRET, "replica_uri": URI, "size": 3, "note": {"token": SECRET, "deep": [1, None]}},
    metadata=Metadata(request_id="r-1"),
)
BRANCH = Branch(id="br_1", branch_name="dev", project_id="prj_1", connection_uri=URI)
INVENTORY = ProjectInventory(project=PROJECT, branches=(BRANCH,), snapshots=())
CLASSES = [cls for cls in vars(infrai_async.models).values() if isinstance(cls, type) and issubclass(cls, Shown)]
OUT = {
    "id": "prj_1",
    "name": "shop",
    "created_at": "2026-01-02T12:00:00Z",
    "api_key": "***",
    "replica_uri": "postgresql://u:***@127.0.0.1:1/d",
    "size": 3,
    "note": {"token": "***", "deep": [1, None]},
}


def json_of(kind: Any, value: object) -> Any:
    return json.loads(TypeAdapter(kind).dump_json(value))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", ["validation", "serialization"])
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_model_has_a_schema_without_secrets(cls: Any, mode: Any) -> None:
    schema = TypeAdapter(cls).json_schema(mode=mode)
    assert schema["type"] == "object"
    assert not {"connection_uri", "primary_api_key", "extra", "metadata"} & set(schema.get("properties", ()))


def test_a_schema_says_what_the_fields_are() -> None:
    schema = TypeAdapter(Project).json_schema(mode="serialization")
    assert schema["title"] == "Project"
    assert schema["required"] == ["id", "name"]
    assert schema["properties"]["id"]["type"] == "string"
    assert {"type": "string", "format": "date-time"} in schema["properties"]["created_at"]["anyOf"]
    assert TypeAdapter(Balance).json_schema()["properties"]["balance_usd"]["type"] == "number"


@pytest.mark.filterwarnings("error")
def test_a_model_goes_out_without_its_uri_and_with_unknown_secrets_masked() -> None:
    assert json_of(Project, PROJECT) == OUT
    assert TypeAdapter(Project).dump_python(PROJECT)["created_at"] == NOON
    assert json_of(list[Project] | None, [PROJECT]) == [OUT]
    assert json_of(ProjectInventory, INVENTORY) == {
        "project": OUT,
        "branches": [{"id": "br_1", "branch_name": "dev", "project_id": "prj_1"}],
        "snapshots": [],
    }
    assert json_of(Page[Project], Page(items=(PROJECT,), next_cursor="c")) == {"items": [OUT], "next_cursor": "c"}
    assert json_of(Balance, Balance(balance_usd=Decimal("1.50"))) == {"balance_usd": 1.5}
    assert json_of(FlagValues, FlagValues(values_by_key={"a": [1]})) == {"a": [1]}
    key = Activation(
        account_id="a", project_id="p", primary_api_key=SECRET, trial_credit_usd=Decimal(2), checkout_url=None
    )
    assert SECRET not in json.dumps(json_of(Activation, key))


def test_a_presigned_url_goes_out_whole_because_it_is_for_the_browser() -> None:
    url = PresignedUrl(url="https://s3/x?sig=1", method="GET", expires_at=NOON)
    assert json_of(PresignedUrl, url)["url"] == "https://s3/x?sig=1"


def test_helpers_of_flags_come_in_and_go_out() -> None:
    rollout = RolloutConfig(percentage=5, salt="s", variants=(Variant(key="a", value=1), {"key": "b"}))
    rule = FlagRule(attribute="plan", operator="eq", value="pro", rollout=rollout)
    sent = json_of(FlagRule, rule)
    assert sent["rollout"]["variants"] == [{"key": "a", "value": 1, "weight": 1}, {"key": "b"}]
    assert TypeAdapter(FlagRule).validate_python(sent).rollout.percentage == 5


def test_an_instance_is_valid_as_it_is_and_a_dict_is_read_like_a_response() -> None:
    adapter = TypeAdapter(Project)
    assert adapter.validate_python(PROJECT) is PROJECT
    read = adapter.validate_python({"id": "1", "name": "n", "connection_uri": URI, "created_at": NOON, "later": [1]})
    assert (read.connection_uri, read.created_at, read.extra) == (URI, NOON, {"later": [1]})
    again = adapter.validate_json(adapter.dump_json(PROJECT))
    assert (again.id, again.created_at, again.connection_uri) == ("prj_1", NOON, "")
    assert TypeAdapter(Balance).validate_json('{"balance_usd": 0.1}').balance_usd == Decimal("0.1")
    page = TypeAdapter(Page[Branch]).validate_python({"items": [{"id": "b", "branch_name": "x", "project_id": "p"}]})
    assert type(page.items[0]) is Branch


@pytest.mark.parametrize("wrong", [{"id": 1, "name": "n"}, {"id": "1"}, 5, None, [PROJECT], BRANCH])
def test_wrong_input_is_a_validation_error(wrong: object) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Project).validate_python(wrong)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (CacheStats, {"requests": "5", "bytes_served": 1, "hit_ratio": 0.5}),
        (CacheStats, {"requests": True, "bytes_served": 1, "hit_ratio": 0.5}),
        (CacheStats, {"requests": 5, "bytes_served": 1, "hit_ratio": "0.5"}),
        (Ack, {"ok": 1}),
        (Ack, {"ok": "yes"}),
        (Balance, {"balance_usd": "1.5"}),
        (Balance, {"balance_usd": True}),
        (Snapshot, {"id": "s", "project_id": "p", "created_at": 1_700_000_000}),
        (Snapshot, {"id": "s", "project_id": "p", "created_at": "yesterday"}),
        (Snapshot, {"id": "s", "project_id": "p", "created_at": None}),
        (Flag, {"key": "k", "version": "3"}),
        (Flag, {"key": "k", "enabled": "true"}),
        (Page[CacheStats], {"items": [{"requests": "5", "bytes_served": 1, "hit_ratio": 0.5}]}),
    ],
)
def test_no_value_becomes_one_of_another_type(kind: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(wrong)
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_json(json.dumps(wrong))


def test_input_is_normalized_as_a_response_is() -> None:
    bucket = {"name": "b", "vendor": "v", "region": "r", "created_at": "2026-01-02T12:00:00"}
    read = TypeAdapter(Bucket).validate_python(bucket)
    assert (read.bucket, read.created_at, read.extra) == ("b", NOON, {})
    assert TypeAdapter(Bucket).validate_python({**bucket, "bucket": "c"}).bucket == "c"
    assert TypeAdapter(Flag).validate_python({"key": "k", "version": None}).version is None
    for amount, exact in [(5, "5"), (0.1, "0.1"), (Decimal("1.10"), "1.10")]:
        assert str(TypeAdapter(Balance).validate_python({"balance_usd": amount}).balance_usd) == exact


@pytest.mark.parametrize(
    "wrong", [{"id": "1", "connection_uri": URI}, {"id": 1, "name": "n", "connection_uri": URI, "api_key": SECRET}]
)
def test_the_errors_of_input_quote_no_secret(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Project") as caught:
        TypeAdapter(Project).validate_python(wrong)
    assert SECRET not in str(caught.value) + repr(caught.value.errors())
    answer = ask("POST", "/deploy", {"id": "b", "connection_uri": URI, "extra_token": SECRET})
    assert answer.status_code == 422
    # FastAPI quotes nothing but what the schema reads.
    assert SECRET not in answer.text


def test_a_schema_is_described_and_referred_to_by_name() -> None:
    schema = Deployment.model_json_schema()
    assert schema["properties"]["branches"]["items"] == {"$ref": "#/$defs/Branch"}
    assert schema["$defs"]["Branch"]["description"] == "A branch of a project"
    named = ask("GET", "/openapi.json").json()["components"]["schemas"]
    assert {"Project", "Branch", "Deployment", "ProjectInventory", "Snapshot"} <= set(named)
    pages = TypeAdapter(dict[str, Page[Project] | Page[Branch]]).json_schema()["$defs"]
    assert len([name for name in pages if name.startswith("Page")]) == 2


class Deployment(BaseModel):
    project: Project
    branches: list[Branch] = []
    flag: Flag | None = None


def test_a_model_is_a_field_of_a_users_model() -> None:
    deployment = Deployment(project=PROJECT, branches=[BRANCH])
    assert json.loads(deployment.model_dump_json())["project"] == OUT
    assert deployment.model_dump()["project"]["id"] == "prj_1"
    assert deployment.project is PROJECT
    assert SECRET not in repr(deployment) + deployment.model_dump_json()
    assert "connection_uri" not in json.dumps(Deployment.model_json_schema())


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/project")
    def project() -> Project:
        return PROJECT

    @app.get("/projects")
    async def projects() -> list[Project]:
        return [PROJECT]

    @app.get("/page", response_model=Page[Project])
    async def page() -> Any:
        return Page(items=(PROJECT,))

    @app.get("/inventory")
    async def inventory() -> ProjectInventory:
        return INVENTORY

    @app.post("/deploy", response_model=Deployment)
    def deploy(branch: Annotated[Branch, Body()]) -> Any:
        return Deployment(project=PROJECT, branches=[branch])

    return app


def ask(method: str, path: str, body: object = None) -> httpx.Response:
    async def answer() -> httpx.Response:
        transport = httpx.ASGITransport(application())
        async with httpx.AsyncClient(transport=transport, base_url="http://application") as http:
            return await http.request(method, path, json=body)

    return asyncio.run(answer())


def test_a_fastapi_application_answers_with_models() -> None:
    assert ask("GET", "/project").json() == OUT
    assert ask("GET", "/projects").json() == [OUT]
    assert ask("GET", "/page").json()["items"] == [OUT]
    assert ask("GET", "/inventory").json()["branches"][0]["id"] == "br_1"
    given = {"id": "b", "branch_name": "x", "project_id": "p"}
    assert ask("POST", "/deploy", given).json()["branches"] == [given]
    assert ask("POST", "/deploy", {"id": 1}).status_code == 422
    text = json.dumps(ask("GET", "/openapi.json").json())
    assert "connection_uri" not in text
    assert "branch_name" in text


def test_pydantic_is_loaded_by_nobody_but_its_user() -> None:
    program = "import infrai_async.models, sys; print(sorted(m for m in sys.modules if 'pydantic' in m))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
    assert Model.__get_pydantic_core_schema__  # which imports it
