"""Signatures in a URL's query, held against those of botocore."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Theirs
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from infrai_async.local.objects.sigv4 import BadSignature, Credentials, presign, verify

OURS = Credentials(id="AKIDEXAMPLE", secret="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", region="eu-west-3")
AT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
KEYS = [
    "a",
    "a/b/c.txt",
    "a b+c%20d",
    "ä/ö €",
    "\N{PILE OF POO}",
    "..",
    "../../etc/passwd",
    "a//b/./c",
    "~-_.!*'();:@&=+$,?#[]",
    'q"u\\o<t>e|^`{}',
    "\n\t",
]
EXTRAS: list[Any] = [
    ({}, {}),
    ({"response-content-disposition": 'attachment; filename="a b=c&d.txt"', "a-b": "1", "a": "2"}, {}),
    ({}, {"Content-Type": "text/plain; charset=utf-8"}),
    ({"X-Infrai-Max-Bytes": "10", "response-content-type": "ä/ö+ "}, {"Content-Type": "  image/png  "}),
]


def _by_botocore(monkeypatch: pytest.MonkeyPatch, url: str, method: str, query: Any, headers: Any, token: Any) -> str:
    import botocore.auth

    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: AT.replace(tzinfo=None))
    asked = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query.items())
    request = AWSRequest(method, f"{url}?{asked}" if asked else url, headers=headers)
    S3SigV4QueryAuth(Theirs(OURS.id, OURS.secret, token), "s3", OURS.region, expires=77).add_auth(request)
    return str(request.url)


@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize(("query", "headers"), EXTRAS)
@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("key", KEYS)
def test_a_url_is_signed_as_botocore_signs_it(
    monkeypatch: pytest.MonkeyPatch, key: str, method: str, query: Any, headers: Any, token: Any
) -> None:
    url = "http://127.0.0.1:9000/bucket/" + quote(key, safe="/~")
    credentials = Credentials(id=OURS.id, secret=OURS.secret, region=OURS.region, token=token)
    mine = presign(credentials, method, url, at=AT, seconds=77, query=query, headers=headers)
    theirs = _by_botocore(monkeypatch, url, method, query, headers, token)
    assert mine.partition("?")[0] == theirs.partition("?")[0]
    assert sorted(parse_qsl(urlsplit(mine).query)) == sorted(parse_qsl(urlsplit(theirs).query))


def _check(url: str, method: str = "PUT", *, headers: Any = None, after: float = 0) -> None:
    target = urlsplit(url)
    sent = CIMultiDict({"Host": target.netloc} | (headers or {}))
    query = parse_qsl(target.query, keep_blank_values=True)
    verify(OURS, method, unquote(target.path), query, sent, now=AT + timedelta(seconds=after))


@given(key=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), most=st.integers(0))
@settings(deadline=None, max_examples=100)
def test_what_was_signed_is_verified_however_it_is_escaped(key: str, most: int) -> None:
    for safe in ("", "/~"):
        url = presign(OURS, "PUT", f"http://h/b/{quote(key, safe='')}", at=AT, seconds=5, query={"most": str(most)})
        _check(url.replace(quote(key, safe=""), quote(key, safe=safe), 1))


def test_a_url_works_from_its_date_until_its_expiry() -> None:
    url = presign(OURS, "PUT", "http://h/b/k", at=AT, seconds=5)
    _check(url, after=-0.9)
    _check(url, after=4.9)
    with pytest.raises(BadSignature, match="expired"):
        _check(url, after=5)


def test_a_header_that_was_signed_has_to_come_along() -> None:
    url = presign(OURS, "PUT", "http://h/b/k", at=AT, seconds=5, headers={"Content-Type": "text/plain"})
    _check(url, headers={"content-type": "text/plain", "X-Other": "y"})
    for sent in ({}, {"Content-Type": "text/html"}):
        with pytest.raises(BadSignature):
            _check(url, headers=sent)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "put"])
def test_a_url_is_for_one_method(method: str) -> None:
    with pytest.raises(BadSignature):
        _check(presign(OURS, "PUT", "http://h/b/k", at=AT, seconds=5), method)


def test_every_character_of_a_url_counts() -> None:
    url = presign(OURS, "PUT", "http://h/bkt/key", at=AT, seconds=60, query={"most": "10", "a": ""})
    _check(url)
    for place in range(url.index("/bkt"), len(url)):
        changed = url[:place] + ("1" if url[place] == "0" else "0") + url[place + 1 :]
        with pytest.raises(BadSignature):
            _check(changed)
        if place + 1 < len(url) and url[place] != url[place + 1]:
            with pytest.raises(BadSignature):
                _check(url[:place] + url[place + 1] + url[place] + url[place + 2 :])


def test_no_parameter_can_be_added_taken_away_or_repeated() -> None:
    url = presign(OURS, "PUT", "http://h/bkt/key", at=AT, seconds=60, query={"most": "10"})
    base, _, query = url.partition("?")
    pairs = query.split("&")
    for number, pair in enumerate(pairs):
        for changed in (pairs[:number] + pairs[number + 1 :], [*pairs, pair], [pair, *pairs]):
            with pytest.raises(BadSignature):
                _check(f"{base}?{'&'.join(changed)}")
    for more in ("x=", "most=11", "X-Amz-Expires=604800", "X-Amz-Signature="):
        with pytest.raises(BadSignature):
            _check(f"{url}&{more}")
    _check(f"{base}?{'&'.join(reversed(pairs))}")  # their order says nothing


@pytest.mark.parametrize(
    "query", ["", "X-Amz-Signature=", "X-Amz-Signature=%C3%A9", "X-Amz-Date=%2F%2F&X-Amz-Signature=0"]
)
def test_what_was_never_signed_is_refused(query: str) -> None:
    with pytest.raises(BadSignature):
        _check(f"http://h/b/k?{query}")


def test_no_secret_is_shown() -> None:
    shown = repr(Credentials(id="me", secret="hidden", region="r", token="hidden"))
    assert "me" in shown
    assert "hidden" not in shown
