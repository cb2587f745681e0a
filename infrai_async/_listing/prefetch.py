"""Prefetching: pages of a listing are fetched before they are requested."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from infrai_async.models import Model, Page

T = TypeVar("T", bound=Model)
Fetch: TypeAlias = Callable[[str | None], Awaitable[Page[T]]]


@attrs.frozen
class Reached(Generic[T]):
    """A fetched page, and how many items are wanted after it (``None``: all)."""

    page: Page[T]
    left: int | None

    @property
    def is_last(self) -> bool:
        """Whether no further page is to be fetched."""
        return self.page.next_cursor is None or self.left == 0


class Prefetcher(Generic[T]):
    """Fetches pages in the background while the current page is read.

    Each page is fetched as soon as the page before it has revealed its cursor. The tasks hold no reference to this
    object, so that dropping it, together with its cursor, cancels them.
    """

    def __init__(self, fetch: Fetch[T], pages: int) -> None:
        self._fetch = fetch
        self._pages = pages
        self._tasks: deque[asyncio.Task[Reached[T]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finalizer: weakref.finalize[..., Prefetcher[T]] | None = None

    async def take(self, cursor: str | None, left: int | None) -> Page[T]:
        """Return the page at ``cursor`` and start fetching the next ones, as far as ``left`` items are wanted.

        After an error or a cancellation the unfinished tasks are cancelled; calling it again fetches their pages anew.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # only a closed blocking client gets here; the call raises its refusal
            return await self._fetch(cursor)
        if loop is not self._loop:
            self._move(loop)
        tasks = self._tasks
        if not tasks:
            self._begin(loop, _reach(self._fetch, cursor, left))
        while len(tasks) <= self._pages and not _ends(tasks[-1]):
            self._begin(loop, _reach_next(self._fetch, tasks[-1]))
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

    def _begin(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Reached[T]]) -> None:
        task = loop.create_task(work)
        task.add_done_callback(_retrieve_exception)
        self._tasks.append(task)

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        """Continue in another loop, keeping the pages that have arrived."""
        if self._loop is not None and self._finalizer is not None:
            self._finalizer.detach()
            _abandon(self._loop, self._unfinished())
        self._loop = loop
        self._finalizer = weakref.finalize(self, _abandon, loop, self._tasks)
        self._finalizer.atexit = False

    def _unfinished(self) -> list[asyncio.Task[Reached[T]]]:
        """Remove and return the tasks without a page; those with one stay, because no cursor is fetched twice."""
        found = []
        while self._tasks and not _succeeded(self._tasks[-1]):
            found.append(self._tasks.pop())
        return found


async def _reach(fetch: Fetch[T], cursor: str | None, left: int | None) -> Reached[T]:
    page = await fetch(cursor)
    return Reached(page, None if left is None else max(0, left - len(page.items)))


async def _reach_next(fetch: Fetch[T], before: asyncio.Task[Reached[T]]) -> Reached[T]:
    reached = await before
    return reached if reached.is_last else await _reach(fetch, reached.page.next_cursor, reached.left)


def _succeeded(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _ends(task: asyncio.Task[Reached[T]]) -> bool:
    return task.done() and (not _succeeded(task) or task.result().is_last)


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Retrieve the exception, so that asyncio logs no warning if the page is never requested."""
    if not task.cancelled():
        task.exception()


def _abandon(loop: asyncio.AbstractEventLoop, tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks of ``loop`` from any thread, as the garbage collector may run in any."""
    with contextlib.suppress(RuntimeError):  # the loop is closed
        for task in tuple(tasks):
            if not task.done():
                loop.call_soon_threadsafe(task.cancel)
