"""Progress reports, shown as a bar or passed to a function of the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from infrai_async.errors import ConfigurationError, InvalidArgument

Report: TypeAlias = Callable[[int, int | None], object]
Progress: TypeAlias = bool | Report


def check_progress(progress: Progress) -> Progress:
    """Return ``progress`` unchanged.

    Raises:
        InvalidArgument: ``progress`` is neither a boolean nor a function.
    """
    if not isinstance(progress, bool) and not callable(progress):
        raise InvalidArgument("progress must be True for a bar, or a function that takes (done, total)")
    return progress


@contextmanager
def reporting(progress: Progress, what: str) -> Iterator[Report]:
    """Yield a function that reports progress, to be called with ``(done, total)``; ``total`` may be ``None``.

    Args:
        progress: ``True`` for a tqdm bar, which suits the notebook or the terminal, or a function called with
            ``(done, total)``.
        what: title of the bar.

    Raises:
        ConfigurationError: ``progress`` is ``True``, but tqdm is not installed.
        InvalidArgument: ``progress`` is neither a boolean nor a function.
    """
    given = check_progress(progress)
    if given is False:
        yield _unseen
    elif given is True:
        yield from _bar(what)
    else:
        yield given


class ProgressReporter:
    """A progress report that is opened and closed by method calls; the arguments are those of ``reporting``.

    Raises:
        InvalidArgument: ``progress`` is neither a boolean nor a function.
    """

    def __init__(self, progress: Progress, what: str) -> None:
        self._context = reporting(check_progress(progress), what)
        self._report: Report | None = None
        self._closed = False

    def open(self) -> None:
        """Start reporting. Opening is idempotent, and has no effect after ``close``.

        Raises:
            ConfigurationError: ``progress`` is ``True``, but tqdm is not installed.
        """
        if self._report is None and not self._closed:
            self._report = self._context.__enter__()

    def report(self, done: int, total: int | None) -> None:
        """Report the progress, if open."""
        if self._report is not None:
            self._report(done, total)

    def close(self) -> None:
        """Stop reporting. Closing is idempotent."""
        self._closed = True
        if self._report is not None:
            self._report = None
            self._context.__exit__(None, None, None)


def _unseen(done: int, total: int | None) -> None:
    """Discard the report."""


def _bar(what: str) -> Iterator[Report]:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ConfigurationError(
            "progress=True needs tqdm: pip install 'infrai-async[progress]', or pass a function of (done, total)"
        ) from None
    with tqdm(desc=what, unit="") as bar:

        def report(done: int, total: int | None) -> None:
            if total != bar.total and not bar.disable:
                begun = bar.start_t
                bar.reset(total)  # only ``reset`` gives the notebook's bar the width of a bar with a total
                bar.start_t = begun
            bar.update(done - bar.n)

        yield report
