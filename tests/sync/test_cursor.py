"""Blocking lists: the items, pages and places of the asynchronous cursor, with one way into the loop for each page."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable, Iterator

import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer, refuse
from sync.children import count_thread_calls

from infrai_async import Infrai, InvalidArgument, PaginationError, ServerError


def listing(total: int, size: int = 10) -> Callable[[Seen], Reply]:
    """Serve ``total`` projects in pages of ``size``; the cursor is the number of the first item."""

    def reply(seen: Seen) -> Reply:
        start = int(seen.query.get("cursor", "0"))
        stop = min(start + size, total)
        items = [{**SMALL, "id": f"p{number}", "name": f"n{number}"} for number in range(start, stop)]
        return answer({"items": items, "next_cursor": str(stop) if stop < total else None})

    return reply


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    with Oracle(listing(25)) as oracle:
        yield oracle


@pytest.fixture
def client(oracle: Oracle) -> Iterator[Infrai]:
    with Infrai("k", base_url=oracle.url) as client:
        yield client


def names(items: object) -> list[str]:
    return [item.name for item in items]  # type: ignore[attr-defined]


ALL = [f"n{number}" for number in range(25)]


def test_a_loop_gives_every_item_in_order(client: Infrai) -> None:
    assert names(client.db.project.list()) == ALL


def test_nothing_is_sent_until_the_cursor_is_read(client: Infrai, oracle: Oracle) -> None:
    client.db.project.list()
    assert oracle.seen == []


def test_it_crosses_into_the_loop_once_a_page(client: Infrai, monkeypatch: pytest.MonkeyPatch) -> None:
    crossings = count_thread_calls(monkeypatch)
    assert len(list(client.db.project.list())) == 25
    assert len(crossings) == 3


def test_loops_pages_and_next_go_on_from_where_it_stands(client: Infrai) -> None:
    cursor = client.db.project.list()
    assert next(cursor).name == "n0"
    for item in cursor:
        if item.name == "n4":
            break
    rest = cursor.page()
    assert names(rest) == ALL[5:10]
    assert names(cursor.collect(max_items=3)) == ALL[10:13]
    assert [names(page) for page in cursor.pages()] == [ALL[13:20], ALL[20:]]
    assert list(cursor) == []
    assert next(cursor, None) is None
    assert len(cursor.page()) == 0


def test_left_early_it_says_where_to_resume(client: Infrai) -> None:
    cursor = client.db.project.list()
    for item in cursor:
        if item.name == "n12":
            break
    assert cursor.next_cursor == "10"
    assert names(client.db.project.list(cursor=cursor.next_cursor)) == ALL[10:]
    assert names(cursor) == ALL[13:]
    assert cursor.next_cursor is None


def test_left_early_it_leaves_no_task(client: Infrai) -> None:
    for _ in client.db.project.list():
        break
    loop = client._runner._loop
    assert loop is not None

    async def others() -> list[object]:
        mine = asyncio.current_task()
        return [task.get_coro() for task in asyncio.all_tasks() if task is not mine]  # type: ignore[union-attr]

    (portal,) = client._runner.run(others)
    assert "infrai_async.sync._runner" in repr(portal) or "stay" in repr(portal)


@pytest.mark.parametrize("max_items", [0, 1, 10, 11, 25, 99])
def test_max_items_bounds_the_listing_and_the_collecting(client: Infrai, oracle: Oracle, max_items: int) -> None:
    assert names(client.db.project.list(max_items=max_items)) == ALL[:max_items]
    pages = len(oracle.seen)
    assert pages == min(3, -(-max_items // 10))
    assert names(client.db.project.list().collect(max_items=max_items)) == ALL[:max_items]
    assert len(oracle.seen) == 2 * pages


def test_a_page_that_failed_is_fetched_again_by_the_next_loop() -> None:
    def reply(seen: Seen) -> Reply:
        failing = "cursor=10" in seen.target and not any("cursor=10" in other.target for other in oracle.seen[:-1])
        return refuse(500, "INTERNAL", retryable=False) if failing else listing(25)(seen)

    with Oracle(reply) as oracle, Infrai("k", base_url=oracle.url) as client:
        cursor = client.db.project.list()
        got = []
        with pytest.raises(ServerError):
            got.extend(iter(cursor))
        assert [*names(got), *names(cursor)] == ALL


def test_a_cursor_handed_out_again_is_an_error() -> None:
    with (
        Oracle(lambda _: answer({"items": [SMALL], "next_cursor": "a"})) as oracle,
        Infrai("k", base_url=oracle.url) as client,
        pytest.raises(PaginationError),
    ):
        list(client.db.project.list())


def test_records_are_plain(client: Infrai) -> None:
    (record,) = client.db.project.list().to_records(max_items=1, secrets=True)
    assert record == {**SMALL, "id": "p0", "name": "n0"}
    (masked,) = client.db.project.list().to_records(max_items=1)
    assert masked == record | {"connection_uri": "postgresql://u:***@127.0.0.1:5432/d"}


def test_wrong_arguments_are_refused_before_anything_is_sent(client: Infrai, oracle: Oracle) -> None:
    with pytest.raises(InvalidArgument, match="max_items"):
        client.db.project.list(max_items=-1)
    with pytest.raises(InvalidArgument, match="max_items"):
        client.db.project.list().collect(max_items=-1)
    with pytest.raises(InvalidArgument, match="progress"):
        client.db.project.list().collect(progress="bar")  # type: ignore[arg-type]
    assert oracle.seen == []


def test_what_is_collected_is_a_list_whose_slices_a_notebook_shows_too(client: Infrai) -> None:
    items = client.db.project.list().collect()
    assert isinstance(items, list)
    assert items == list(client.db.project.list())
    for shown in (items, items[:2], pickle.loads(pickle.dumps(items))):
        html = shown._repr_html_()  # type: ignore[attr-defined]
        assert "n1" in html
        assert "secret" not in html
    assert items[0].name == "n0"


def test_the_repr_names_the_capability(client: Infrai) -> None:
    assert repr(client.db.project.list()) == "<Cursor of db.project.list>"


def test_progress_is_reported_after_each_page_in_the_callers_thread(client: Infrai) -> None:
    seen = []
    client.db.project.list().collect(progress=lambda *at: seen.append((*at, threading.current_thread().name)))
    assert seen == [(10, None, "MainThread"), (20, None, "MainThread"), (25, 25, "MainThread")]
