"""Pages of a listing that are fetched before they are asked for."""

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
    """A page, and how many items are still wanted behind it; ``None`` is all of them."""

    page: Page[T]
    left: int | None

    @property
    def is_last(self) -> bool:
        """Whether there is nothing to fetch behind it."""
        return self.page.next_cursor is None or self.left == 0


class Prefetcher(Generic[T]):
    """Fetches the next pages while the one in hand is being read, each as soon as the one before it names its cursor.

    The tasks know nothing of this object, so that dropping it, with the cursor that owns it, ends them.
    """

    def __init__(self, fetch: Fetch[T], pages: int) -> None:
        self._fetch = fetch
        self._pages = pages
        self._tasks: deque[asyncio.Task[Reached[T]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finalizer: weakref.finalize[..., Prefetcher[T]] | None = None

    async def take(self, cursor: str | None, left: int | None) -> Page[T]:
        """Return the page that ``cursor`` names, and have the next ones fetched; ``left`` items are still wanted.

        An error, or a cancellation, ends what was under way behind it; asked again, it fetches again.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # the client is closed, and the facade takes the call's one step: its refusal
            return await self._fetch(cursor)
        if loop is not self._loop:
            self._move_to(loop)
        tasks = self._tasks
        if not tasks:
            self._start(loop, _reach(self._fetch, cursor, left))
        while len(tasks) <= self._pages and not _ends(tasks[-1]):
            self._start(loop, _reach_next(self._fetch, tasks[-1]))
        try:
            page = (await tasks[0]).page
        except BaseException:
            for task in self._unfinished():
                task.cancel()
            raise
        tasks.popleft()
        return page

    def _start(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Reached[T]]) -> None:
        task = loop.create_task(work)
        task.add_done_callback(_retrieve_exception)
        self._tasks.append(task)

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on in another loop, with the pages that have come."""
        if self._loop is not None and self._finalizer is not None:
            self._finalizer.detach()
            _abandon(self._loop, self._unfinished())
        self._loop = loop
        self._finalizer = weakref.finalize(self, _abandon, loop, self._tasks)
        self._finalizer.atexit = False

    def _unfinished(self) -> list[asyncio.Task[Reached[T]]]:
        """Take out what has brought no page; what has must stay, for its cursor is not fetched again."""
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
    """Take note of an error, so that nobody complains when its page is never asked for."""
    if not task.cancelled():
        task.exception()


def _abandon(loop: asyncio.AbstractEventLoop, tasks: Iterable[asyncio.Task[Any]]) -> None:
    """End tasks from wherever the garbage collector, or another loop, runs."""
    with contextlib.suppress(RuntimeError):  # the loop is closed
        for task in tuple(tasks):
            if not task.done():
                loop.call_soon_threadsafe(task.cancel)
