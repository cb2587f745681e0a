"""Lists: a cursor reads pages as they are needed and remembers where it stands."""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable
from typing import Generic, Self, TypeAlias, TypeVar

from infrai_async.errors import InvalidArgument, PaginationError
from infrai_async.models import JSON, Model, Page

T = TypeVar("T", bound=Model)
Fetch: TypeAlias = Callable[[str | None], Awaitable[Page[T]]]


class Cursor(Generic[T]):
    """Every item of a listing, fetched page by page while it is read.

    A cursor is read once, as a file is: ``async for``, ``pages()``, ``page()`` and ``collect()`` all go on from where
    it stands. Leaving a loop early leaves nothing running, and loses nothing either: ``next_cursor`` then still names
    the page whose items were not all handed out.
    """

    __slots__ = ("_capability", "_fetch", "_fetching", "_items", "_left", "_next", "_resume", "_seen", "_started")

    def __init__(
        self, fetch: Fetch[T], *, capability: str, cursor: str | None = None, max_items: int | None = None
    ) -> None:
        self._fetch = fetch
        self._capability = capability
        self._left = max_items
        self._items: builtins.list[T] = []  # of the page in hand, last first
        self._resume = cursor
        self._next = cursor
        self._seen: set[int] = set()
        self._started = False
        self._fetching = False

    def __repr__(self) -> str:
        return f"<Cursor of {self._capability}>"

    @property
    def next_cursor(self) -> str | None:
        """Where to resume: ``list(cursor=...)`` goes on there, in another process too.

        While a page's items are still being handed out it names that page, so that nothing is lost; ``None`` before
        the first page of a fresh listing, and after the last.
        """
        return self._resume if self._items else self._next

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if not self._items:
            await self._load()
        return self._items.pop()

    async def _load(self) -> None:
        """Have at least one item in hand, or raise ``StopAsyncIteration``."""
        while not self._items:
            page = await self._advance()
            if page is None:
                raise StopAsyncIteration
            self._items = [*reversed(page.items)]

    async def _advance(self) -> Page[T] | None:
        if (self._started and self._next is None) or self._left == 0:
            return None
        if self._fetching:
            raise RuntimeError("this cursor is being read by another task: give each task a cursor of its own")
        self._check_unseen(self._next)
        self._fetching = True
        try:
            page = await self._fetch(self._next)
        finally:
            self._fetching = False
        self._seen.add(hash(self._next))  # a hash: a listing may have millions of pages
        self._started = True
        self._resume, self._next = self._next, page.next_cursor
        return self._cut(page)

    def _check_unseen(self, cursor: str | None) -> None:
        if hash(cursor) in self._seen:
            raise PaginationError(
                f"the service handed out a cursor again after {len(self._seen)} pages: going on would never end",
                capability=self._capability,
            )

    def _cut(self, page: Page[T]) -> Page[T]:
        if self._left is None:
            return page
        if len(page.items) > self._left:
            self._next = self._resume  # what is cut off is still to come for whoever resumes
            page = Page(items=page.items[: self._left], next_cursor=self._next, metadata=page.metadata)
        self._left -= len(page.items)
        return page

    async def page(self) -> Page[T]:
        """Return the next page; an empty one without a ``next_cursor`` at the end.

        Items of a page that was begun by ``async for`` come as a page of their own.

        Raises:
            PaginationError: the service handed out a cursor for the second time.
            InfraiError: whatever the call itself may raise.
        """
        return await self._next_page() or Page()

    async def _next_page(self) -> Page[T] | None:
        if self._items:
            rest = tuple(reversed(self._items))
            self._items = []
            return Page(items=rest, next_cursor=self._next, metadata=rest[0].metadata)
        return await self._advance()

    def pages(self) -> Pages[T]:
        """Return an asynchronous iterator over pages: ``async for page in cursor.pages()``."""
        return Pages(self)

    async def collect(self, *, max_items: int | None = None) -> builtins.list[T]:
        """Return the items that are left as a list.

        Args:
            max_items: at most so many; the cursor then stands behind them.

        Raises:
            InvalidArgument: ``max_items`` is negative or no whole number.
            PaginationError: the service handed out a cursor for the second time.
            InfraiError: whatever the calls themselves may raise.
        """
        limit = check_max_items(max_items)
        found: builtins.list[T] = []
        while limit is None or len(found) < limit:
            try:
                found.append(await self.__anext__())
            except StopAsyncIteration:
                break
        return found

    async def to_records(self) -> builtins.list[dict[str, JSON]]:
        """Return the items that are left as plain dicts, as ``pandas.DataFrame(...)`` takes them."""
        return [item.to_dict() for item in await self.collect()]


class Pages(Generic[T]):
    """The pages of a cursor, as an asynchronous iterator."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: Cursor[T]) -> None:
        self._cursor = cursor

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Page[T]:
        page = await self._cursor._next_page()
        if page is None:
            raise StopAsyncIteration
        return page


def check_max_items(max_items: object) -> int | None:
    """Return ``max_items`` as given.

    Raises:
        InvalidArgument: it is negative or no whole number.
    """
    if max_items is None:
        return None
    if isinstance(max_items, bool) or not isinstance(max_items, int) or max_items < 0:
        raise InvalidArgument("max_items must be a whole number, 0 or more")
    return max_items
