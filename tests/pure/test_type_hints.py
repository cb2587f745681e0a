"""The annotations of everything public resolve at run time, as frameworks that read them expect."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import infrai_async

MODULES = ["infrai_async", "infrai_async.models", "infrai_async.errors", "infrai_async.capabilities"]
MODULES += ["infrai_async.local", "infrai_async.ext.otel"]
for package in ("infrai_async.resources", "infrai_async.sync._resources"):
    found = importlib.import_module(package)
    MODULES += [f"{package}.{module.name}" for module in pkgutil.iter_modules(found.__path__)]


def names_of(module: ModuleType) -> list[str]:
    exported = getattr(module, "__all__", None)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return sorted(exported if exported is not None else [name for name in own if not name.startswith("_")])


def public(thing: Any) -> Iterator[tuple[str, Any]]:
    """A function or class, and its constructor, methods and properties."""
    yield thing.__qualname__, thing
    if not inspect.isclass(thing):
        return
    for name, member in inspect.getmembers(thing):
        if name.startswith("_") and name not in ("__init__", "__aenter__", "__enter__", "__iter__", "__aiter__"):
            continue
        function = member.fget if isinstance(member, property) else getattr(member, "func", member)
        if inspect.isfunction(function):
            yield f"{thing.__qualname__}.{name}", function


EVERYTHING = {
    f"{module}.{label}": target
    for module in MODULES
    for name in names_of(importlib.import_module(module))
    if inspect.isclass(thing := getattr(importlib.import_module(module), name)) or inspect.isfunction(thing)
    for label, target in public(thing)
}


@pytest.mark.parametrize("target", EVERYTHING.values(), ids=EVERYTHING)
def test_the_hints_of_everything_public_resolve(target: Any) -> None:
    hints = typing.get_type_hints(target)
    if inspect.isfunction(target) and target.__annotations__:
        assert hints


def test_all_of_it_was_asked() -> None:
    assert len(EVERYTHING) > 400
    assert set(infrai_async.__all__) >= {"AsyncInfrai", "Infrai"}
    assert typing.get_type_hints(infrai_async.Project.__init__)["connection_uri"] is str
