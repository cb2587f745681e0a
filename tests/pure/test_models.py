"""The models: frozen, comparable, safe to print, and back to plain JSON."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from infrai_async import models
from infrai_async.models import (
    Ack,
    Activation,
    Balance,
    Branch,
    Flag,
    FlagRule,
    FlagState,
    FlagValues,
    Metadata,
    Model,
    Page,
    PresignedUrl,
    Project,
    ProjectInventory,
    PurgeResult,
    RolloutConfig,
    Snapshot,
    Variant,
    mask_uri,
    to_plain,
)

URI = "postgresql://shop:hunter2@db.example:5432/shop?sslmode=require"
MASKED = "postgresql://shop:***@db.example:5432/shop?sslmode=require"
PROJECT = Project(id="prj_1", name="shop", connection_uri=URI)
BRANCH = Branch(id="br_1", branch_name="dev", project_id="prj_1", connection_uri=URI)
CLASSES = [cls for cls in vars(models).values() if inspect.isclass(cls) and cls.__module__.startswith(models.__name__)]


# --- secrets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [PROJECT, BRANCH], ids=lambda model: type(model).__name__)
def test_a_connection_uri_works_as_it_is(model: Project | Branch) -> None:
    assert model.connection_uri == URI
    assert model.to_dict()["connection_uri"] == URI


@pytest.mark.parametrize("model", [PROJECT, BRANCH], ids=lambda model: type(model).__name__)
def test_a_masked_uri_lacks_the_password_alone(model: Project | Branch) -> None:
    assert model.masked_uri == MASKED


@pytest.mark.parametrize(
    "model",
    [
        PROJECT,
        BRANCH,
        Page(items=(PROJECT, BRANCH)),
        PresignedUrl(
            url="https://s3.example/media/a?X-Amz-Signature=hunter2",
            method="PUT",
            expires_at=datetime(2026, 1, 2, tzinfo=UTC),
            headers={"Authorization": "hunter2"},
        ),
        Activation(
            account_id="a",
            project_id="p",
            primary_api_key="hunter2",
            trial_credit_usd=Decimal(2),
            checkout_url=None,
        ),
        Project(id="p", name="n", connection_uri="postgresql://h/d", extra={"password": "hunter2"}),
        Ack(ok=True, metadata=Metadata(extra={"key": "hunter2"})),
    ],
    ids=lambda model: type(model).__name__,
)
def test_no_way_of_printing_a_model_shows_a_secret(model: object) -> None:
    assert "hunter2" not in f"{model!r} {model!s} {model} {[model]} {model:}"


def test_a_projects_repr_names_everything_else() -> None:
    assert repr(PROJECT).startswith(f"Project(id='prj_1', name='shop', connection_uri='{MASKED}', region=None")


def test_a_presigned_urls_repr_shows_where_it_leads() -> None:
    url = PresignedUrl(url="https://s3/a?sig=1", method="GET", expires_at=datetime(2026, 1, 2, tzinfo=UTC))
    assert "url='https://s3/a?***'" in repr(url)


@pytest.mark.parametrize(
    ("uri", "masked"),
    [
        ("postgresql://u:pw@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p@ss@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p/w?x#y@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p:w@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u:p%40w@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p\nw@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:@h/d", "postgresql://u:***@h/d"),
        ("postgresql://:pw@h/d", "postgresql://:***@h/d"),
        ("postgresql://u:pw@h1:1,h2:2/d", "postgresql://u:***@h1:1,h2:2/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h:5432/d", "postgresql://h:5432/d"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgresql://h/d?user=u&password=pw&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("postgresql://u:pw@h/d?sslpassword=pw2", "postgresql://u:***@h/d?sslpassword=***"),
        ("postgresql://h/d?PASSWORD=pw", "postgresql://h/d?PASSWORD=***"),
        ("host=h password=pw dbname=d", "host=h password=*** dbname=d"),
        ("host=h password = 'p w' dbname=d", "host=h password = *** dbname=d"),
        (r"host=h password='it\'s mine' dbname=d", "host=h password=*** dbname=d"),
        (r"host=h password='back\\' dbname=d", "host=h password=*** dbname=d"),
        (r"host=h password=p\ w dbname=d", "host=h password=*** dbname=d"),
        ("postgresql://h/d?password='pw'rest&x=1", "postgresql://h/d?password=***&x=1"),
        ("postgresql://h/d?password=&x=1", "postgresql://h/d?password=&x=1"),
        ("", ""),
    ],
)
def test_a_mask_hides_the_password_and_nothing_more(uri: str, masked: str) -> None:
    assert mask_uri(uri) == masked


@given(st.text(min_size=4))
@example("@@@@")
@example("a@b/c?d#e")
@example("://x:y@z")
@example("pass\nword")
def test_no_password_shows_in_the_mask_of_a_uri(password: str) -> None:
    rest = "postgresql://shop:***@db.example:5432/shop"
    assume(password not in rest)
    assert mask_uri(f"postgresql://shop:{password}@db.example:5432/shop") == rest


@given(st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"], exclude_characters="&'@"), min_size=4))
def test_no_password_shows_in_the_mask_of_a_query(password: str) -> None:
    assert mask_uri(f"postgresql://h/d?password={password}&x=1") == "postgresql://h/d?password=***&x=1"


@given(st.text(min_size=4))
def test_no_quoted_password_shows_in_the_mask_of_a_keyword_string(password: str) -> None:
    assume("//" not in password)
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    assert mask_uri(f"host=h password='{quoted}' dbname=d") == "host=h password=*** dbname=d"


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_is_frozen_slotted_and_takes_keywords_only(cls: Any) -> None:
    assert attrs.has(cls)
    assert "__slots__" in vars(cls)
    assert all(field.kw_only for field in attrs.fields(cls))
    assert cls.__setattr__ is not object.__setattr__


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_has_a_docstring(cls: Any) -> None:
    assert cls.__dict__["__doc__"]


@pytest.mark.parametrize("name", ["id", "anything"])
def test_a_model_cannot_be_changed(name: str) -> None:
    with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
        setattr(PROJECT, name, "other")


def test_equality_leaves_the_metadata_out() -> None:
    assert attrs.evolve(PROJECT, metadata=Metadata(request_id="r1")) == PROJECT


def test_equality_takes_unknown_fields_into_account() -> None:
    assert attrs.evolve(PROJECT, extra={"x": 1}) != PROJECT


def test_equal_models_of_different_classes_differ() -> None:
    assert Ack(ok=True) != PurgeResult(ok=True)


@pytest.mark.parametrize(
    "model",
    [
        PROJECT,
        attrs.evolve(PROJECT, extra={"x": [1]}, metadata=Metadata(cost_usd=Decimal("0.001"), extra={"y": {}})),
        Flag(key="k", default_value={"a": [1]}, rules=({"a": 1},), tags={"t": "u"}, rollout={"p": 1}),
        Page(items=(PROJECT,), next_cursor="c"),
        FlagRule(attribute="a", operator="eq"),
        RolloutConfig(percentage=1, salt="s"),
        Variant(key="a", value="b"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_value_pickles_copies_and_hashes(model: Any) -> None:
    for twin in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):
        assert twin == model
        assert hash(twin) == hash(model)
        assert getattr(twin, "metadata", None) == getattr(model, "metadata", None)


@pytest.mark.parametrize("cls", [Ack, PurgeResult])
@pytest.mark.parametrize("ok", [True, False])
def test_an_acknowledgement_is_truthy_as_its_ok_is(cls: type[Ack], ok: bool) -> None:
    assert bool(cls(ok=ok)) is ok


@pytest.mark.parametrize("enabled", [True, False])
def test_a_flag_state_is_truthy_as_it_is_enabled(enabled: bool) -> None:
    assert bool(FlagState(enabled=enabled)) is enabled


def test_any_other_model_is_truthy() -> None:
    assert PROJECT


def test_a_page_is_iterated_and_counted() -> None:
    page = Page(items=(PROJECT, PROJECT))
    assert (list(page), len(page), page.next_cursor) == ([PROJECT, PROJECT], 2, None)


def test_all_flag_values_are_a_mapping() -> None:
    values = FlagValues(values_by_key={"a": 1, "b": None})
    assert isinstance(values, Mapping)
    assert (values["a"], values.get("c", "d"), "b" in values, sorted(values), len(values)) == (
        1,
        "d",
        True,
        ["a", "b"],
        2,
    )
    with pytest.raises(KeyError, match="c"):
        values["c"]


def test_all_flag_values_are_equal_as_mappings_are_and_unhashable_as_they_are() -> None:
    values = FlagValues(values_by_key={"a": [1]}, metadata=Metadata(request_id="r1"))
    assert values == {"a": [1]} == FlagValues(values_by_key={"a": [1]})
    assert values != {"a": [2]}
    with pytest.raises(TypeError, match="unhashable"):
        hash(values)


def test_all_flag_values_pickle_and_copy() -> None:
    values = FlagValues(values_by_key={"a": [1]}, metadata=Metadata(request_id="r1"))
    for twin in (pickle.loads(pickle.dumps(values)), copy.copy(values), copy.deepcopy(values)):
        assert (type(twin), twin, twin.metadata) == (FlagValues, values, Metadata(request_id="r1"))


# --- to_dict -----------------------------------------------------------------------------------------------------


def test_to_dict_leaves_out_what_may_be_missing_and_is() -> None:
    assert PROJECT.to_dict() == {"id": "prj_1", "name": "shop", "connection_uri": URI}


def test_to_dict_keeps_what_may_be_null_but_not_missing() -> None:
    made = Activation(
        account_id="a", project_id="p", primary_api_key="k", trial_credit_usd=Decimal("2.00"), checkout_url=None
    )
    assert made.to_dict() == {
        "account_id": "a",
        "project_id": "p",
        "primary_api_key": "k",
        "trial_credit_usd": 2,
        "checkout_url": None,
    }


def test_to_dict_has_no_metadata_and_unknown_fields_at_their_own_level() -> None:
    made = Balance(balance_usd=Decimal("1.5"), extra={"new": 1}, metadata=Metadata(request_id="r1"))
    assert made.to_dict() == {"balance_usd": 1.5, "new": 1}


def test_to_dict_is_a_fresh_dict_each_time() -> None:
    made = Ack(ok=True, extra={"x": 1})
    made.to_dict()["ok"] = False
    assert made.to_dict() == {"ok": True, "x": 1}


def test_a_models_own_list_is_not_shared_with_its_dict() -> None:
    values = Flag(key="k", rules=({"a": [1]},))
    rules: Any = values.to_dict()["rules"]
    rules[0]["a"].append(2)
    assert values.rules == ({"a": [1]},)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (5, 5),
        (0.1, 0.1),
        ("x", "x"),
        (Decimal("0.1"), 0.1),
        (Decimal("5.0"), 5),
        (Decimal(10) ** 3, 1000),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        ((1, (2,)), [1, [2]]),
        ([1, {"a": (2,)}], [1, {"a": [2]}]),
        (Ack(ok=True), {"ok": True}),
    ],
)
def test_every_value_has_a_plain_form(value: object, plain: object) -> None:
    made = to_plain(value)
    assert (made, type(made)) == (plain, type(plain))


def test_anything_else_has_no_plain_form() -> None:
    with pytest.raises(TypeError, match="set has no plain JSON form"):
        to_plain({1})


def test_a_snapshot_keeps_its_time() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
    assert Snapshot(id="s", project_id="p", created_at=moment).to_dict()["created_at"] == "2026-01-02T03:04:05.000600Z"


# --- what is written to the API (D11) --------------------------------------------------------------------------------


def test_a_rule_is_written_in_full() -> None:
    rule = FlagRule(attribute="plan", operator="eq", value="pro")
    assert rule.to_dict() == {"attribute": "plan", "operator": "eq", "value": "pro", "serve": True}


def test_a_rule_writes_what_differs_from_the_plainest() -> None:
    rule = FlagRule(attribute="a", operator="contains", values=("x", 1), negate=True, ignore_case=True, serve="b")
    assert rule.to_dict() == {
        "attribute": "a",
        "operator": "contains",
        "values": ["x", 1],
        "negate": True,
        "ignore_case": True,
        "serve": "b",
    }


def test_a_rule_serves_one_thing() -> None:
    asked = {"attribute": "a", "operator": "exists", "value": None}
    share = RolloutConfig(percentage=5, salt="s")
    arms = RolloutConfig(percentage=5, salt="s", variants=(Variant(key="a", value=1),))
    rule = FlagRule(attribute="a", operator="exists")
    assert attrs.evolve(rule, variant="v").to_dict() == asked | {"variant": "v"}
    assert attrs.evolve(rule, rollout=share).to_dict() == asked | {"rollout": share.to_dict(), "serve": True}
    assert attrs.evolve(rule, rollout=arms).to_dict() == asked | {"rollout": arms.to_dict()}


def test_a_rollout_without_variants_has_none() -> None:
    rollout = RolloutConfig(percentage=12.5, salt="s")
    assert rollout.to_dict() == {"percentage": 12.5, "salt": "s", "sticky_unit": "user_id"}


def test_a_rollout_writes_its_variants() -> None:
    rollout = RolloutConfig(percentage=1, salt="s", sticky_unit="device_id", variants=(Variant(key="a", value=None),))
    assert rollout.to_dict() == {
        "percentage": 1,
        "salt": "s",
        "sticky_unit": "device_id",
        "variants": [{"key": "a", "value": None, "weight": 1}],
    }


def test_every_model_is_one() -> None:
    assert {cls for cls in CLASSES if not issubclass(cls, Model)} == {
        Metadata,
        Page,
        ProjectInventory,
        Variant,
        FlagRule,
        RolloutConfig,
    }


def test_a_rollout_takes_variants_as_plain_objects_too() -> None:
    arms = [{"key": "a", "value": 1, "weight": 2}, Variant(key="b", value=2)]
    assert RolloutConfig(percentage=5, salt="s", variants=arms).to_dict()["variants"] == [
        {"key": "a", "value": 1, "weight": 2},
        Variant(key="b", value=2).to_dict(),
    ]
