"""The benchmarks still measure: every contender gets what it is meant to. What that costs is no test's business."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import attrs
import pytest

from benchmarks import answers, blocking, calls, contenders, instructions, memory, profile, service
from benchmarks.report import Result, compared, document, page, table
from benchmarks.server import make_certificate, running

if TYPE_CHECKING:
    from benchmarks.server import Server

Asked: TypeAlias = tuple[str, Callable[[], list[str]]]  # where, and what tells which addresses were asked for

ROOT = Path(__file__).parents[2]
INSTALLED = {calls._WHO[name].key for name in calls.present(*calls._WHO)}  # the tests do without some


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where ``python -m benchmarks.contenders`` is found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path, make_certificate(tmp_path), nginx=False) as server:
        yield server


@pytest.mark.parametrize(
    "name",
    ["get, 16 in flight", "get, the same id, 16 in flight", "page of 100, TLS", "blocking get, 1 thread, TLS"],
)
def test_every_contender_does_the_work(name: str, server: Server, tmp_path: Path) -> None:
    [case] = [attrs.evolve(case, calls=32) for case in calls.cases() if case.name == name]
    results = calls.measure(case, server, tmp_path / "authority.pem", rounds=1, turns=1)
    measured = {result.contender for result in results if result.case == name}
    assert measured == set(calls.present(*case.contenders))
    assert all(result.cpu[0] > 0 for result in results)


@pytest.fixture
def asked() -> Iterator[Asked]:
    with service.running("outage", seconds=0, retry_after=0) as it:
        yield it.url, lambda: [target for _, _, target in it.figures()["log"]]


@pytest.mark.anyio
@pytest.mark.parametrize(("work", "different"), [("get", 5), ("same", 1)])
@pytest.mark.parametrize("name", sorted(INSTALLED.intersection(contenders.CONTENDERS)))
async def test_each_call_asks_for_another_id(name: str, work: str, different: int, asked: Asked) -> None:
    url, addresses = asked
    call, close = await contenders.CONTENDERS[name](url, work, 1)
    for _ in range(5):
        await call()
    await close()
    assert len(addresses()) == 5
    assert len(set(addresses())) == different


@pytest.mark.parametrize("name", sorted(INSTALLED.intersection(blocking.CONTENDERS)))
def test_no_two_threads_ask_for_the_same_id(name: str, asked: Asked) -> None:
    url, addresses = asked
    new, close = blocking.CONTENDERS[name](url, "get")
    for call in (new(), new()):
        call()
        call()
    close()
    assert len(set(addresses())) == 4


def test_no_cache_holds_as_many_addresses_as_there_are_ids() -> None:
    assert len(set(islice(answers.ids(), 10_000))) == 10_000


def test_instructions_are_added_up_by_function() -> None:
    counted = "events: Ir\nfl=a.c\nfn=parse\n12 100\n13 5\nfl=b.h\nfn=free\n0 7\nfl=b.h\nfn=parse\n9 1\nsummary: 113\n"
    assert instructions.by_function(counted) == {"parse": 106, "free": 7}


def test_without_valgrind_nothing_is_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["profile", "--instructions"])
    with pytest.raises(SystemExit) as ended:
        profile.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "Counting instructions needs valgrind, which is not on the PATH.\n"


@pytest.mark.skipif(not memory.MEASURABLE, reason="needs Linux")
@pytest.mark.parametrize("title", memory.CASES)
def test_every_contender_waits_and_keeps(title: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    case = attrs.evolve(memory.CASES[title], calls=20)
    monkeypatch.setitem(memory.CASES, title, case)
    results = memory.measure(title, server, rounds=1)
    assert [len(result.figures) for result in results] == [1] * len(calls.present(*case.contenders))


def test_results_are_compared_with_each_base_round_by_round() -> None:
    results = [
        Result("a case", name, "us", cpu=cpu, wall=cpu)
        for name, cpu in (("theirs", [100.0, 110.0]), ("slow", [1000.0, 990.0]), ("ours", [50.0, 66.0]))
    ]
    first, slow, ours, other, ours_again = compared(
        results, {"theirs": {"ours": 0.6}, "absent": {"ours": 0.1}, "slow": {"ours": 0.05}}
    )
    assert (first.ratios, first.goal, slow.ratios) == ([], None, [10.0, 9.0])
    assert (ours.ratios, ours.goal, ours.reached) == ([0.5, 0.6], 0.6, True)
    assert (other.case, other.contender) == ("a case, to slow", "slow")
    assert (ours_again.case, ours_again.reached) == ("a case, to slow", False)
    shown = [first, slow, ours, other, ours_again]
    assert table(shown) in page(shown, document(shown, {"server": "none", "rounds": 2, "turns": 1}))
