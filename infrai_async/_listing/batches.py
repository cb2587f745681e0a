"""The items of any iterable in batches, for a fan-out over it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Generic, Self, TypeVar

T = TypeVar("T")

_CHUNK: Final = 100  # items to take from a plain iterable at once


class Singles(Generic[T]):
    """The items of an asynchronous iterable, one in each batch, because the next item may take long."""

    def __init__(self, source: AsyncIterable[T]) -> None:
        self._items = aiter(source)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[T]:
        return (await anext(self._items),)

    async def aclose(self) -> None:
        """Close the iterator, where it can be closed."""
        close = getattr(self._items, "aclose", None)
        if close is not None:
            await close()


class Chunks(Generic[T]):
    """The items of a plain iterable, in chunks, because its items are available without waiting."""

    def __init__(self, source: Iterable[T]) -> None:
        self._items = iter(source)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[T]:
        chunk: list[T] = []
        try:
            chunk.extend(islice(self._items, _CHUNK))
        except Exception as error:
            if not chunk:
                raise
            self._items = _failing(error)  # raised after the items that came before it
        if not chunk:
            raise StopAsyncIteration
        return chunk


def _failing(error: Exception) -> Iterator[Any]:
    try:
        raise error
    finally:
        del error  # the traceback refers to this frame: breaks the reference cycle
    yield
