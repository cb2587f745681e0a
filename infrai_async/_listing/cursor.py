"""Cursors: they fetch the pages of a listing as they are needed, and remember the position."""

from __future__ import annotations

import builtins
import operator
import sys
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Generic, Self, SupportsIndex, TypeVar, overload

from infrai_async._display.progress import Progress, Report, reporting
from infrai_async._misuse import explain_asynchronous
from infrai_async.errors import InvalidArgument, PaginationError
from infrai_async.models import Model, Page

if TYPE_CHECKING:
    from infrai_async._listing.prefetch import Fetch, Prefetcher

T = TypeVar("T", bound=Model)
Item = TypeVar("Item")
if not TYPE_CHECKING:  # for ``get_type_hints``; few listings prefetch
    Fetch = Callable[[str | None], Awaitable[Page[T]]]


class Items(builtins.list[Item]):
    """The list that ``collect`` returns; notebooks show it as a table."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: SupportsIndex) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Items[Item]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Item | Items[Item]:
        if not isinstance(index, slice):  # first, because linters may look no further for what an index gives
            return super().__getitem__(index)
        return Items(super().__getitem__(index))

    def _repr_html_(self) -> str:
        from infrai_async._display.html import table

        return table(self, empty="an empty list")


class Cursor(Generic[T]):
    """All items of a listing, fetched page by page while they are read.

    A cursor is read once, like a file: ``async for``, ``pages()``, ``page()`` and ``collect()`` all continue from its
    current position. Leaving a loop early is safe: it leaves nothing running, and ``next_cursor`` still names the
    page whose items have not all been returned.
    """

    __slots__ = (
        "_capability",
        "_fetch",
        "_fetching",
        "_items",
        "_left",
        "_next",
        "_prefetcher",
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
        self._prefetcher = _make_prefetcher(_once(fetch, self._seen), prefetch) if prefetch else None
        self._capability = capability
        self._left = max_items
        self._items: Iterator[T] = iter(())  # the rest of the current page
        self._resume = cursor
        self._next = cursor
        self._started = False
        self._fetching = False

    def __repr__(self) -> str:
        return f"<Cursor of {self._capability}>"

    @property
    def next_cursor(self) -> str | None:
        """The position to resume from: ``list(cursor=...)`` continues there, also in another process.

        While the items of a page are being returned it names that page, so that no item is lost. ``None`` before the
        first page of a new listing, and after the last page.
        """
        return self._resume if self._items_left else self._next

    @property
    def _items_left(self) -> int:
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
        """Fetch the next page and make it the current one."""
        self._items = iter((await self._fetch_next()).items)

    async def _fetch_next(self) -> Page[T]:
        if self._fetching:
            raise RuntimeError("this cursor is being read by another task or thread: use a separate cursor for each")
        self._fetching = True
        try:
            if self._prefetcher is None:
                self._seen.check(self._next)
                page = await self._fetch(self._next)
                self._seen.add(self._next)
            else:
                page = await self._prefetcher.take(self._next, self._left)
        finally:
            self._fetching = False
        self._started = True
        self._resume, self._next = self._next, page.next_cursor
        return page if self._left is None else self._cut(page, self._left)

    def _cut(self, page: Page[T], left: int) -> Page[T]:
        if len(page.items) > left:
            self._next = self._resume  # resuming must return the items that are cut off
            page = Page(items=page.items[:left], next_cursor=self._next, metadata=page.metadata)
        self._left = left - len(page.items)
        return page

    async def page(self) -> Page[T]:
        """Return the next page.

        The remaining items of a page that was partly read are returned as a page of their own.

        Returns:
            The page; at the end of the listing, an empty page without a ``next_cursor``.

        Raises:
            PaginationError: the service returned the same cursor twice.
            InfraiError: the call failed.
        """
        return self._rest() or (Page() if self._fetched_all else await self._fetch_next())

    def _rest(self) -> Page[T] | None:
        """Return the rest of the current page as a page of its own; ``None`` if nothing is left."""
        if not (rest := tuple(self._items)):
            return None
        return Page(items=rest, next_cursor=self._next, metadata=rest[0].metadata)

    def pages(self) -> Pages[T]:
        """Iterate over pages instead of items: ``async for page in cursor.pages()``.

        Returns:
            An asynchronous iterator of ``Page`` objects.
        """
        return Pages(self)

    async def collect(self, *, max_items: int | None = None, progress: Progress = False) -> builtins.list[T]:
        """Read the remaining items into a list.

        Args:
            max_items: the maximum number of items to read. The cursor can be read further afterwards.
            progress: ``True`` for a progress bar, or a function that is called with ``(done, total)`` after each page.
                ``total`` is ``None`` until the end, because the service does not report it.

        Returns:
            The items as a list, which notebooks show as a table.

        Raises:
            InvalidArgument: ``max_items`` is not a whole number, 0 or more, or ``progress`` is not a function.
            ConfigurationError: ``progress`` is ``True``, and tqdm is not installed.
            PaginationError: the service returned the same cursor twice.
            InfraiError: a call failed.
        """
        limit = check_max_items(max_items)
        found: Items[T] = Items()
        with reporting(progress, self._capability) as report:
            while self._gather(found, limit, report):
                await self._load()
        return found

    def _gather(self, found: builtins.list[T], limit: int | None, report: Report) -> bool:
        """Add the items of the current page, report progress, and return whether another page is needed."""
        found.extend(islice(self._items, None if limit is None else limit - len(found)))
        wanted = len(found) != limit and not self._fetched_all
        if found or not wanted:
            report(len(found), None if wanted else len(found))
        return wanted

    async def to_records(
        self, *, max_items: int | None = None, progress: Progress = False, secrets: bool = False
    ) -> builtins.list[dict[str, object]]:
        """Read the remaining items into plain dicts, for example for ``pandas.DataFrame(...)``.

        Times are aware ``datetime`` objects, and money is a number.

        Args:
            max_items: as for ``collect``.
            progress: as for ``collect``.
            secrets: whether to show secrets, such as the passwords of connection URIs, which are masked otherwise.

        Returns:
            A list with one dict for each item, with unknown fields (``extra``) at the same level; without ``metadata``,
            and without optional fields that are ``None``.

        Raises:
            InfraiError: as for ``collect``.
        """
        return records_of(await self.collect(max_items=max_items, progress=progress), secrets=secrets)


async def gather_items(source: AsyncIterable[Item], max_items: int | None) -> Items[Item]:
    """Read the items of a fan-out or an inventory into a list, which notebooks show as a table."""
    limit = check_max_items(max_items)
    found: Items[Item] = Items()
    if limit == 0:
        return found
    async for item in source:
        found.append(item)
        if len(found) == limit:
            break
    return found


def named_pair(pair: tuple[object, object]) -> dict[str, object]:
    """Return a pair of a fan-out as a dict, for a data frame."""
    parent, child = pair
    return {"parent": parent, "child": child}


def records_of(items: Iterable[object], *, secrets: bool) -> builtins.list[dict[str, object]]:
    """Return a dict for each item, for a data frame."""
    from infrai_async.models.shown import record_of  # imported here, because few programs make data frames

    return [record_of(item, secrets=secrets) for item in items]


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


explain_asynchronous(Cursor, "a cursor of AsyncInfrai", "await cursor.collect()")
explain_asynchronous(Pages, "pages() of a cursor of AsyncInfrai", "[page async for page in cursor.pages()]")


def _make_prefetcher(fetch: Fetch[T], pages: int) -> Prefetcher[T]:
    from infrai_async._listing.prefetch import Prefetcher  # imported only when used, because few listings need it

    return Prefetcher(fetch, pages)


class _Seen:
    """The cursors whose pages have been fetched."""

    def __init__(self, capability: str) -> None:
        self._capability = capability
        self._hashes: set[int] = set()  # hashes instead of cursors, because a listing may have millions of pages

    def check(self, cursor: str | None) -> None:
        """Raise if the page of this cursor has been fetched before."""
        if hash(cursor) in self._hashes:
            raise PaginationError(
                f"the service returned the same cursor twice within {len(self._hashes)} pages, so the listing would "
                "never end: report this to the service's support",
                capability=self._capability,
            )

    def add(self, cursor: str | None) -> None:
        """Record that the page of this cursor has been fetched."""
        self._hashes.add(hash(cursor))


def _once(fetch: Fetch[T], seen: _Seen) -> Fetch[T]:
    """Wrap ``fetch`` so that it raises instead of fetching a page twice."""

    async def fetch_once(cursor: str | None) -> Page[T]:
        seen.check(cursor)
        page = await fetch(cursor)
        seen.add(cursor)
        return page

    return fetch_once


def check_max_items(max_items: object) -> int | None:
    """Return ``max_items`` after checking it.

    Raises:
        InvalidArgument: ``max_items`` is not a whole number, 0 or more.
    """
    return None if max_items is None else check_count("max_items", max_items)


def check_count(name: str, number: object, *, least: int = 0, most: int = sys.maxsize) -> int:
    """Return ``number`` after checking it.

    Raises:
        InvalidArgument: ``number`` is not a whole number from ``least`` to ``most``.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        limit = "of at most 64 bits" if most == sys.maxsize else f"{most} at most"
        raise InvalidArgument(f"{name} must be a whole number, {least} or more, {limit}")
    return number
