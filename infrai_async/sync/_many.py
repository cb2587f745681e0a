"""The blocking forms of fan-out and inventory; each entry into the event loop returns everything that is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar

from infrai_async._display.progress import Progress, ProgressReporter
from infrai_async._listing import fan_out as _fan_out
from infrai_async._listing import inventory as _inventory
from infrai_async._listing.cursor import Items, check_max_items, named_pair, records_of
from infrai_async._listing.fan_out import OnError
from infrai_async._misuse import explain_blocking, explain_with
from infrai_async.models import ProjectInventory
from infrai_async.sync._facade import Cursor, Facade
from infrai_async.sync._runner import Runner

P = TypeVar("P")
C = TypeVar("C")
_AsyncMany: TypeAlias = "_fan_out.FanOut[Any, Any] | _inventory.Inventory"
M = TypeVar("M", bound=_AsyncMany)


class _Many(Facade[M], Generic[M]):
    """The common base of fan-out and inventory: it is read in batches, and may be left early."""

    def __init__(self, async_object: M, runner: Runner, reporter: ProgressReporter) -> None:
        super().__init__(async_object, runner)
        self._reporter = reporter

    def __repr__(self) -> str:
        return repr(self._async)

    def _load(self) -> bool:
        """Make the asynchronous object fetch its next batch; return false at the end."""
        __tracebackhide__ = True
        more = False
        try:
            self._reporter.open()
            more = self._runner.run(self._async._load)
            self._reporter.report(*self._async._progress)
        finally:
            if not more:
                self._reporter.close()
        return more

    def close(self) -> None:
        """Cancel all running tasks, and wait until they have ended. Closing is idempotent."""
        __tracebackhide__ = True
        self._reporter.close()
        self._runner.run(self._async.aclose, calls_service=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FanOut(_Many[_fan_out.FanOut[P, C]], Generic[P, C]):
    """An iterator of pairs of parent and child. It is read once, by one thread at a time.

    If a fan-out is left early and dropped, its tasks are cancelled. ``with`` and ``close`` also wait until they have
    ended. After an exception, or Ctrl-C while the reader waits, a fan-out cannot be read further.
    """

    def __iter__(self) -> Iterator[tuple[P, C]]:
        return chain.from_iterable(self._batches())

    def __next__(self) -> tuple[P, C]:
        __tracebackhide__ = True
        for pair in self:
            return pair
        raise StopIteration

    def collect(self, *, max_items: int | None = None) -> list[tuple[P, C]]:
        """Read the remaining pairs into a list.

        Args:
            max_items: the maximum number of pairs to read. The fan-out can be read further afterwards.

        Returns:
            The pairs as a list, which notebooks show as a table.

        Raises:
            InvalidArgument: ``max_items`` is not a whole number, 0 or more.
            InfraiError: a call failed, and there is no ``on_error``.
        """
        __tracebackhide__ = True
        return Items(islice(self, check_max_items(max_items)))

    def to_records(self, *, max_items: int | None = None, secrets: bool = False) -> list[dict[str, object]]:
        """Read the rest into plain dicts, each with a ``parent`` and a ``child``.

        Times are aware ``datetime`` objects, and money is a number. ``pandas.json_normalize(...)`` makes flat columns.

        Args:
            max_items: as for ``collect``.
            secrets: whether to show secrets, such as the passwords of connection URIs, which are masked otherwise.

        Returns:
            A list of the dicts.

        Raises:
            InfraiError: as for ``collect``.
        """
        __tracebackhide__ = True
        return records_of(map(named_pair, self.collect(max_items=max_items)), secrets=secrets)

    def _batches(self) -> Iterator[Iterator[tuple[P, C]]]:
        __tracebackhide__ = True
        yield self._async._items
        while self._load():
            yield self._async._items


class Inventory(_Many[_inventory.Inventory]):
    """An iterator of ``ProjectInventory`` entries. It is read once, by one thread at a time.

    If an inventory is left early and dropped, its tasks are cancelled. ``with`` and ``close`` also wait until they
    have ended. After an exception it cannot be read further; with a checkpoint, another inventory resumes it.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ProjectInventory:
        __tracebackhide__ = True
        while (entry := self._async._next()) is None:
            if not self._load():
                raise StopIteration
        return entry

    def collect(self, *, max_items: int | None = None) -> list[ProjectInventory]:
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
        __tracebackhide__ = True
        return Items(islice(self, check_max_items(max_items)))

    def to_records(self, *, max_items: int | None = None, secrets: bool = False) -> list[dict[str, object]]:
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
        __tracebackhide__ = True
        return records_of(self.collect(max_items=max_items), secrets=secrets)


explain_with(_Many, "a fan-out or inventory of Infrai")
explain_blocking(FanOut, "a fan-out", "list(client.fan_out(...))")
explain_blocking(Inventory, "an inventory", "list(client.db.inventory())")


def fan_out(
    runner: Runner,
    parents: Iterable[P],
    children: Callable[[P], Iterable[C]],
    *,
    concurrency: int,
    on_error: OnError[P],
    progress: Progress,
) -> FanOut[P, C]:
    """Return a blocking fan-out over blocking cursors; progress is reported in the reader's thread."""
    source: Any = _async_form(parents)
    listed: Any = (lambda parent: _async_form(children(parent))) if callable(children) else children
    async_object: _fan_out.FanOut[P, C] = _fan_out.fan_out(source, listed, concurrency=concurrency, on_error=on_error)
    return FanOut(async_object, runner, ProgressReporter(progress, _fan_out.title(source)))


def inventory(async_object: _inventory.Inventory, runner: Runner, progress: Progress) -> Inventory:
    """Return the blocking form of an inventory; progress is reported in the reader's thread."""
    return Inventory(async_object, runner, ProgressReporter(progress, "db.inventory"))


def _async_form(source: object) -> object:
    return source._async if isinstance(source, Cursor | _Many) else source
