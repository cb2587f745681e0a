"""What a shared cache may keep, for how long and for whom: the decisions by themselves."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import Any

import hishel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from infrai_async.local.edge.policy import OriginResponse, answer, initial_age, parse_directives, refreshed, tags
from infrai_async.local.services.cdn import Purge

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
DATE = "Mon, 06 May 2024 07:08:09 GMT"
SOON = "Mon, 06 May 2024 07:09:09 GMT"
DIRECTIVES = st.sampled_from(
    [
        *("public", "private", "no-store", "no-cache", "must-revalidate", "proxy-revalidate", "immutable", "x=y"),
        *(
            f"{name}={value}"
            for name in ("max-age", "s-maxage")
            for value in ("0", "60", '"60"', "-1", "", "1e3", "9" * 30)
        ),
        *("stale-while-revalidate=30", "stale-if-error=30", "max-age", 'private="a, b"', 'no-cache="Set-Cookie"'),
    ]
)
LINES = st.lists(st.lists(DIRECTIVES, max_size=4).map(", ".join), max_size=2)
TTL = st.integers(0, 10_000)


def made(headers: Any = (), status: int = 200, request: Any = ()) -> OriginResponse:
    return answer(status, CIMultiDict(headers), CIMultiDict(request), 0.0, NOW)


def lines(cache_control: list[str]) -> list[tuple[str, str]]:
    return [("Cache-Control", line) for line in cache_control]


@pytest.mark.parametrize(
    ("line", "directives"),
    [
        ("", {"": ""}),
        ("Max-Age=5, PUBLIC", {"max-age": "5", "public": ""}),
        ('private="a, b", max-age="5"', {"private": "a, b", "max-age": "5"}),
        ("max-age=1, max-age=2", {"max-age": "1"}),
        (' a = b ,,c="\\"x,y', {"a": "b", "c": '\\"x,y'}),
    ],
)
def test_directives(line: str, directives: dict[str, str]) -> None:
    assert {name: value for name, value in parse_directives([line]).items() if name or not line} == (
        directives if line else {}
    )


@pytest.mark.parametrize(
    ("headers", "lifetime"),
    [
        ({}, 100),
        ({"Expires": SOON, "Date": DATE}, 60),
        ({"Expires": DATE, "Date": SOON}, 0),
        ({"Expires": "0", "Date": DATE}, 0),
        ({"Expires": SOON}, 60),  # without a Date, from when it was received (RFC 9110, section 6.6.1)
        ({"Expires": SOON, "Date": "yesterday"}, 60),
        ({"CDN-Cache-Control": "max-age=9", "Cache-Control": "max-age=5, no-store", "Expires": DATE}, 9),
        ({"CDN-Cache-Control": "public", "Cache-Control": "max-age=5"}, 100),
        ({"CDN-Cache-Control": "max-age=9;x=1, must-revalidate=?1"}, 9),
        ({"CDN-Cache-Control": "max-age = 9", "Cache-Control": "max-age=5"}, 5),  # malformed: counts for nothing
        ({"CDN-Cache-Control": "", "Cache-Control": "max-age=5"}, 5),
        ({"CDN-Cache-Control": 'max-age="9"', "Cache-Control": "max-age=5"}, 5),
        ({"CDN-Cache-Control": "max-age=9, &&&", "Cache-Control": "max-age=5"}, 5),
        ({"CDN-Cache-Control": "max-age=9, max-age=8", "Cache-Control": "max-age=5"}, 8),
        ({"Expires": SOON, "Date": DATE, "Cache-Control": "max-age=5"}, 5),
        ({"Cache-Control": "max-age=5, s-maxage=7"}, 7),
        ({"Cache-Control": "s-maxage=x, max-age=5"}, 0),
        ({"Cache-Control": "max-age=-5"}, 0),
        ({"Cache-Control": "max-age=5; private"}, 0),
        ({"Cache-Control": "max-age=" + "9" * 50}, 2**31),
        ({"Cache-Control": "public"}, 100),
    ],
)
def test_the_lifetime(headers: Any, lifetime: int) -> None:
    assert made(headers).lifetime(100) == lifetime


@pytest.mark.parametrize(
    ("status", "lifetime"), [(200, 100), (204, 100), (301, 100), (302, None), (404, 10), (500, None), (206, None)]
)
def test_the_lifetime_where_nothing_is_said(status: int, lifetime: int | None) -> None:
    assert made(status=status).lifetime(100) == lifetime


@given(LINES, TTL, st.sampled_from([200, 206, 302, 304, 404, 500]), st.booleans(), st.booleans())
def test_nothing_that_is_for_one_alone_is_kept(
    cache_control: list[str], ttl: int, status: int, cookie: bool, authorized: bool
) -> None:
    headers = [*lines(cache_control), ("ETag", '"1"'), *([("Set-Cookie", "a=b")] if cookie else [])]
    request = CIMultiDict({"Authorization": "x"} if authorized else {})
    told = made(headers, status, request)
    said = ",".join(cache_control)
    if told.may_be_kept(request, ttl):
        assert not cookie
        assert status not in (206, 304)
        assert "private" not in said
        assert "no-store" not in said
        assert not authorized or any(word in said for word in ("public", "must-revalidate", "s-maxage"))


@given(LINES, TTL, st.floats(0, 20_000), st.floats(0, 20_000))
def test_what_is_stale_stays_stale(cache_control: list[str], ttl: int, early: float, late: float) -> None:
    told, (early, late) = made(lines(cache_control)), sorted((early, late))
    assert told.is_fresh(early, ttl) or not told.is_fresh(late, ttl)
    if told.is_fresh(early, ttl):
        assert early < (told.lifetime(ttl) or 0)
        assert "no-cache" not in told.directives
    for directive in ("stale-while-revalidate", "stale-if-error"):
        assert told.is_tolerable(early, ttl, directive) or not told.is_tolerable(late, ttl, directive)


@given(
    st.lists(st.sampled_from(["Accept", "accept-encoding", "X-A"]), max_size=3),
    *(
        st.dictionaries(
            st.sampled_from(["accept", "Accept-Encoding", "x-a", "x-b"]), st.sampled_from(["1", "2", "1, 2"])
        ),
    )
    * 2,
)
def test_a_variant_fits_exactly_those_who_said_the_same(vary: list[str], first: Any, second: Any) -> None:
    one, two = CIMultiDict(first), CIMultiDict(second)
    told = made([("Vary", name) for name in vary], request=one)
    assert told.fits(one)
    assert told.fits(two) == all(one.get(name) == two.get(name) for name in vary)


def test_space_and_lines_make_no_other_variant_and_an_asterisk_fits_nobody() -> None:
    told = made({"Vary": "Accept"}, request={"Accept": "a,b"})
    assert told.fits(CIMultiDict({"accept": "a , b"}))
    assert told.fits(CIMultiDict([("Accept", "a"), ("Accept", "b")]))
    assert not told.fits(CIMultiDict({"Accept": ""}))
    assert not made({"Vary": "Accept, *"}).fits(CIMultiDict())


def test_stale_windows() -> None:
    told = made({"Cache-Control": "s-maxage=10, stale-while-revalidate=20, stale-if-error=x"})
    assert [told.is_tolerable(now, 0, "stale-while-revalidate") for now in (0, 29, 31)] == [True, True, False]
    assert not told.is_tolerable(11, 0, "stale-if-error")
    strict = made({"Cache-Control": "max-age=10, stale-while-revalidate=20, proxy-revalidate"})
    assert not strict.is_tolerable(11, 0, "stale-while-revalidate")


@pytest.mark.parametrize(
    ("headers", "age"),
    [
        ({}, 2),
        ({"Date": DATE}, 2),
        ({"Age": "7200, 0"}, 7202),
        ({"Age": "0, 7200"}, 2),
        ({"Age": "x, 7200"}, 2),
        ({"Date": "Mon, 06 May 2024 07:07:09 GMT"}, 60),
        ({"Date": SOON}, 2),
        ({"Age": "90"}, 92),
        ({"Age": "-1", "Date": "nonsense"}, 2),
    ],
)
def test_the_age_at_arrival(headers: Any, age: float) -> None:
    assert initial_age(CIMultiDict(headers), NOW, 2.0) == age


def test_a_304_renews_what_it_names_and_leaves_what_tells_of_the_body() -> None:
    old = made([("ETag", '"1"'), ("Content-Length", "5"), ("X-A", "1"), ("X-A", "2"), ("X-B", "1"), ("Age", "9")])
    new = refreshed(
        old, CIMultiDict({"X-A": "3", "Content-Length": "0", "Cache-Control": "max-age=7"}), CIMultiDict(), 5.0, NOW
    )
    own = [("ETag", '"1"'), ("Content-Length", "5"), ("X-B", "1"), ("X-A", "3"), ("Cache-Control", "max-age=7")]
    assert sorted(new.headers.items()) == sorted([*own, ("Date", DATE)])
    assert (new.status, new.born, new.lifetime(0)) == (200, 5.0, 7)


def test_a_targeted_field_goes_before_the_general_one() -> None:
    told = made({"CDN-Cache-Control": "no-store", "Cache-Control": "max-age=60"})
    assert not told.may_be_kept(CIMultiDict(), 100)
    told = made({"CDN-Cache-Control": "max-age=60", "Cache-Control": "private"})
    assert told.may_be_kept(CIMultiDict(), 100)


def test_what_a_shared_cache_may_keep_though_it_seems_not_to() -> None:
    authorized = CIMultiDict({"Authorization": "Basic x"})
    assert not made().may_be_kept(authorized, 100)
    assert made({"Cache-Control": "must-revalidate"}).may_be_kept(authorized, 100)
    assert not made(status=418).may_be_kept(CIMultiDict(), 100)
    assert made({"Cache-Control": "public"}, status=418).may_be_kept(CIMultiDict(), 100)


def test_tags() -> None:
    headers = CIMultiDict([("Cache-Tag", "a, b c"), ("Cache-Tag", ""), ("Surrogate-Key", "d  e")])
    assert tags(headers) == {"a", "b c", "d", "e"}


def test_a_purge_of_many_paths_does_not_hold_up_the_edge() -> None:
    purge, begin = Purge([f"/img/{number}/a%20b.png" for number in range(1000)]), time.thread_time()
    assert not any(purge.hits(f"/css/{number}/x.css", frozenset()) for number in range(1000))
    assert time.thread_time() - begin < 0.3


@given(st.lists(st.text("/ab%2 c", max_size=5), max_size=3), st.text("abc/%?", max_size=8))
def test_a_purge_by_path_hits_what_begins_so(prefixes: list[str], rest: str) -> None:
    hit = Purge(paths=tuple(prefixes)).hits("/" + rest, frozenset())
    assert hit or not any(rest.startswith(prefix.removeprefix("/")) for prefix in prefixes if "%" not in prefix + rest)
    assert Purge(everything=True).hits("/" + rest, frozenset())
    assert not Purge(tags=frozenset("x")).hits("/" + rest, frozenset("y"))


@given(
    st.lists(
        st.sampled_from(["public", "private", "no-store", "no-cache", "must-revalidate", "max-age=60", "s-maxage=0"]),
        unique=True,
    ),
    st.sampled_from([200, 206, 301, 302, 304, 404, 418, 500]),
    st.booleans(),
)
def test_another_implementation_of_the_rfc_decides_the_same(said: list[str], status: int, authorized: bool) -> None:
    """All that is kept here, it would keep; and what says its lifetime itself is fresh here when it is there."""
    sent = {"Authorization": "x"} if authorized else {}
    now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"Cache-Control": ", ".join(said), "Date": now, "ETag": '"1"'}
    request = hishel.Request("GET", "http://a/", hishel.Headers(sent))
    response = hishel.Response(status, hishel.Headers(headers))
    told = made(headers, status, sent)
    stored = hishel.CacheMiss(hishel.CacheOptions(shared=True), request).next(response)
    if told.may_be_kept(CIMultiDict(sent), 100):
        assert isinstance(stored, hishel.StoreAndUse)
    if told.explicit is not None:
        kept = hishel.Entry(uuid.uuid4(), request, response)
        used = hishel.IdleClient(hishel.CacheOptions(shared=True)).next(request, [kept])
        assert told.is_fresh(0, 100) == isinstance(used, hishel.FromCache)
