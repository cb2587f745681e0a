"""Statements that fit the other client: each ends with a ``TypeError`` that says what to write instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.oracle import SMALL, Oracle, answer

import infrai_async
from infrai_async import AsyncInfrai, Infrai, sync
from infrai_async._listing.cursor import Pages
from infrai_async._misuse import explain, is_explained
from infrai_async.sync._facade import _Pages

SOURCES: dict[str, Callable[[Any], Any]] = {
    "cursor": lambda client: client.db.project.list(),
    "pages": lambda client: client.db.project.list().pages(),
    "fan_out": lambda client: (client.fan_out if isinstance(client, Infrai) else infrai_async.fan_out)([1], list),
    "inventory": lambda client: client.db.inventory(),
}
each_source = pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
each_block = pytest.mark.parametrize("make", [lambda client: client, SOURCES["fan_out"], SOURCES["inventory"]])


async def loop_over(source: Any) -> None:
    async for _ in source:
        raise AssertionError


async def listed(source: Any) -> list[Any]:
    return [item async for item in source]


async def following(source: Any) -> Any:
    return await anext(source)


async def awaited(source: Any) -> Any:
    return await source


async def enter(source: Any) -> None:
    async with source:
        raise AssertionError


def searched(source: Any) -> bool:
    return 1 in source


def unpacked(source: Any) -> list[Any]:
    return [*source]


FOR_IN_ASYNC: dict[str, tuple[Callable[[Any], Any], str]] = {
    "for": (iter, "async for"),
    "list": (list, "async for"),
    "unpacking": (unpacked, "async for"),
    "in": (searched, "async for"),
    "next": (next, "await anext"),
    "await": (lambda source: asyncio.run(awaited(source)), "async for"),
    "len": (len, "async for|await cursor.collect"),
    "index": (lambda source: source[0], "async for|await cursor.collect"),
    "slice": (lambda source: source[:5], "async for|await cursor.collect"),
    "reversed": (reversed, "async for|await cursor.collect"),
}
ASYNC_FOR_IN_BLOCKING: dict[str, tuple[Callable[[Any], Any], str]] = {
    "aiter": (aiter, "`for`.*AsyncInfrai"),
    "async for": (lambda source: asyncio.run(loop_over(source)), "`for`.*AsyncInfrai"),
    "async list": (lambda source: asyncio.run(listed(source)), "`for`.*AsyncInfrai"),
    "anext": (lambda source: asyncio.run(following(source)), r"`next\(.*AsyncInfrai"),
    "await": (lambda source: asyncio.run(awaited(source)), "`for`.*AsyncInfrai"),
    "len": (len, r"len\((list|cursor.collect)\("),
    "index": (lambda source: source[0], r"`(list|cursor.collect)\(.*\[...\]"),
    "slice": (lambda source: source[:5], r"`(list|cursor.collect)\(.*\[...\]"),
}


@each_source
@pytest.mark.parametrize(("use", "advice"), FOR_IN_ASYNC.values(), ids=FOR_IN_ASYNC)
def test_blocking_statements_on_the_asynchronous_client_say_what_to_write(
    use: Callable[[Any], Any], advice: str, make: Callable[[Any], Any]
) -> None:
    with pytest.raises(TypeError, match=advice):
        use(make(AsyncInfrai("k")))


@each_source
@pytest.mark.parametrize(("use", "advice"), ASYNC_FOR_IN_BLOCKING.values(), ids=ASYNC_FOR_IN_BLOCKING)
def test_asynchronous_statements_on_the_blocking_client_say_what_to_write(
    use: Callable[[Any], Any], advice: str, make: Callable[[Any], Any]
) -> None:
    with pytest.raises(TypeError, match=advice):
        use(make(Infrai("k")))


@each_block
def test_with_on_the_asynchronous_client_says_async_with(make: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"`async with`.*Infrai"), make(AsyncInfrai("k")):
        raise AssertionError


@each_block
def test_async_with_on_the_blocking_client_says_with(make: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"`with`.*AsyncInfrai"):
        asyncio.run(enter(make(Infrai("k"))))


@each_source
@pytest.mark.parametrize("client", [AsyncInfrai("k"), Infrai("k")], ids=lambda client: type(client).__name__)
def test_what_has_no_length_is_true(client: Any, make: Callable[[Any], Any]) -> None:
    assert make(client)
    assert make(client)


READERS = [
    *(infrai_async.Cursor, Pages, infrai_async.FanOut, infrai_async.Inventory, AsyncInfrai),
    *(sync.Cursor, _Pages, sync.FanOut, sync.Inventory, Infrai),
]


@pytest.mark.parametrize("cls", READERS, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_a_class_explains_the_methods_of_one_side_and_has_those_of_the_other(cls: type) -> None:
    for one, other in [("__iter__", "__aiter__"), ("__next__", "__anext__"), ("__enter__", "__aenter__")]:
        if hasattr(cls, one) or hasattr(cls, other):
            assert hasattr(getattr(cls, one), "advice") != hasattr(getattr(cls, other), "advice")


def test_advice_is_not_mistaken_for_the_method_itself() -> None:
    class Thing:
        def __len__(self) -> int:
            return 0

    explain(Thing, __aiter__="say something else")
    assert is_explained(Thing(), "__aiter__")
    assert not is_explained(Thing(), "__len__")
    assert not is_explained(Thing(), "__iter__")
    assert not Thing()
    assert Thing.__aiter__.__doc__ == "Raise ``TypeError``: say something else."  # type: ignore[attr-defined]


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    with Oracle(lambda _: answer({"items": [SMALL], "next_cursor": None})) as oracle:
        yield oracle


def test_a_list_is_made_of_what_has_no_length(oracle: Oracle) -> None:
    with Infrai("k", base_url=oracle.url) as client:
        assert [one.id for one in list(client.db.project.list())] == ["p1"]
        assert [len(page) for page in list(client.db.project.list().pages())] == [1]
        assert len(list(client.fan_out(client.db.project.list(), lambda one: [one]))) == 1


def test_a_blocking_cursor_still_serves_as_the_parents_of_an_asynchronous_fan_out(oracle: Oracle) -> None:
    async def read(client: Infrai) -> list[str]:
        return [child async for _, child in infrai_async.fan_out(client.db.project.list(), lambda one: [one.id])]

    with Infrai("k", base_url=oracle.url) as client:
        assert asyncio.run(read(client)) == ["p1"]
