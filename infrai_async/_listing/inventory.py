"""The inventory: all projects with their branches and snapshots, resumable by a checkpoint file."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from operator import itemgetter
from types import TracebackType
from typing import Self

from infrai_async._display.progress import Progress
from infrai_async._event_loop import require_task
from infrai_async._listing.checkpoint import Checkpoint
from infrai_async._listing.cursor import Cursor, gather_items, records_of
from infrai_async._listing.fan_out import OnError, spread
from infrai_async._misuse import explain_async_with, explain_asynchronous
from infrai_async.models import Project, ProjectInventory


class Inventory:
    """An asynchronous iterator of ``ProjectInventory`` entries. It is read once, by one task at a time.

    If an inventory is left early and dropped, its tasks are cancelled. ``async with`` and ``aclose`` also wait until
    they have ended. After an exception it cannot be read further; with a checkpoint, another inventory resumes it.
    """

    __slots__ = ("_checkpoint", "_closed", "_current_id", "_entries", "_items")

    def __init__(
        self,
        list_projects: Callable[[str | None], Cursor[Project]],
        inspect_project: Callable[[Project], Awaitable[ProjectInventory | None]],
        *,
        concurrency: int,
        checkpoint: str | os.PathLike[str] | None,
        on_error: OnError[Project],
        progress: Progress,
    ) -> None:
        checkpoint_file = None if checkpoint is None else Checkpoint(checkpoint)
        self._checkpoint = checkpoint_file
        self._entries = spread(
            _projects(list_projects, checkpoint_file),
            lambda project: _entry(project, inspect_project, checkpoint_file),
            concurrency,
            _recording_errors(on_error, checkpoint_file)
            if checkpoint_file is not None and callable(on_error)
            else on_error,
            progress,
            what="db.inventory",
            enough=concurrency,  # few, because an entry may be large
        )
        self._items: Iterator[ProjectInventory] = iter(())
        self._current_id: str | None = None
        self._closed = False

    def __repr__(self) -> str:
        return "<Inventory>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ProjectInventory:
        while True:
            if (entry := self._next()) is not None:
                return entry
            if not await self._load():
                raise StopAsyncIteration

    def _next(self) -> ProjectInventory | None:
        """Return the next entry of the current batch, if there is one; the previous entry then counts as done."""
        if self._current_id is not None and self._checkpoint is not None:
            self._checkpoint.done(self._current_id)
        entry = next(self._items, None)
        self._current_id = None if entry is None else entry.project.id
        return entry

    @property
    def _progress(self) -> tuple[int, int | None]:
        return self._entries._progress

    async def _load(self) -> bool:
        """Wait for a batch of entries and make it the current one; return false at the end."""
        more = await self._entries._load()
        self._items = map(itemgetter(1), self._entries._items)
        if not more and not self._closed and self._checkpoint is not None:
            self._checkpoint.remove()
        return more

    async def collect(self, *, max_items: int | None = None) -> list[ProjectInventory]:
        """Read the remaining entries into a list.

        Args:
            max_items: the maximum number of entries to read. The inventory can be read further afterwards; with a
                checkpoint, the last entry read counts as done only then.

        Returns:
            The entries as a list, which notebooks show as a table.

        Raises:
            InvalidArgument: ``max_items`` is not a whole number, 0 or more.
            InfraiError: a call failed, and there is no ``on_error``.
        """
        return await gather_items(self, max_items)

    async def to_records(self, *, max_items: int | None = None, secrets: bool = False) -> list[dict[str, object]]:
        """Read the rest into plain dicts, each with a ``project``, its ``branches`` and ``snapshots``.

        Times are aware ``datetime`` objects, and money is a number. ``pandas.json_normalize(...)`` makes flat columns.

        Args:
            max_items: as for ``collect``.
            secrets: whether to show secrets, such as the passwords of connection URIs, which are masked otherwise.

        Returns:
            A list of the dicts.

        Raises:
            InfraiError: as for ``collect``.
        """
        return records_of(await self.collect(max_items=max_items), secrets=secrets)

    async def aclose(self) -> None:
        """Cancel all running tasks, and wait until they have ended. Closing is idempotent."""
        self._closed = True
        self._items = iter(())
        await self._entries.aclose()

    async def __aenter__(self) -> Self:
        require_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


explain_asynchronous(Inventory, "an inventory", "[entry async for entry in client.db.inventory()]")
explain_async_with(Inventory, "an inventory")


async def _projects(
    list_from: Callable[[str | None], Cursor[Project]], checkpoint: Checkpoint | None
) -> AsyncIterator[Project]:
    """Yield the projects that are not done yet."""
    pages = list_from(None if checkpoint is None else checkpoint.open()).pages()
    async for page in pages:
        if checkpoint is None:
            to_do = page.items
        else:
            left = checkpoint.begin([project.id for project in page], page.next_cursor)
            to_do = tuple(project for project in page if project.id in left)
        for project in to_do:
            yield project


async def _entry(
    project: Project,
    inspect_project: Callable[[Project], Awaitable[ProjectInventory | None]],
    checkpoint: Checkpoint | None,
) -> AsyncIterator[ProjectInventory]:
    entry = await inspect_project(project)
    if entry is not None:
        yield entry
    elif checkpoint is not None:
        checkpoint.done(project.id)


def _recording_errors(on_error: Callable[[Project, Exception], object], checkpoint: Checkpoint) -> OnError[Project]:
    """Wrap ``on_error`` so that a project counts as done after it has returned."""

    async def record_error(project: Project, error: Exception) -> None:
        result = on_error(project, error)
        if inspect.isawaitable(result):
            await result
        checkpoint.done(project.id)

    return record_error
