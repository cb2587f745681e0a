"""Every project with what it has; killed at any point, it goes on where it was."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer, refuse

from infrai_async import (
    AsyncInfrai,
    BadRequestError,
    ConfigurationError,
    InvalidArgument,
    NotFoundError,
    Project,
    ProjectInventory,
)
from infrai_async._listing.checkpoint import Checkpoint

pytestmark = pytest.mark.anyio


def item(kind: str, of: str | None, number: int) -> dict[str, object]:
    match kind:
        case "project":
            return {**SMALL, "id": f"p{number}"}
        case "branch":
            uri = "postgresql://u:secret@h/d"
            return {"id": f"{of}-b{number}", "branch_name": "b", "project_id": of, "connection_uri": uri}
    return {"id": f"{of}-s{number}", "project_id": of, "created_at": "2026-01-01T00:00:00Z"}


def account(projects: int, *, size: int = 10) -> Callable[[Seen], Reply]:
    """Project ``n`` has ``n % 13`` branches and ``n % 3`` snapshots."""

    def reply(seen: Seen) -> Reply:
        asked, kind = seen.query, seen.path.split("/")[3]
        of = asked.get("project_id")
        number = int((of or "p0")[1:])
        total = {"project": projects, "branch": number % 13, "snapshot": number % 3}[kind]
        start = int(asked.get("cursor", "0"))
        stop = min(start + size, total)
        items = [item(kind, of, n) for n in range(start, stop)]
        return answer({"items": items, "next_cursor": str(stop) if stop < total else None})

    return reply


def is_whole(entry: ProjectInventory) -> bool:
    number = int(entry.project.id[1:])
    return [branch.id for branch in entry.branches] == [f"p{number}-b{n}" for n in range(number % 13)] and [
        snapshot.id for snapshot in entry.snapshots
    ] == [f"p{number}-s{n}" for n in range(number % 3)]


@pytest.mark.parametrize("concurrency", [1, 5, 64])
@pytest.mark.parametrize("projects", [0, 1, 45])
async def test_every_project_comes_once_with_all_it_has(concurrency: int, projects: int) -> None:
    seen: list[tuple[int, int | None]] = []
    with Oracle(account(projects)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            entries = client.db.inventory(
                concurrency=concurrency, progress=lambda done, total: seen.append((done, total))
            )
            got = [entry async for entry in entries]
    assert sorted(entry.project.id for entry in got) == sorted(f"p{n}" for n in range(projects))
    assert all(map(is_whole, got))
    assert oracle.most_at_once <= 2 * concurrency + 1
    assert projects == 0 or seen[-1] == (projects, projects)


async def test_an_entry_is_plain_data_and_a_table_and_masks_what_is_secret() -> None:
    with Oracle(account(15)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            entries = {entry.project.id: entry async for entry in client.db.inventory()}
    entry = entries["p14"]
    plain = json.loads(json.dumps(entry.to_dict()))
    assert plain["project"]["id"] == "p14"
    assert [branch["id"] for branch in plain["branches"]] == ["p14-b0"]
    assert [snapshot["id"] for snapshot in plain["snapshots"]] == ["p14-s0", "p14-s1"]
    assert "secret" not in repr(entry) + entry._repr_html_()
    assert "snapshots: 2" in entry._repr_html_()


async def test_a_project_that_is_deleted_meanwhile_is_left_out_and_another_refusal_is_not_taken_for_that() -> None:
    def reply(seen: Seen) -> Reply:
        if seen.query.get("project_id") == "p3" or seen.path.endswith("/get/p3"):
            return refuse(404)
        if seen.query.get("project_id") == "p5" and there:
            return refuse(404)
        return answer({**SMALL, "id": "p5"}) if seen.path.endswith("/get/p5") else account(8)(seen)

    there = False
    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            got = {entry.project.id async for entry in client.db.inventory()}
            assert got == {f"p{n}" for n in range(8)} - {"p3"}
            there = True
            with pytest.raises(NotFoundError):
                [entry async for entry in client.db.inventory()]


async def test_an_error_of_one_listing_ends_the_other_of_the_same_project() -> None:
    def reply(seen: Seen) -> Reply:
        if seen.path.split("/")[3] == "branch":
            return refuse(400)
        made = account(1)(seen)
        return attrs.evolve(made, delay=30.0) if seen.query.get("project_id") else made

    ended: list[set[asyncio.Task[object]]] = []
    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            before = asyncio.all_tasks()
            told = client.db.inventory(on_error=lambda *_: ended.append(asyncio.all_tasks() - before))
            assert [entry async for entry in told] == []
            assert client.stats.in_flight == 0
    assert [len(tasks) for tasks in ended] == [1]  # that in which it is told


async def test_on_error_is_told_and_the_project_counts_as_done(tmp_path: Path) -> None:
    told: list[str] = []

    def reply(seen: Seen) -> Reply:
        return refuse(400) if seen.query.get("project_id") == "p3" else account(25)(seen)

    async def on_error(project: Project, error: Exception) -> None:
        told.append(f"{project.id} {type(error).__name__}")

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            path = tmp_path / "checkpoint"
            got = {e.project.id async for e in client.db.inventory(checkpoint=path, on_error=on_error)}
            with pytest.raises(BadRequestError):
                [entry async for entry in client.db.inventory()]
    assert told == ["p3 BadRequestError"]
    assert got == {f"p{n}" for n in range(25)} - {"p3"}
    assert not path.exists()


@pytest.mark.parametrize("taken", [1, 7, 30, 45])
async def test_left_early_it_goes_on_and_only_the_entry_in_hand_comes_again(tmp_path: Path, taken: int) -> None:
    path = tmp_path / "checkpoint"
    with Oracle(account(45)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            first: list[str] = []
            async for entry in client.db.inventory(checkpoint=str(path), concurrency=4):
                first.append(entry.project.id)
                if len(first) == taken:
                    break
            content = path.read_text()
            path.with_name("checkpoint.new").write_text("{")  # as one leaves it that was killed while it wrote anew
            second = [entry.project.id async for entry in client.db.inventory(checkpoint=path)]
    assert len(first) == taken
    assert set(first) | set(second) == {f"p{n}" for n in range(45)}
    assert set(first) & set(second) == {first[-1]}  # nobody asked for the one after it
    assert "secret" not in content
    assert "postgres" not in content
    assert os.listdir(tmp_path) == []


async def test_closed_it_keeps_its_file_also_when_it_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    with Oracle(account(45)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            before = asyncio.all_tasks()
            async with client.db.inventory(checkpoint=path) as entries:
                await anext(entries)
            assert asyncio.all_tasks() == before
            assert [entry async for entry in entries] == []
            assert path.exists()


PROGRAM = """
import asyncio, sys
from infrai_async import AsyncInfrai
async def main():
    async with AsyncInfrai("k", base_url=sys.argv[1]) as client:
        async for entry in client.db.inventory(checkpoint=sys.argv[2], concurrency=8):
            print(entry.project.id, flush=True)
asyncio.run(main())
"""


async def test_killed_at_any_point_it_misses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    chance = random.Random(13)
    got: list[str] = []
    kills = 0

    def run(oracle: Oracle) -> bool:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, oracle.url, str(path)], stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            for _ in range(chance.randrange(5, 60)):
                line = process.stdout.readline()
                if not line:
                    break
                got.append(line.strip())
            else:
                process.send_signal(signal.SIGKILL)
            got.extend(process.stdout.read().split())
        return process.returncode == -signal.SIGKILL

    with Oracle(account(150)) as oracle:
        while await asyncio.to_thread(run, oracle):
            kills += 1
    assert kills >= 2
    assert set(got) == {f"p{n}" for n in range(150)}
    assert len(got) < 300
    assert not path.exists()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_line_that_was_torn_is_forgotten_and_an_empty_file_is_a_beginning(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.touch()
    checkpoint = Checkpoint(path)
    assert checkpoint.open() is None
    checkpoint.begin(["a", "b", "c"], "2")
    checkpoint.done("a")
    whole = path.read_bytes()
    for torn in (b'{"done": "b', b'{"done": "b"}', b"{"):
        path.write_bytes(whole + torn)
        again = Checkpoint(path)
        assert again.open() is None
        assert again.begin(["a", "b", "c"], "2") == {"b", "c"}
        assert path.read_bytes() == whole  # so that the next line is a line of its own


PAGES: dict[str | None, tuple[list[str], str | None]] = {
    None: (["a", "b", "c"], "2"),
    "2": (["d"], "3"),
    "3": ([], "4"),
    "4": (["e", "f", "g", "h"], None),
}


def begun_from(checkpoint: Checkpoint, cursor: str | None) -> Iterator[set[str]]:
    """Begin the pages from a cursor on; give what of each is still to do."""
    while True:
        ids, following = PAGES[cursor]
        yield set(checkpoint.begin(ids, following))
        if following is None:
            return
        cursor = following


@pytest.mark.parametrize("stale", [0, 3, 1_000])
@pytest.mark.parametrize("seed", range(5))
async def test_whatever_the_file_was_when_it_was_killed_nothing_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stale: int, seed: int
) -> None:
    monkeypatch.setattr("infrai_async._listing.checkpoint._STALE", stale)
    chance = random.Random(seed)
    path, other = tmp_path / "checkpoint", tmp_path / "killed"
    checkpoint = Checkpoint(path)
    everything = {id for ids, _ in PAGES.values() for id in ids}
    over: set[str] = set()
    states = 0

    def check_kills() -> None:
        nonlocal before, states
        after = path.read_bytes()
        first = len(before) if after.startswith(before) else len(after)  # else it was written anew, in one step
        for length in range(first, len(after) + 1):
            other.write_bytes(after[:length])
            other.with_name("killed.new").write_bytes(after[: length // 2])  # what was not yet put in its place
            again = Checkpoint(other)
            left = set().union(*begun_from(again, again.open()))
            assert over | left == everything
            assert length < len(after) or not over & left
            states += 1
        before = after

    pages = begun_from(checkpoint, checkpoint.open())
    before = path.read_bytes()
    to_do: list[str] = []
    while len(over) < len(everything):
        if not to_do or chance.random() < 0.3:
            to_do.extend(sorted(next(pages, set())))
            check_kills()
        if to_do:
            id = to_do.pop(chance.randrange(len(to_do)))
            over.add(id)
            checkpoint.done(id)
            check_kills()
    assert states > len(everything)


async def test_a_line_that_did_not_fit_on_the_disk_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    checkpoint = Checkpoint(path)
    checkpoint.open()
    checkpoint.begin(["a", "b", "c"], "2")

    def full(self: Path, mode: str) -> io.RawIOBase:
        with open(self, mode) as file:
            file.write(b'{"don')
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(ConfigurationError, match="cannot be read or written: No space left"):
            checkpoint.done("a")
    checkpoint.done("b")
    checkpoint.done("b")
    again = Checkpoint(path)
    assert again.open() is None
    assert again.begin(["a", "b", "c"], "2") == {"c"}


async def test_pages_that_are_done_are_left_behind_in_order(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    checkpoint = Checkpoint(path)
    checkpoint.open()
    assert checkpoint.begin(["a", "b"], "2") == {"a", "b"}
    assert checkpoint.begin(["c", "d"], "3") == {"c", "d"}
    for id in "cdb":
        checkpoint.done(id)
    again = Checkpoint(path)
    assert again.open() is None
    assert again.begin(["a", "b"], "2") == {"a"}
    assert again.begin(["c", "d"], "3") == set()
    again.done("a")
    assert again.begin(["a", "e"], None) == {"a", "e"}  # what shifts from page to page comes again, rather than not
    assert Checkpoint(path).open() == "3"


async def test_the_file_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    checkpoint = Checkpoint(path)
    checkpoint.open()
    largest = 0
    for page in range(100):
        ids = [f"{page}-{n}" for n in range(100)]
        checkpoint.begin(ids, str(page + 1))
        for id in ids:
            checkpoint.done(id)
        largest = max(largest, path.stat().st_size)
    assert largest < 50_000
    assert Checkpoint(path).open() == "100"
    assert len(lines(path)) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"not ours\n",
        b'{"infrai_async": "inventory", "version": 2}\n',
        b"[]\n",
        b"\xff\xfe\n",
        b"no line break",
        b'{"infrai_async": "inventory", "version": 1}\n{"other": 1}\n',
        b'{"infrai_async": "inventory", "version": 1}\n{"done": 1}\n',
        b'{"infrai_async": "inventory", "version": 1}\n{torn\n{"page": null}\n',
    ],
)
async def test_another_file_is_refused_before_anything_is_sent_and_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with Oracle(account(5)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            with pytest.raises(ConfigurationError, match=r"checkpoint: .*notes\.txt is not a checkpoint"):
                await anext(client.db.inventory(checkpoint=path))
    assert oracle.seen == []
    assert path.read_bytes() == content


async def test_a_file_that_cannot_be_written_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    with Oracle(account(5)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            for path in (tmp_path, tmp_path / "missing" / "file"):
                with pytest.raises(ConfigurationError, match=r"checkpoint: .* cannot be read or written"):
                    await anext(client.db.inventory(checkpoint=path))
    assert oracle.seen == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("checkpoint", path) for path in (5, b"x", "", ".", "/", "nul\0", "half \ud800")],
        ("concurrency", 0),
        ("on_error", 1),
        ("progress", 1),
    ],
)
async def test_wrong_arguments_are_refused(name: str, value: object) -> None:
    client = AsyncInfrai("k", base_url="http://127.0.0.1:9")
    with pytest.raises(InvalidArgument, match=name):
        client.db.inventory(**{name: value})  # type: ignore[arg-type]
