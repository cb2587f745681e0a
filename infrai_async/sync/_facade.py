"""The base of the classes of the blocking client, and its cursor."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from itertools import chain
from typing import Generic, Self, TypeVar

from infrai_async._display.progress import Progress, reporting
from infrai_async._listing import cursor
from infrai_async._listing.cursor import Items, check_max_items, records_of
from infrai_async._misuse import explain_blocking
from infrai_async.models import Model, Page
from infrai_async.sync._runner import Runner

A = TypeVar("A")
T = TypeVar("T", bound=Model)


class Facade(Generic[A]):
    """The base of blocking classes: it holds the asynchronous object, and the runner of its event loop."""

    def __init__(self, async_object: A, runner: Runner) -> None:
        self._async = async_object
        self._runner = runner


class Cursor(Facade[cursor.Cursor[T]], Generic[T]):
    """All items of a listing, fetched page by page while they are read.

    A cursor is read once, like a file: ``for``, ``next``, ``pages()``, ``page()`` and ``collect()`` all continue from
    its current position. Leaving a loop early is safe: it leaves nothing running, and ``next_cursor`` still names the
    page whose items have not all been returned. The event loop is entered once for each page, not for each item.
    """

    def __repr__(self) -> str:
        return repr(self._async)

    @property
    def next_cursor(self) -> str | None:
        """The position to resume from: ``list(cursor=...)`` continues there, also in another process.

        While the items of a page are being returned it names that page, so that no item is lost. ``None`` before the
        first page of a new listing, and after the last page.
        """
        return self._async.next_cursor

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self._batches())

    def __next__(self) -> T:
        __tracebackhide__ = True
        for item in self:
            return item
        raise StopIteration

    def _batches(self) -> Iterator[Iterator[T]]:
        """Yield the asynchronous cursor's own iterators, page by page, so that both cursors share one position."""
        __tracebackhide__ = True
        async_object = self._async
        yield async_object._items
        while not async_object._fetched_all:
            self._runner.run(async_object._load)
            yield async_object._items

    def page(self) -> Page[T]:
        """Return the next page.

        The remaining items of a page that was partly read are returned as a page of their own.

        Returns:
            The page; at the end of the listing, an empty page without a ``next_cursor``.

        Raises:
            PaginationError: the service returned the same cursor twice.
            InfraiError: the call failed.
        """
        __tracebackhide__ = True
        return self._runner.run(self._async.page)

    def pages(self) -> Iterator[Page[T]]:
        """Iterate over pages instead of items: ``for page in cursor.pages()``.

        Returns:
            An iterator of the pages, each with its ``items``, ``next_cursor`` and ``metadata``.

        Raises:
            PaginationError: the service returned the same cursor twice.
            InfraiError: a call failed.
        """
        return _Pages(self)

    def collect(self, *, max_items: int | None = None, progress: Progress = False) -> builtins.list[T]:
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
        __tracebackhide__ = True
        limit = check_max_items(max_items)
        async_object = self._async
        found: Items[T] = Items()
        with reporting(progress, async_object._capability) as report:
            while async_object._gather(found, limit, report):
                self._runner.run(async_object._load)
        return found

    def to_records(
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
        __tracebackhide__ = True
        return records_of(self.collect(max_items=max_items, progress=progress), secrets=secrets)


class _Pages(Generic[T]):
    """The pages of a cursor, as an iterator."""

    def __init__(self, cursor: Cursor[T]) -> None:
        self._cursor = cursor

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Page[T]:
        __tracebackhide__ = True
        async_object = self._cursor._async
        if async_object._fetched_all and not async_object._items_left:
            raise StopIteration
        return self._cursor.page()


explain_blocking(Cursor, "a cursor", "cursor.collect()")
explain_blocking(_Pages, "pages() of a cursor", "list(cursor.pages())")
