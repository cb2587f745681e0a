"""Tables for notebooks: readable, harmless whatever the service sends, and as silent about secrets as the repr."""

from __future__ import annotations

import ast
import inspect
import types
import typing
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infrai_async import models
from infrai_async._display.html import mapping, record, table
from infrai_async.models import (
    Ack,
    Balance,
    CapabilityInfo,
    DiscoveryIndex,
    FlagValue,
    FlagValues,
    Metadata,
    Model,
    Page,
    Project,
    Snapshot,
)

SECRET = "hunter2"
URI = f"postgresql://shop:{SECRET}@db.example:5432/shop"
MASKED = "postgresql://shop:***@db.example:5432/shop"
PROJECT = Project(id="prj_1", name="shop", connection_uri=URI, extra={"password": SECRET})
NOON = datetime(2026, 11, 21, 10, 45, 19, 600, tzinfo=UTC)
CLASSES = [cls for cls in vars(models).values() if inspect.isclass(cls) and cls.__module__.startswith(models.__name__)]
SHOWN = [cls for cls in CLASSES if hasattr(cls, "_repr_html_")]
TAGS = {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "small", "p", "br"}


def build(kind: Any, text: str) -> Any:
    """A value of a type, with ``text`` wherever it takes one and the secret wherever the repr hides something."""
    if attrs.has(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{field.name: build_field(field, hints[field.name], text) for field in attrs.fields(kind)})
    match typing.get_origin(kind), typing.get_args(kind):
        case types.UnionType | typing.Union, (first, *_):
            return build(first, text)
        case origin, (item, _) if origin is tuple:
            return (build(item, text), build(item, text))
        case _, (_, item):
            return {text: build(item, text)}
    if isinstance(kind, typing.TypeVar):
        return build(Project, text)
    return {str: text, bool: True, int: 1, float: 0.5, Decimal: Decimal("0.001"), datetime: NOON}.get(
        kind, {text: [text, None]}
    )


def build_field(field: Any, kind: Any, text: str) -> Any:
    if field.name == "metadata":
        return build(Metadata, text)
    if field.repr is False:
        return {"key": SECRET}
    return f"https://db.example/shop?password={SECRET}" if callable(field.repr) else build(kind, text)


def parsed(markup: str) -> ET.Element:
    """The root of the markup, which is well-formed and has no tags and attributes but those of a table."""
    root = ET.fromstring(markup)
    assert {element.tag for element in root.iter()} <= TAGS
    assert {name for element in root.iter() for name in element.attrib} <= {"class", "style", "colspan"}
    return root


def texts(root: ET.Element, part: str) -> list[list[str]]:
    """The texts of a part of a table, row by row."""
    return [["".join(cell.itertext()) for cell in row] for row in root.findall(f"{part}/tr")]


def body(markup: str) -> list[list[str]]:
    return texts(parsed(markup), "tbody")


def head(markup: str) -> list[str]:
    return texts(parsed(markup), "thead")[0]


def foot(markup: str) -> list[str]:
    return [line for (line,) in texts(parsed(markup), "tfoot")]


def line(markup: str) -> str:
    """What is said in place of a table."""
    root = parsed(markup)
    assert root.tag == "p"
    return " / ".join(root.itertext())


def html_of(value: Any) -> str:
    made = value._repr_html_()
    assert type(made) is str
    return made


# --- every model ---------------------------------------------------------------------------------------------------


def test_every_answer_has_a_table() -> None:
    assert {cls for cls in CLASSES if issubclass(cls, Model)} | {Page, Metadata, models.ProjectInventory} == set(SHOWN)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_table_shows_a_secret(cls: Any) -> None:
    value = build(cls, "shop")
    for markup in (record(value), table([value]), table([(value, {"a": [value]})]), mapping({"a": value})):
        parsed(markup)
        assert SECRET not in markup


@pytest.mark.parametrize("cls", SHOWN, ids=lambda cls: cls.__name__)
def test_no_model_shows_a_secret_in_a_notebook(cls: Any) -> None:
    markup = html_of(build(cls, "shop"))
    parsed(markup)
    assert SECRET not in markup
    assert "0.001" in markup  # what the call cost


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_record_has_the_fields_of_the_repr_and_their_masks(cls: Any) -> None:
    value = build(cls, "shop")
    fields = [field for field in attrs.fields(cls) if field.repr]
    shown = dict(body(record(value)))
    assert list(shown) == [field.name for field in fields]
    for field in fields:
        if callable(field.repr):
            assert shown[field.name] == ast.literal_eval(str(field.repr(getattr(value, field.name))))


def test_a_project_is_a_table_of_field_and_value() -> None:
    markup = html_of(PROJECT)
    assert parsed(markup).findtext("caption") == "Project"
    assert head(markup) == ["field", "value"]
    assert body(markup)[:4] == [["id", "prj_1"], ["name", "shop"], ["connection_uri", MASKED], ["region", ""]]
    assert foot(markup) == []


def test_a_false_answer_is_a_table_all_the_same() -> None:
    assert body(html_of(Ack(ok=False))) == [["ok", "false"]]


def test_a_record_says_what_its_call_was() -> None:
    model = Balance(balance_usd=Decimal("1.50"), metadata=Metadata(request_id="r1", cost_usd=Decimal("1E-7")))
    assert foot(html_of(model)) == ["request_id: r1 · cost_usd: 0.0000001"]


def test_a_model_without_fields_is_a_line() -> None:
    assert line(html_of(Model())) == "Model"


# --- harm ----------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """The tags that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)

    def handle_comment(self, data: str) -> None:
        self.found.add(f"comment {data}")

    def handle_decl(self, decl: str) -> None:
        self.found.add(f"declaration {decl}")


@pytest.mark.parametrize("cls", SHOWN, ids=lambda cls: cls.__name__)
@given(text=st.text())
@example(text="<script>alert(1)</script>")
@example(text="</td></tr></table><img src=x onerror=alert(1)>")
@example(text="\" onload='x' <!-- & &lt; ]]> <?x?>")
@example(text="\x00\x1b[31m\r\n\ud800\ufffe\u202e")
def test_any_text_from_the_service_is_harmless(cls: Any, text: str) -> None:
    markup = html_of(build(cls, text))
    parsed(markup)
    seen = Tags()
    seen.feed(markup)
    seen.close()
    assert seen.found <= TAGS
    assert markup.isprintable()


@given(st.text(st.characters().filter(str.isprintable), max_size=200))
@example("<script>alert(1)</script>")
@example("&amp; \"quoted\" 'too' $x$")
def test_a_printable_text_is_shown_as_it_is(text: str) -> None:
    project = Project(id=text, name="shop", connection_uri=URI)
    assert dict(body(html_of(project)))["id"] == text
    assert body(table([project]))[0][0] == text
    assert body(html_of(FlagValues(values_by_key={text: text}))) == [[text, text]]
    assert foot(html_of(Page(items=(PROJECT,), next_cursor=text))) == [f"next_cursor: {text}"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb\tc", r"a\nb\tc"), ("\x00", r"\x00"), ("\x1b[31m", r"\x1b[31m"), ("\u202eexe", r"\u202eexe")],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, shown: str) -> None:
    assert body(table([text])) == [[shown]]


def test_no_text_is_taken_for_mathematics() -> None:
    assert "mathjax_ignore" in parsed(html_of(PROJECT)).attrib["class"]
    assert "mathjax_ignore" in parsed(html_of(Page())).attrib["class"]


@pytest.mark.parametrize(("length", "shown"), [(200, "x" * 200), (201, "x" * 199 + "…"), (10**6, "x" * 199 + "…")])
def test_a_long_text_is_cut(length: int, shown: str) -> None:
    assert body(table(["x" * length])) == [[shown]]


def test_a_text_is_cut_before_it_is_escaped() -> None:
    assert body(table(["&" * 300])) == [["&" * 199 + "…"]]


def test_a_long_secret_is_masked_before_it_is_cut() -> None:
    uri = f"postgresql://shop:{SECRET * 100}@db.example/{'x' * 300}"
    markup = html_of(Project(id="p", name="n", connection_uri=uri))
    assert SECRET not in markup
    assert dict(body(markup))["connection_uri"] == "postgresql://shop:***@db.example/xxx".ljust(199, "x") + "…"


# --- texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (0.5, "0.5"),
        ("", ""),
        (Decimal("10.50"), "10.50"),
        (Decimal("1E-7"), "0.0000001"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E+999999999999"), "1E+999999999999"),
        (Decimal("-1E-999999999999"), "-1E-999999999999"),
        (Decimal("NaN"), "NaN"),
        (NOON, "2026-11-21 10:45:19 UTC"),
        (NOON.astimezone(timezone(timedelta(hours=2))), "2026-11-21 12:45:19+02:00"),
        (NOON.replace(tzinfo=None), "2026-11-21 10:45:19"),
        (("eu", "us", None), "eu, us, "),
        (({"a": 1}, {"b": None}), '{"a": 1}, {"b": null}'),
        ([1, "ä", [None, True]], '[1, "ä", [null, true]]'),
        ({"a": {"b": [0.5]}}, '{"a": {"b": [0.5]}}'),
        (types.MappingProxyType({"a": NOON}), '{"a": "2026-11-21 10:45:19 UTC"}'),
        ([Ack(ok=True)], '["Ack(ok=True)"]'),
        ((Ack(ok=True), Ack(ok=False)), "Ack(ok=True), Ack(ok=False)"),
        (FlagValues(values_by_key={"a": 1}), "FlagValues(values_by_key={'a': 1})"),
        ({1}, "{1}"),
    ],
)
def test_every_value_has_a_text(value: object, shown: str) -> None:
    assert body(html_of(FlagValue(value=typing.cast(Any, value))))[0] == ["value", shown]


@attrs.frozen
class Hidden:
    """Fields whose reprs are no quoted text."""

    tag: str = attrs.field(default=SECRET, repr=lambda _: "<hidden>")
    digits: str = attrs.field(default=SECRET, repr=lambda _: "12")
    quoted: str = attrs.field(default="it's", repr=repr)
    missing: str | None = attrs.field(default=None, repr=repr)


def test_a_mask_that_is_no_quoted_text_stands_as_it_is() -> None:
    assert body(record(Hidden())) == [["tag", "<hidden>"], ["digits", "12"], ["quoted", "it's"], ["missing", ""]]


# --- several values --------------------------------------------------------------------------------------------------


def test_a_column_stands_where_the_class_has_its_field_and_only_if_a_row_has_it() -> None:
    rows = [PROJECT, attrs.evolve(PROJECT, status="ready", region="eu")]
    markup = table(rows)
    assert parsed(markup).findtext("caption") == "Project (2)"
    assert head(markup) == ["id", "name", "region", "status"]
    assert body(markup) == [["prj_1", "shop", "", ""], ["prj_1", "shop", "eu", "ready"]]


def test_a_table_of_many_leaves_out_connection_uris_and_names_what_holds_one() -> None:
    branch = models.Branch(id="br_1", branch_name="dev", project_id="prj_1", connection_uri=PROJECT.connection_uri)
    entry = models.ProjectInventory(project=PROJECT, branches=(branch, branch), snapshots=())
    markup = table([entry])
    assert head(markup) == ["project", "branches", "snapshots"]
    assert body(markup) == [["prj_1", "br_1, br_1", ""]]
    assert body(table([(PROJECT, branch)])) == [["prj_1", "br_1"]]
    assert head(table([branch])) == ["id", "branch_name", "project_id"]
    assert "postgresql" not in markup + table([PROJECT, branch])
    assert "postgresql" in record(PROJECT)


def test_an_empty_text_keeps_its_column() -> None:
    assert head(table([Snapshot(id="", project_id="p", created_at=NOON)])) == ["id", "project_id", "created_at"]


def test_rows_of_several_classes_share_their_columns() -> None:
    markup = table([Ack(ok=True), PROJECT, Ack(ok=False), "text"])
    assert parsed(markup).findtext("caption") == "Ack, Project, str (4)"
    assert head(markup) == ["ok", "id", "name", "value"]
    assert body(markup)[2:] == [["false", "", "", ""], ["", "", "", "text"]]


@pytest.mark.parametrize(
    ("count", "shown", "more"), [(1, 1, []), (50, 50, []), (51, 50, ["… and 1 more"]), (120, 50, ["… and 70 more"])]
)
def test_the_last_line_says_how_many_more_there_are(count: int, shown: int, more: list[str]) -> None:
    for markup in (table([PROJECT] * count), mapping({str(key): 1 for key in range(count)})):
        assert len(body(markup)) == shown
        assert foot(markup) == more
        assert f"({count})" in (parsed(markup).findtext("caption") or "")


def test_the_lines_below_are_as_wide_as_the_table() -> None:
    cell = parsed(table([PROJECT], footer={"a": 1})).find("tfoot/tr/td")
    assert cell is not None
    assert cell.attrib["colspan"] == "2"


def test_nothing_at_all_is_a_line() -> None:
    assert line(table([])) == "empty"
    assert line(table([], empty="no projects", footer={"a": 1, "b": None})) == "no projects / a: 1"
    assert line(mapping({}, empty="<none>")) == "<none>"


def test_rows_without_anything_in_them_are_a_line() -> None:
    assert line(table([Metadata(), None])) == "Metadata, NoneType (2)"


# --- pages, flags, discovery ---------------------------------------------------------------------------------------


def test_a_page_shows_its_items_and_where_the_next_begins() -> None:
    page = Page(items=(PROJECT,) * 60, next_cursor="c<2>", metadata=Metadata(request_id="r1"))
    markup = html_of(page)
    assert len(body(markup)) == 50
    assert foot(markup) == ["… and 10 more", "next_cursor: c<2> · request_id: r1"]


def test_the_last_page_shows_no_cursor() -> None:
    assert foot(html_of(Page(items=(PROJECT,)))) == []


def test_an_empty_page_says_so_and_where_the_next_begins() -> None:
    assert line(html_of(Page())) == "an empty page"
    assert line(html_of(Page(next_cursor="c2"))) == "an empty page / next_cursor: c2"


def test_all_flag_values_are_a_table_of_key_and_value() -> None:
    values = FlagValues(values_by_key={"a": True, "b": {"x": [1]}, "c": None}, metadata=Metadata(request_id="r1"))
    markup = html_of(values)
    assert parsed(markup).findtext("caption") == "FlagValues (3)"
    assert head(markup) == ["key", "value"]
    assert body(markup) == [["a", "true"], ["b", '{"x": [1]}'], ["c", ""]]
    assert foot(markup) == ["request_id: r1"]
    assert line(html_of(FlagValues(values_by_key={}))) == "no flags"


def test_discovery_is_a_table_of_capabilities() -> None:
    infos = (CapabilityInfo(id="cdn.purge", regions=("eu", "us")), CapabilityInfo(id="dns.list", method="GET"))
    markup = html_of(DiscoveryIndex(capabilities=infos, version="3", generated_at=NOON))
    assert head(markup) == ["id", "method", "regions"]
    assert body(markup) == [["cdn.purge", "", "eu, us"], ["dns.list", "GET", ""]]
    assert foot(markup) == ["version: 3 · generated_at: 2026-11-21 10:45:19 UTC"]
    assert line(html_of(DiscoveryIndex(capabilities=()))) == "no capabilities"
