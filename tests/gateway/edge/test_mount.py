"""What names paths in the headers of an origin that is mounted below a path."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from infrai_async.local.edge.mount import mount


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("Location", "/a?b=1#c", "/edge/d/a?b=1#c"),
        ("Location", "//other.example/a", "//other.example/a"),
        ("Location", "https://other.example/a", "https://other.example/a"),
        ("Location", "a", "a"),
        ("Content-Location", "/a", "/edge/d/a"),
        ("SourceMap", "/a.map", "/edge/d/a.map"),
        ("Refresh", "5; url=/a", "5; url=/edge/d/a"),
        ("Refresh", "5;URL='/a'", "5;URL='/edge/d/a'"),
        ("Refresh", "5", "5"),
        ("Refresh", "5; url=https://other.example/", "5; url=https://other.example/"),
        (
            "Link",
            '</a>; rel=next, <b>; rel="x", <//c/d>, </e>',
            '</edge/d/a>; rel=next, <b>; rel="x", <//c/d>, </edge/d/e>',
        ),
        ("Set-Cookie", "sid=1; Path=/app; HttpOnly", "sid=1; Path=/edge/d/app; HttpOnly"),
        ("Set-Cookie", "sid=2; path=/; SameSite=Lax", "sid=2; path=/edge/d; SameSite=Lax"),
        ("Set-Cookie", "sid=3; Path=/; Domain=127.0.0.1", "sid=3; Path=/edge/d"),
        ("Set-Cookie", "sid=4", "sid=4"),
        ("Set-Cookie", "sid=5; Path=relative", "sid=5; Path=relative"),
    ],
)
def test_absolute_paths_are_below_the_mount(name: str, given: str, wanted: str) -> None:
    headers = CIMultiDict({name: given})
    mount(headers, "/edge/d")
    assert headers.getall(name) == [wanted]


def test_every_cookie_is_rewritten_and_the_order_stays() -> None:
    headers = CIMultiDict([("Set-Cookie", "a=1; Path=/app"), ("X", "y"), ("Set-Cookie", "b=2; path=/; Secure")])
    mount(headers, "/edge/d")
    assert headers.getall("Set-Cookie") == ["a=1; Path=/edge/d/app", "b=2; path=/edge/d; Secure"]


def test_what_concerns_the_whole_host_is_left_out() -> None:
    headers = CIMultiDict({"Clear-Site-Data": '"*"', "Service-Worker-Allowed": "/", "Alt-Svc": 'h3=":443"', "X": "y"})
    mount(headers, "/edge/d")
    assert list(headers.items()) == [("X", "y")]
