"""Lists: a cursor reads pages as they are needed and remembers where it stands."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Generic, Self, SupportsIndex, TypeVar, overload

from infrai_async._display.progress import Progress, Report, reporting
from infrai_async.errors import InvalidArgument, PaginationError
from infrai_async.models import JSON, Model, Page

if TYPE_CHECKING:
    from infrai_async._listing.prefetch import Fetch, Prefetcher

T = TypeVar("T", bound=Model)


class Items(builtins.list[T]):
    """What ``collect`` returns: a list that a notebook shows as a table."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Items[T]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> T | Items[T]:
        if isinstance(index, slice):
            return Items(super().__getitem__(index))
        return super().__getitem__(index)

    def _repr_html_(self) -> str:
        from infrai_async._display.html import table

        return table(self, empty="an empty list")


class Cursor(Generic[T]):
    """Every item of a listing, fetched page by page while it is read.

    A cursor is read once, as a file is: ``async for``, ``pages()``, ``page()`` and ``collect()`` all go on from where
    it stands. Leaving a loop early leaves nothing running, and loses nothing either: ``next_cursor`` then still names
    the page whose items were not all handed out.
    """

    __slots__ = (
        "_ahead",
        "_capability",
        "_fetch",
        "_fetching",
        "_items",
        "_left",
        "_next",
        "_resume",
        "_seen",
        "_started",
    )

    def __init__(
        self,
        fetch: Fetch[T],
        *,
        capability: str,
        cursor: str | None = None,
        max_items: int | None = None,
        prefetch: int = 0,
    ) -> None:
        self._fetch = fetch
        self._seen = _Seen(capability)
        self._ahead = _read_ahead(_once(fetch, self._seen), prefetch) if prefetch else None
        self._capability = capability
        self._left = max_items
        self._items: Iterator[T] = iter(())  # what is left of the page in hand
        self._resume = cursor
        self._next = cursor
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
        return self._resume if self._in_hand else self._next

    @property
    def _in_hand(self) -> int:
        return operator.length_hint(self._items)

    @property
    def _fetched_all(self) -> bool:
        return (self._started and self._next is None) or self._left == 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while True:
            for item in self._items:
                return item
            if self._fetched_all:
                raise StopAsyncIteration
            await self._load()

    async def _load(self) -> None:
        """Take the next page in hand."""
        self._items = iter((await self._fetch_next()).items)

    async def _fetch_next(self) -> Page[T]:
        if self._fetching:
            raise RuntimeError("this cursor is being read by another task or thread: give each a cursor of its own")
        self._fetching = True
        try:
            if self._ahead is None:
                self._seen.check(self._next)
                page = await self._fetch(self._next)
                self._seen.add(self._next)
            else:
                page = await self._ahead.take(self._next, self._left)
        finally:
            self._fetching = False
        self._started = True
        self._resume, self._next = self._next, page.next_cursor
        return page if self._left is None else self._cut(page, self._left)

    def _cut(self, page: Page[T], left: int) -> Page[T]:
        if len(page.items) > left:
            self._next = self._resume  # what is cut off is still to come for whoever resumes
            page = Page(items=page.items[:left], next_cursor=self._next, metadata=page.metadata)
        self._left = left - len(page.items)
        return page

    async def page(self) -> Page[T]:
        """Return the next page; an empty one without a ``next_cursor`` at the end.

        Items of a page that a loop had begun come as a page of their own.

        Raises:
            PaginationError: the service handed out a cursor for the second time.
            InfraiError: whatever the call itself may raise.
        """
        return self._rest() or (Page() if self._fetched_all else await self._fetch_next())

    def _rest(self) -> Page[T] | None:
        """What is left of the page in hand, as a page of its own."""
        if not (rest := tuple(self._items)):
            return None
        return Page(items=rest, next_cursor=self._next, metadata=rest[0].metadata)

    def pages(self) -> Pages[T]:
        """Return an asynchronous iterator over pages: ``async for page in cursor.pages()``."""
        return Pages(self)

    async def collect(self, *, max_items: int | None = None, progress: Progress = False) -> builtins.list[T]:
        """Return the items that are left as a list; a notebook shows it as a table.

        Args:
            max_items: at most so many; the cursor then stands behind them.
            progress: ``True`` for a bar, or a function that is called with ``(done, total)`` after each page; the
                total is ``None`` until all is done, because the service does not say it.

        Raises:
            InvalidArgument: ``max_items`` is negative or no whole number, or ``progress`` is no function.
            ConfigurationError: ``progress=True`` without tqdm.
            PaginationError: the service handed out a cursor for the second time.
            InfraiError: whatever the calls themselves may raise.
        """
        limit = check_max_items(max_items)
        found: Items[T] = Items()
        with reporting(progress, self._capability) as report:
            while self._gather(found, limit, report):
                await self._load()
        return found

    def _gather(self, found: builtins.list[T], limit: int | None, report: Report) -> bool:
        """Add what is in hand, and report it; true while another page is wanted."""
        found.extend(islice(self._items, None if limit is None else limit - len(found)))
        wanted = len(found) != limit and not self._fetched_all
        if found or not wanted:
            report(len(found), None if wanted else len(found))
        return wanted

    async def to_records(
        self, *, max_items: int | None = None, progress: Progress = False
    ) -> builtins.list[dict[str, JSON]]:
        """Return the items that are left as plain dicts, as ``pandas.DataFrame(...)`` takes them.

        Arguments and errors are those of ``collect``. Secrets stand in them in clear.
        """
        return [item.to_dict() for item in await self.collect(max_items=max_items, progress=progress)]


class Pages(Generic[T]):
    """The pages of a cursor, as an asynchronous iterator."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: Cursor[T]) -> None:
        self._cursor = cursor

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Page[T]:
        cursor = self._cursor
        if (rest := cursor._rest()) is not None:
            return rest
        if cursor._fetched_all:
            raise StopAsyncIteration
        return await cursor._fetch_next()


def _read_ahead(fetch: Fetch[T], pages: int) -> Prefetcher[T]:
    from infrai_async._listing.prefetch import Prefetcher  # few listings need it

    return Prefetcher(fetch, pages)


class _Seen:
    """The cursors whose pages have come."""

    def __init__(self, capability: str) -> None:
        self._capability = capability
        self._hashes: set[int] = set()  # not the cursors: a listing may have millions of pages

    def check(self, cursor: str | None) -> None:
        """Refuse one whose page has come already."""
        if hash(cursor) in self._hashes:
            raise PaginationError(
                f"the service handed out a cursor again after {len(self._hashes)} pages: going on would never end",
                capability=self._capability,
            )

    def add(self, cursor: str | None) -> None:
        """Note that its page has come."""
        self._hashes.add(hash(cursor))


def _once(fetch: Fetch[T], seen: _Seen) -> Fetch[T]:
    """Return ``fetch`` so that it fetches no page twice."""

    async def fetch_once(cursor: str | None) -> Page[T]:
        seen.check(cursor)
        page = await fetch(cursor)
        seen.add(cursor)
        return page

    return fetch_once


def check_max_items(max_items: object) -> int | None:
    """Return ``max_items`` as given.

    Raises:
        InvalidArgument: it is negative or no whole number.
    """
    return None if max_items is None else check_count("max_items", max_items)


def check_count(name: str, number: object, *, least: int = 0) -> int:
    """Return a number of things as given.

    Raises:
        InvalidArgument: it is less than ``least`` or no whole number.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise InvalidArgument(f"{name} must be a whole number, {least} or more")
    return number
