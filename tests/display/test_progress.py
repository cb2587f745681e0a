"""Progress: a bar of tqdm's, a function of the caller's, or nobody."""

from __future__ import annotations

import sys
from functools import partial

import pytest
from tqdm.auto import tqdm

from infrai_async import ConfigurationError, InvalidArgument
from infrai_async._display.progress import reporting


def test_a_function_is_called_as_it_stands() -> None:
    seen = []
    with reporting(lambda done, total: seen.append((done, total)), "work") as report:
        report(1, None)
        report(2, 2)
    assert seen == [(1, None), (2, 2)]


def test_false_reports_to_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    with reporting(False, "work") as report:
        report(1, 2)
    assert capfd.readouterr() == ("", "")


def test_true_draws_a_bar_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with reporting(True, "db.project.list") as report:
        report(10, None)
        report(25, 25)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.rstrip().splitlines()[-1].startswith("db.project.list: 100%")
    assert "25/25" in err


@pytest.mark.parametrize("progress", [1, 0, None, "bar", object()])
def test_anything_else_is_refused(progress: object) -> None:
    with pytest.raises(InvalidArgument, match="progress"), reporting(progress, "work"):  # type: ignore[arg-type]
        pytest.fail("it must not begin")


def test_without_tqdm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'infrai-async\[progress\]'"), reporting(True, "work"):
        pytest.fail("it must not begin")


def test_an_error_inside_passes_through_and_ends_the_bar(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), reporting(True, "work") as report:
        report(1, None)
        raise ZeroDivisionError
    assert capfd.readouterr().err.endswith("\n")


def test_a_disabled_bar_stays_silent(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tqdm.auto.tqdm", partial(tqdm, disable=True))
    with reporting(True, "work") as report:
        report(1, None)
        report(2, 2)
    assert capfd.readouterr() == ("", "")
