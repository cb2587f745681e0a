"""The demo: all of it is done for real, and its figures are counted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infrai_async import Branch
from infrai_async.cli._demo import Mismatch, _check_listed

from .conftest import STRICT, Terminal, next_complaint

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

API_KEY = re.compile(r"ifr_[0-9a-f]{40,}")
PASSWORD = re.compile(r"://[^:/\s]+:(?!\*\*\*@)[^/\s]*@")


class Records:
    """What a demo wrote on a pipe: a record for each step, one for each region, the summary."""

    def __init__(self, stdout: str) -> None:
        *rest, self.summary = [json.loads(line) for line in stdout.splitlines()]
        self.steps: dict[str, Any] = {record["step"]: record for record in rest if "step" in record}
        self.regions: list[dict[str, Any]] = [record for record in rest if "region" in record]


def test_on_a_pipe_it_ends_with_figures_that_agree(infrai: Run, temporary: Path) -> None:
    done = infrai("demo", "--projects", "3", "--branches", "2")
    assert done.returncode == 0, done.stderr
    written = Records(done.stdout)
    check_figures(written, projects=3, branches=6)
    assert written.summary["pages"] >= 3 + 3 * 2  # pages of one
    assert [stage.partition(":")[0] for stage in done.stderr.splitlines() if " of " in stage and " in " in stage] == [
        "creating projects",
        "creating branches",
        "listing branches",
    ]
    assert "\x1b" not in done.stderr
    assert "Warning" not in done.stderr
    check_silence(done.stdout + done.stderr)
    assert list(temporary.iterdir()) == []


def test_fewer_and_one_at_a_time_are_other_figures(infrai: Run, temporary: Path) -> None:
    done = infrai("demo", "--projects", "1", "--branches", "1", "--concurrency", "1")
    assert done.returncode == 0, done.stderr
    check_figures(Records(done.stdout), projects=1, branches=1)


def check_figures(written: Records, *, projects: int, branches: int) -> None:
    steps, summary = written.steps, written.summary
    assert summary["ok"] is True
    assert summary["projects"] == summary["listed_projects"] == steps["lists"]["projects"] == projects
    assert summary["branches"] == summary["listed_branches"] == steps["lists"]["branches"] == branches
    about_flags, two_balances, bucket_and_urls, about_cdn = 1 + 2 * steps["flags"]["users"], 2, 3, 2
    calls = projects + branches + summary["pages"] + about_flags + two_balances + bucket_and_urls + about_cdn
    assert summary["calls"] == calls
    assert 0 < summary["seconds"] < 60
    assert 0 < summary["cleanup_seconds"] < 60
    assert "interrupted" not in summary
    for name in ("projects", "branches"):
        assert sum(record[name] for record in written.regions) == summary[name]
    cost = summary["cost_usd"]
    assert cost > 0.001 * (projects + branches)
    assert cost == pytest.approx(sum(record["cost_usd"] for record in written.regions))
    assert cost == pytest.approx(steps["wallet"]["before"] - steps["wallet"]["after"])
    assert steps["storage"]["bytes"] > 0
    assert (steps["cdn"]["served"], steps["cdn"]["fetched"], steps["cdn"]["hits"]) == (10, 1, 0.9)
    assert (steps["sql"]["row"], steps["sql"]["in_source"]) == ("/checkout", False)
    assert 0 < steps["flags"]["on"] < steps["flags"]["users"]


def check_silence(text: str) -> None:
    """No key, no password, no signature."""
    assert "***@" in text
    assert not API_KEY.search(text)
    assert not PASSWORD.search(text)
    assert "X-Amz-" not in text


def test_on_a_terminal_there_are_bars_and_a_table(
    terminal: Callable[..., Terminal], infrai: Run, temporary: Path
) -> None:
    shown = terminal(*STRICT, "-m", "infrai_async.cli", "demo", "--projects", "2", "--branches", "1")
    assert shown.wait() == 0, shown.shown
    for stage in ("creating projects", "creating branches", "listing branches"):
        assert re.search(rf"{stage} [^\n]*━[^\n]*2/2", shown.shown), stage
    for row in (
        "region .* projects .* branches .* seconds .* cost_usd",
        "us-east-1 .* 1 .* 1 .* 0.002",
        "all .* 2 .* 2 ",
    ):
        assert re.search(row, shown.shown), row
    assert '"step"' not in shown.shown
    assert shown.shown.index("us-east-1") < shown.shown.index("clearing up") < shown.shown.index("It all worked: ")
    check_silence(shown.shown)


def test_ctrl_c_on_a_terminal_clears_up(terminal: Callable[..., Terminal], temporary: Path) -> None:
    shown = terminal(*STRICT, "-m", "infrai_async.cli", "demo", "--projects", "2", "--branches", "99")
    shown.wait_for("creating branches")
    shown.press_ctrl_c()
    shown.wait_for("^C")
    shown.press_ctrl_c()
    assert shown.wait() == 1
    assert "interrupted; clearing up" in shown.shown
    assert "cost_usd" not in shown.shown
    assert "It did not all work" not in shown.shown
    assert "Traceback" not in shown.shown
    assert list(temporary.iterdir()) == []


def test_sigterm_clears_up_and_is_no_success(start: Start, temporary: Path) -> None:
    process = start("demo")
    assert "a gateway" in next_complaint(process)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 1
    assert (Records(stdout).summary["ok"], Records(stdout).summary["interrupted"]) == (False, True)
    assert "infrai-async: interrupted; clearing up\n" in stderr
    assert "Traceback" not in stderr
    assert list(temporary.iterdir()) == []


def test_what_cannot_be_cleared_up_is_not_ok(start: Start, temporary: Path) -> None:
    process = start("demo", "--projects", "1", "--branches", "1")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("creating projects"):
            break
    (directory,) = temporary.glob("infrai-gateway-*")
    in_the_way = directory / "mount"
    in_the_way.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", str(in_the_way)])
    if mounted.returncode:
        pytest.skip("nothing may be mounted here, and what else cannot be deleted by its owner?")
    try:
        stdout, stderr = process.communicate(timeout=100)
    finally:
        subprocess.run(["umount", str(in_the_way)], check=True)
    assert process.returncode == 1
    summary = Records(stdout).summary
    assert (summary["ok"], summary["projects"], summary["branches"]) == (False, 1, 1)
    assert in_the_way.name in stderr


def test_without_a_postgres_it_is_not_ok_and_says_what_mends_it(infrai: Run, temporary: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = infrai("demo", "--postgres-bin", str(empty))
    assert done.returncode == 1
    written = Records(done.stdout)
    assert {name: written.summary[name] for name in ("ok", "projects", "branches", "listed_branches", "cost_usd")} == {
        "ok": False,
        "projects": 0,
        "branches": 0,
        "listed_branches": 0,
        "cost_usd": 0,
    }
    assert written.summary["calls"] > 0
    (complaint,) = [line for line in done.stderr.splitlines() if line.startswith("infrai-async: ")]
    assert "VENDOR_UNAVAILABLE" in complaint
    assert "pip install 'infrai-async[local]'" in complaint
    assert list(temporary.iterdir()) == []


def test_the_password_of_an_unreachable_server_stays_off_the_screen(infrai: Run, temporary: Path) -> None:
    done = infrai("demo", "--postgres-dsn", "postgresql://me:hush-hush@127.0.0.1:1/postgres")
    assert done.returncode == 1
    assert "--postgres-dsn" in done.stderr
    assert "hush-hush" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("listed", "complaint"), [("a", "lacks 1"), ("abb", "has 1 too many"), ("abc", "has 1 too many")]
)
def test_a_list_that_is_not_what_was_created_is_a_failure(listed: str, complaint: str) -> None:
    with pytest.raises(Mismatch, match=complaint):
        _check_listed("branches", list(branches(listed)), list(branches("ab")))
    _check_listed("branches", list(branches("ba")), list(branches("ab")))


def branches(ids: str) -> Iterator[Branch]:
    for id in ids:
        yield Branch(id=id, branch_name=id, project_id="p", connection_uri="postgresql://")
