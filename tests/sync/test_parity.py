"""The two clients offer the same: walked from the clients down, name by name and parameter by parameter."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import infrai_async
from infrai_async import AsyncInfrai, Infrai, sync
from infrai_async._dispatch import Resource
from infrai_async.capabilities import CAPABILITIES
from infrai_async.sync._facade import Facade

RENAMED = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}
RENAMED |= {"__aiter__": "__iter__", "__anext__": "__next__"}
METHOD_OF_THE_BLOCKING_CLIENT_ONLY = {"fan_out"}  # a function of the package on the asynchronous side
NOT_BLOCKING = {"session"}  # a session of the caller's belongs to the caller's loop
HERE = Path(__file__).parent


def pairs() -> dict[str, tuple[type, type]]:
    """Every class of the asynchronous side, by the path that leads to it, with its blocking equivalent."""
    found: dict[str, tuple[type, type]] = {}
    waiting: list[tuple[str, object, object]] = [("client", AsyncInfrai("k"), Infrai("k"))]
    while waiting:
        path, twin, facade = waiting.pop()
        found[path] = type(twin), type(facade)
        waiting += [
            (f"{path}.{name}", getattr(twin, name), getattr(facade, name))
            for name in sorted(public(type(twin)))
            if isinstance(vars(type(twin)).get(name), cached_property)
        ]
    return found | {
        "cursor": (infrai_async.Cursor, sync.Cursor),
        "pairs": (infrai_async.FanOut, sync.FanOut),
        "entries": (infrai_async.Inventory, sync.Inventory),
    }


def public(cls: type) -> set[str]:
    inherited = {name for base in cls.__mro__[:-1] for name in vars(base) if not hasattr(vars(base)[name], "advice")}
    return {name for name in inherited if not name.startswith("_") or name in {*RENAMED, *RENAMED.values()}}


PAIRS = pairs()
METHODS = [
    (f"{path}.{name}", getattr(twin, name), getattr(facade, RENAMED.get(name, name)))
    for path, (twin, facade) in PAIRS.items()
    for name in sorted(public(twin))
    if inspect.isfunction(vars(twin).get(name)) and not hasattr(vars(twin)[name], "advice")
]
# What a cursor's own methods return is asserted in tests/typing: those are written by hand.
RETURNING = [method for method in METHODS if not method[0].startswith(("cursor.", "pairs.", "entries."))]
COPIED = [
    (path, twin, facade)
    for path, twin, facade in METHODS
    if path in ("client.call", "cursor.page") or facade.__module__.startswith("infrai_async.sync._resources.")
]


def test_the_walk_reaches_every_namespace() -> None:
    assert {path.rpartition(".")[2] for path in PAIRS} >= {"client", "project", "object", "cache", "flags", "discovery"}
    assert len(METHODS) > len(CAPABILITIES)
    assert len(COPIED) > len(CAPABILITIES)


@pytest.mark.parametrize("path", PAIRS)
def test_both_have_the_same_public_names(path: str) -> None:
    twin, facade = PAIRS[path]
    only_blocking = METHOD_OF_THE_BLOCKING_CLIENT_ONLY if facade is Infrai else set()
    assert {RENAMED.get(name, name) for name in public(twin)} == public(facade) - only_blocking


def test_fan_out_takes_the_same_parameters_on_both_sides() -> None:
    assert list(parameters(Infrai.fan_out))[1:] == list(parameters(infrai_async.fan_out))
    assert inspect.signature(Infrai.fan_out).parameters["concurrency"].default == 32


def parameters(method: Any) -> dict[str, tuple[object, object]]:
    return {
        name: (parameter.kind, parameter.default)
        for name, parameter in inspect.signature(method).parameters.items()
        if name not in NOT_BLOCKING
    }


@pytest.mark.parametrize(("path", "twin", "facade"), METHODS, ids=[path for path, _, _ in METHODS])
def test_both_take_the_same_parameters(path: str, twin: Any, facade: Any) -> None:
    assert parameters(twin) == parameters(facade)
    hinted, given = get_type_hints(twin), get_type_hints(facade)
    assert {name: given[name] for name in parameters(twin) if name in given} == {
        name: hinted[name] for name in parameters(twin) if name in hinted
    }


def test_the_clients_are_built_from_the_same_arguments() -> None:
    assert parameters(AsyncInfrai.__init__) == parameters(Infrai.__init__)


@pytest.mark.parametrize(("path", "twin", "facade"), COPIED, ids=[path for path, _, _ in COPIED])
def test_a_blocking_method_has_the_docstring_of_its_counterpart(path: str, twin: Any, facade: Any) -> None:
    assert facade.__doc__ == twin.__doc__
    assert facade.__name__ == twin.__name__
    assert facade.__qualname__.rpartition(".")[0] == twin.__qualname__.rpartition(".")[0].replace("AsyncI", "I")
    assert not inspect.iscoroutinefunction(facade)
    assert facade.__module__.startswith("infrai_async.sync")


@pytest.mark.parametrize(("path", "twin", "facade"), RETURNING, ids=[path for path, _, _ in RETURNING])
def test_both_return_the_same(path: str, twin: Any, facade: Any) -> None:
    returned, given = get_type_hints(twin)["return"], get_type_hints(facade)["return"]
    if returned is not given and returned != given:
        moved = str(returned).replace("_listing.cursor.Cursor", "sync._facade.Cursor")
        assert moved.replace("_listing.inventory.Inventory", "sync._many.Inventory") == str(given)
        assert getattr(given, "__origin__", given) in (sync.Cursor, sync.Inventory)


def test_every_resource_is_reached() -> None:
    def below(cls: type) -> Iterator[type]:
        for child in cls.__subclasses__():
            # Other tests have subclasses of their own, as users do.
            if not child.__name__.startswith("_") and child.__module__.startswith("infrai_async."):
                yield child
            yield from below(child)

    assert {twin for twin, _ in PAIRS.values()} >= set(below(Resource))
    assert {facade for _, facade in PAIRS.values()} == set(below(Facade))


def test_the_type_of_every_method_is_asserted() -> None:
    text = (HERE.parent / "typing" / "blocking.py").read_text(encoding="utf-8")
    asserted = set(re.findall(r"assert_type\((?:next\()?((?:client|cursor|pairs|entries)\.[\w.]+)", text))
    expected = {
        f"{path}.{RENAMED.get(name, name)}" for path, (twin, _) in PAIRS.items() for name in public(twin)
    } - set(PAIRS)
    expected = {name for name in expected if "__" not in name}
    assert expected - asserted - {"cursor.pages"} == set()
