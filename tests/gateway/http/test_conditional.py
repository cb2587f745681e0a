"""Which part of a representation a request gets, by its conditions and its range."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from multidict import CIMultiDict

from infrai_async.local.http.conditional import http_date, precondition, select, to_http_date

TAG = '"abc"'
CHANGED = datetime(2024, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC)
AT, BEFORE, AFTER = (f"Mon, 06 May 2024 07:08:{second} GMT" for second in ("09", "08", "10"))


def chosen(headers: Any, method: str = "GET", size: int | None = 10, etag: str | None = TAG) -> tuple[Any, ...]:
    found = select(method, CIMultiDict(headers), etag=etag, modified=CHANGED, size=size)
    return found.status, found.start, found.length, found.headers.get("Content-Range")


@pytest.mark.parametrize(
    ("asked", "start", "length"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=2-5", 2, 4),
        ("bytes=2-", 2, 8),
        ("bytes=2-99", 2, 8),
        ("bytes=-3", 7, 3),
        ("bytes=-99", 0, 10),
        ("BYTES = 9 - 9", 9, 1),
    ],
)
def test_a_range_is_cut_to_what_there_is(asked: str, start: int, length: int) -> None:
    told = f"bytes {start}-{start + length - 1}/10"
    assert chosen({"range": asked}) == (206, start, length, told)


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_a_range_beyond_the_end_is_416_and_says_where_the_end_is(asked: str) -> None:
    assert chosen({"Range": asked}) == (416, 0, 0, "bytes */10")


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=-", "bytes=0-1,3-4", "bytes=a-b", "items=0-1", "", "bytes=\u0661-", "bytes=+1-2"]
)
def test_what_is_no_single_range_of_bytes_gets_all(asked: str) -> None:
    assert chosen({"Range": asked}) == (200, 0, 10, None)


@pytest.mark.parametrize("name", ["Range", "If-Match", "If-None-Match", "If-Range", "If-Modified-Since"])
@pytest.mark.parametrize(
    "value", [f"bytes={' ' * 1000}-{' ' * 1000}x", " " * 8000 + "x", '"' * 8000, '" ' * 4000, "(" * 8000]
)
def test_no_header_takes_long_to_read(name: str, value: str) -> None:
    begin = time.thread_time()
    chosen({"Range": "bytes=0-1", name: value})
    assert time.thread_time() - begin < 0.5


def test_nothing_has_no_range_and_a_length_to_come_none_yet() -> None:
    assert chosen({"Range": "bytes=0-"}, size=0) == (416, 0, 0, "bytes */0")
    assert chosen({}, size=0) == (200, 0, 0, None)
    assert chosen({"Range": "bytes=0-1"}, size=None) == (200, 0, None, None)
    assert chosen({"Range": "bytes=0-1"}, "HEAD") == (200, 0, 10, None)


@pytest.mark.parametrize(
    ("condition", "status"),
    [(TAG, 206), ('"other"', 200), (f"W/{TAG}", 200), (AT, 206), (BEFORE, 200), (AFTER, 200), ("nonsense", 200)],
)
def test_a_range_is_of_what_the_client_has_a_part_of(condition: str, status: int) -> None:
    assert chosen({"Range": "bytes=0-1", "If-Range": condition})[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": TAG}, 200),
        ({"If-Match": f'"x", {TAG}'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"x"'}, 412),
        ({"If-Match": f"W/{TAG}"}, 412),
        ({"If-Match": ""}, 412),
        ({"If-Unmodified-Since": AT}, 200),
        ({"If-Unmodified-Since": BEFORE}, 412),
        ({"If-Match": TAG, "If-Unmodified-Since": BEFORE}, 200),
        ({"If-None-Match": TAG}, 304),
        ({"If-None-Match": f'"x,y",W/{TAG}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"x"'}, 200),
        ({"If-Modified-Since": AT}, 304),
        ({"If-Modified-Since": AFTER}, 304),
        ({"If-Modified-Since": BEFORE}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": AFTER}, 200),
        ({"If-Match": '"x"', "If-None-Match": TAG}, 412),
        ({"If-None-Match": TAG, "Range": "bytes=0-1"}, 304),
    ],
)
def test_conditions(headers: Any, status: int) -> None:
    for method in ("GET", "HEAD"):
        assert chosen(headers, method)[0] == status


def test_a_write_with_a_condition_is_412_where_a_read_is_304() -> None:
    def put(headers: Any, etag: str | None) -> int | None:
        there = etag is not None
        found = CHANGED if there else None
        return precondition("PUT", CIMultiDict(headers), etag=etag, modified=found, exists=there)

    assert put({"If-None-Match": "*"}, TAG) == put({"If-None-Match": TAG}, TAG) == 412
    assert put({"If-Match": "*"}, None) == put({"If-Match": TAG}, None) == put({"If-Match": '"x"'}, TAG) == 412
    assert put({"If-None-Match": "*"}, None) is put({"If-Match": TAG}, TAG) is put({}, TAG) is None
    assert put({"If-Modified-Since": AFTER}, TAG) is None


def test_without_a_tag_none_matches() -> None:
    assert chosen({"If-None-Match": TAG}, etag=None)[0] == 200
    assert chosen({"If-Match": TAG}, etag=None)[0] == 412
    assert select("GET", {}, size=1).headers == {"Accept-Ranges": "bytes"}


def test_times_are_told_in_whole_seconds() -> None:
    told = select("GET", {}, etag=TAG, modified=CHANGED, size=1).headers
    assert told == {"ETag": TAG, "Last-Modified": AT, "Accept-Ranges": "bytes"}
    assert to_http_date(CHANGED) == AT
    assert http_date(AT) == http_date("Monday, 06-May-24 07:08:09 GMT") == CHANGED.replace(microsecond=0)
    assert http_date(None) is http_date("") is http_date("Mon, 99 May 2024 07:08:09 GMT") is None


@pytest.mark.parametrize(
    "text",
    [
        "Mon, 06 May 2024 07:08:09 UTC",
        "Mon, 06 May 2024 07:08:09 PST",
        "Mon, 06 May 2024 07:08:09 +0000",
        "Mon, 06 May 2024 07:08:09 gmt",
        "Mon 06 May 2024 07:08:09 GMT",
        "Mon,  06  May  2024  07:08:09  GMT",
        "Mon, 06 May 2024 07.08.09 GMT",
        "Mon, 06-May-2024 07:08:09 GMT",
        "Mon, 06 May 2024 7:08:09 GMT",
        "Mon, 06 May 24 07:08:09 GMT",
        "Mon, 6 May 2024 07:08:09 GMT",
        "Mon, 06 May 2024 24:08:09 GMT",
        "Mon, 31 Jun 2024 07:08:09 GMT",
        "06 May 2024 07:08:09 GMT",
        "1 Jan 2100 0:0",
        "2024-05-06T07:08:09Z",
        "1715000000",
        "0",
        "Mon, 06 May 2024 07:08:09 GMT ",
        "Mon, 06 May 2024 07:08:0\u0669 GMT",
    ],
)
def test_what_has_none_of_the_three_forms_is_no_date(text: str) -> None:
    assert http_date(text) is None
    assert chosen({"If-Modified-Since": text})[0] == 200
    assert chosen({"If-Unmodified-Since": text})[0] == 200


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("Mon, 06 May 2024 07:08:09 GMT", "2024-05-06T07:08:09+00:00"),
        ("Monday, 06-May-24 07:08:09 GMT", "2024-05-06T07:08:09+00:00"),
        ("Sunday, 06-Nov-94 08:49:37 GMT", "1994-11-06T08:49:37+00:00"),
        ("Mon May  6 07:08:09 2024", "2024-05-06T07:08:09+00:00"),
        ("Sat Dec 31 23:59:60 2016", "2016-12-31T23:59:59+00:00"),
    ],
)
def test_all_three_forms_of_a_date_are_read(text: str, iso: str) -> None:
    assert http_date(text) == datetime.fromisoformat(iso)
