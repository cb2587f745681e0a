"""Prefetching: pages of a listing are fetched before they are read."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from infrai_async._event_loop import require_task
from infrai_async.errors import ConfigurationError
from infrai_async.models import Model, Page

T = TypeVar("T", bound=Model)
Fetch: TypeAlias = Callable[[str | None], Awaitable[Page[T]]]


@attrs.frozen
class FetchedPage(Generic[T]):
    """A page, and the number of items still wanted after it; ``None`` means all."""

    page: Page[T]
    left: int | None

    @property
    def is_last(self) -> bool:
        """Whether no further page is needed."""
        return self.page.next_cursor is None or self.left == 0


class Prefetcher(Generic[T]):
    """Fetches the next pages while the current one is being read, in one task for each page.

    The cursor of a page is known only when the page before it has arrived, so each task awaits the one before it.

    The tasks hold no reference to this object. It can therefore be collected together with the cursor that owns it,
    and its finalizer then cancels the tasks. The garbage collector may run in any thread, so it does that by
    ``call_soon_threadsafe``. Everything else runs in the event loop of the reader and needs no lock.
    """

    def __init__(self, fetch: Fetch[T], pages: int) -> None:
        self._fetch = fetch
        self._pages = pages
        self._tasks: deque[asyncio.Task[FetchedPage[T]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finalizer: weakref.finalize[..., Prefetcher[T]] | None = None

    async def take(self, cursor: str | None, left: int | None) -> Page[T]:
        """Return the page at ``cursor``, and start to fetch the next ones; ``left`` items are still wanted.

        An error or a cancellation also cancels the tasks of the following pages. The next call then fetches the page
        again.
        """
        try:
            loop = require_task().get_loop()
        except ConfigurationError:  # also when a closed blocking client runs this without a loop: the call is refused
            return await self._fetch(cursor)
        if loop is not self._loop:
            self._move_to(loop)
        tasks = self._tasks
        if not tasks:
            self._start(loop, _fetch_page(self._fetch, cursor, left))
        while len(tasks) <= self._pages and not _ends(tasks[-1]):
            self._start(loop, _fetch_next_page(self._fetch, tasks[-1]))
        # The first task leaves the queue only after its page has arrived: if the reader is cancelled while it waits,
        # pages that have already arrived stay, because their cursors must not be fetched a second time.
        try:
            page = (await tasks[0]).page
        except BaseException:
            # Pages that have arrived stay queued: the listing has counted their cursors as followed, and fetching one
            # again would look like a cycle. Unfinished tasks leave the queue, so that the next call starts them anew.
            for task in self._unfinished():
                task.cancel()
            raise
        # Only now: a reader cancelled during the wait must find a page that has arrived when it reads again.
        tasks.popleft()
        return page

    def _start(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, FetchedPage[T]]) -> None:
        task = loop.create_task(work)
        task.add_done_callback(_retrieve_exception)
        self._tasks.append(task)

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Continue in another event loop, with the pages that have arrived."""
        if self._loop is not None and self._finalizer is not None:
            self._finalizer.detach()
            _abandon(self._loop, self._unfinished())
        self._loop = loop
        self._finalizer = weakref.finalize(self, _abandon, loop, self._tasks)
        self._finalizer.atexit = False

    def _unfinished(self) -> list[asyncio.Task[FetchedPage[T]]]:
        """Remove and return the tasks that have no page yet; the others stay, since no cursor is fetched twice."""
        unfinished = []
        while self._tasks and not _succeeded(self._tasks[-1]):
            unfinished.append(self._tasks.pop())
        return unfinished


async def _fetch_page(fetch: Fetch[T], cursor: str | None, left: int | None) -> FetchedPage[T]:
    page = await fetch(cursor)
    return FetchedPage(page, None if left is None else max(0, left - len(page.items)))


async def _fetch_next_page(fetch: Fetch[T], before: asyncio.Task[FetchedPage[T]]) -> FetchedPage[T]:
    fetched = await before
    return fetched if fetched.is_last else await _fetch_page(fetch, fetched.page.next_cursor, fetched.left)


def _succeeded(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _ends(task: asyncio.Task[FetchedPage[T]]) -> bool:
    return task.done() and (not _succeeded(task) or task.result().is_last)


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Mark the exception as retrieved, so that asyncio logs nothing if the page is never read."""
    if not task.cancelled():
        task.exception()


def _abandon(loop: asyncio.AbstractEventLoop, tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks from any thread: that of the garbage collector, or of another event loop."""
    with contextlib.suppress(RuntimeError):  # the loop is closed
        for task in tuple(tasks):
            if not task.done():
                loop.call_soon_threadsafe(task.cancel)
