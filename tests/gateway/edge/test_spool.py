"""A body that is read by many while it comes, and what the edge keeps of bodies."""

from __future__ import annotations

import asyncio
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from infrai_async.local.edge import cache
from infrai_async.local.edge.cache import Cache, Entry
from infrai_async.local.edge.policy import answer
from infrai_async.local.edge.spool import IN_MEMORY, BodyIncomplete, Spool

pytestmark = pytest.mark.anyio
NOBODY: CIMultiDict[str] = CIMultiDict()


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=200),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 60), st.integers(0, 2)), min_size=1, max_size=4),
)
def test_all_who_are_there_from_the_start_get_every_byte_in_a_ring_too(
    data: bytes, capacity: int, readers: list[tuple[int, int, int]]
) -> None:
    async def read(body: Spool, reader: Any, most: int, pauses: int) -> bytes:
        got = b""
        with reader:
            while chunk := await reader.read(most):
                got += chunk
                for _ in range(pauses):
                    await asyncio.sleep(0)
        return got

    async def run() -> None:
        body, step = Spool(capacity, Path(tempfile.gettempdir())), min(7, capacity)
        tasks = [asyncio.create_task(read(body, body.reader(at), most, pauses)) for at, most, pauses in readers]
        for start in range(0, len(data), step):
            await asyncio.wait_for(body.append(data[start : start + step]), 25)
        body.end(complete=True)
        assert await asyncio.gather(*tasks) == [data[at:] for at, _, _ in readers]

    asyncio.run(run())


async def test_the_fastest_is_ahead_of_the_slowest_by_no_more_than_the_capacity(tmp_path: Path) -> None:
    body = Spool(10, tmp_path)
    with body.reader() as reader:
        await body.append(b"0123456789")
        more = asyncio.create_task(body.append(b"ab"))
        await asyncio.sleep(0.05)
        assert not more.done()
        assert await reader.read(1) == b"0"
        await asyncio.sleep(0.05)
        assert not more.done()
        assert await reader.read(1) == b"1"
        await asyncio.wait_for(more, 25)
        assert not body.joinable
        assert await reader.read(8) == b"23456789"
        assert await reader.read(8) == b"ab"


async def test_a_broken_body_gives_what_came_and_then_fails(tmp_path: Path) -> None:
    body = Spool(10, tmp_path)
    await body.append(b"abc")
    body.end(complete=False)
    with body.reader() as reader:
        assert await reader.read(10) == b"abc"
        with pytest.raises(BodyIncomplete):
            await reader.read(10)


async def test_a_large_body_lies_in_a_file_without_a_name_that_goes_with_it(tmp_path: Path) -> None:
    def files() -> list[str]:
        links = (os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path))
        return [link for link in links if link.startswith(str(tmp_path))]

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("open files can be listed on Linux only")
    body = Spool(2**28, tmp_path)
    await body.append(b"x" * IN_MEMORY)
    assert (body.in_memory, files()) == (True, [])
    await body.append(b"x")
    assert not body.in_memory
    assert len(files()) == 1
    assert not list(tmp_path.iterdir())
    del body
    assert files() == []


def entry(size: int, headers: Any = (), request: Any = ()) -> Entry:
    body = Spool(2**28, Path(tempfile.gettempdir()))
    body.size = size
    return Entry(answer(200, CIMultiDict(headers), CIMultiDict(request), 0.0, datetime.now(UTC)), body)


def test_what_was_not_used_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_MEMORY", 3 * (cache._HEADERS + 100))
    shelf = Cache()
    for path in "abc":
        shelf.put(("d", path), entry(100))
    shelf.find(("d", "a"), NOBODY)
    shelf.put(("d", "e"), entry(100))
    assert [path for path in "abce" if shelf.find(("d", path), NOBODY)] == ["a", "c", "e"]
    for _ in range(10):
        shelf.put(("d", "a"), entry(100))  # the same variant again takes no more
    assert [path for path in "abce" if shelf.find(("d", path), NOBODY)] == ["a", "c", "e"]


def test_files_are_few_and_variants_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_FILES", 2)
    shelf = Cache()
    for path in "abc":
        shelf.put(("d", path), entry(IN_MEMORY + 1))
    assert [path for path in "abc" if shelf.find(("d", path), NOBODY)] == ["b", "c"]
    for number in range(cache._VARIANTS + 1):
        shelf.put(("d", "v"), entry(1, {"Vary": "X"}, {"X": str(number)}))
    kept = [number for number in range(cache._VARIANTS + 1) if shelf.find(("d", "v"), CIMultiDict({"X": str(number)}))]
    assert kept == list(range(1, cache._VARIANTS + 1))


def test_what_is_dropped_weighs_nothing() -> None:
    shelf = Cache()
    for path in "abc":
        shelf.put(("d", path), entry(100))
        shelf.put(("other", path), entry(IN_MEMORY + 1))
    shelf.drop("d", lambda path, _: path != "b")
    assert [path for path in "abc" if shelf.find(("d", path), NOBODY)] == ["b"]
    for distribution in ("d", "other"):
        shelf.drop(distribution, lambda *_: True)
    assert (shelf._memory, shelf._disk, shelf._files) == (0, 0, 0)
