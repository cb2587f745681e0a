"""From the answer's bytes to data and metadata, or to what was refused."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from decimal import Decimal, InvalidOperation
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrai_async._protocol import json as parsers
from infrai_async._protocol.response import (
    LARGEST_RESPONSE,
    Envelope,
    Response,
    api_error_of,
    cost_of,
    decoded,
    exact,
    kind_of,
    metadata_of,
    open_envelope,
    request_id,
    safe_text,
)
from infrai_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    DecodeError,
    InsufficientCreditError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)

JSON = {"Content-Type": "application/json"}


@pytest.fixture(params=["orjson", "json"] if find_spec("orjson") else ["json"], autouse=True)
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Select what parses: every rule holds with and without the extra ``speed``."""
    if request.param == "json":
        monkeypatch.setattr(parsers, "loads", parsers.loads_by_standard_library)


def answer(body: object, status: int = 200, headers: dict[str, str] = JSON) -> Response:
    return Response(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def refused(body: object, status: int = 400, *, retry_after: float | None = None) -> APIError:
    given = answer(body, status)
    return api_error_of(given, open_envelope(given), retry_after)


def test_the_codec_with_the_extra_is_orjson(request: pytest.FixtureRequest) -> None:
    selected = request.node.callspec.params["codec"]
    parsers.loads(b"{}")  # orjson comes with the first use
    assert (parsers.loads is parsers.loads_by_standard_library) == (selected == "json")


# --- successes ---------------------------------------------------------------------------------------------------


def test_an_envelope_is_taken_apart() -> None:
    body = {"ok": True, "data": {"id": "x"}, "error": None, "metadata": {"request_id": "r1"}}
    assert open_envelope(answer(body)) == Envelope(
        {"id": "x"}, {"request_id": "r1"}, None, root="$.data", enveloped=True
    )


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_success(status: int) -> None:
    assert open_envelope(answer({"ok": True, "data": 1}, status)).data == 1


def test_metadata_may_be_missing() -> None:
    assert open_envelope(answer({"ok": True, "data": 1})).metadata is None


def test_data_may_be_missing() -> None:
    assert open_envelope(answer({"ok": True, "metadata": {}})) == Envelope(None, {}, root="$.data", enveloped=True)


@pytest.mark.parametrize("data", [None, True, 0, "x", [], [1], {"ok": False}])
def test_data_may_be_any_json(data: object) -> None:
    assert open_envelope(answer({"ok": True, "data": data})).data == data


def test_a_bare_document_is_its_own_data() -> None:
    body = {"version": "v1", "capabilities": []}
    assert open_envelope(answer(body)) == Envelope(body, None, None, root="$", enveloped=False)


def test_a_bare_acknowledgement_is_data_and_no_envelope() -> None:
    assert open_envelope(answer({"ok": True, "purge_id": "p"})).data == {"ok": True, "purge_id": "p"}


@pytest.mark.parametrize("body", [[1, 2], "text", 5, None, True])
def test_a_bare_value_is_its_own_data(body: object) -> None:
    assert open_envelope(answer(body)).data == body


def test_text_is_read_as_utf_8() -> None:
    assert open_envelope(answer('{"ok":true,"data":"é日🚀"}'.encode())).data == "é日🚀"


def test_the_last_of_two_equal_names_counts() -> None:
    assert open_envelope(answer(b'{"a":1,"a":2}')).data == {"a": 2}


# --- successes that cannot be read -----------------------------------------------------------------------------

HTML = {"Content-Type": "text/html; charset=utf-8"}
UNREADABLE = {
    "empty": (b"", JSON, "the response is empty: it may have been cut off"),
    "cut off": (
        b'{"ok":true,"da',
        JSON,
        "the response is not valid JSON (application/json, 14 bytes): it may have been cut off",
    ),
    "no JSON": (b"hello", {}, "the response is not valid JSON (no content type, 5 bytes): it may have been cut off"),
    "two documents": (
        b"{}{}",
        JSON,
        "the response is not valid JSON (application/json, 4 bytes): it may have been cut off",
    ),
    "not UTF-8": (
        b'{"a":"\xff"}',
        JSON,
        "the response is not valid JSON (application/json, 9 bytes): it may have been cut off",
    ),
    "a byte order mark": (
        b"\xef\xbb\xbf{}",
        JSON,
        "the response is not valid JSON (application/json, 5 bytes): it may have been cut off",
    ),
    "UTF-16": (
        '{"a":1}'.encode("utf-16-le"),
        JSON,
        "the response is not valid JSON (application/json, 14 bytes): it may have been cut off",
    ),
    "a web page": (
        b"<html>Sign in</html>",
        HTML,
        "the response is a web page (text/html), not JSON: check base_url, or look for a proxy or sign-in page",
    ),
    "a web page in capitals": (
        b"<html>Sign in</html>",
        {"Content-Type": "Text/HTML"},
        "the response is a web page (text/html), not JSON: check base_url, or look for a proxy or sign-in page",
    ),
}
NOT_JSON = [
    b"NaN",
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":-Infinity}',
    b'{"a":1e400}',
    b'{"a":-1e400}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\udc00x"}',
    b'{"a":01}',
    b'{"a":"\x01"}',
    b"[1,]",
    b"{'a':1}",
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
]


@pytest.mark.parametrize(("body", "headers", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_success_that_cannot_be_read_says_why(body: bytes, headers: dict[str, str], message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        open_envelope(answer(body, 200, headers))
    assert str(caught.value) == message
    assert (caught.value.path, caught.value.status) == ("$", 200)


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:12]))
def test_what_is_not_json_is_a_decode_error(body: bytes) -> None:
    with pytest.raises(DecodeError, match="the response is not valid JSON"):
        open_envelope(answer(body))


def test_an_unreadable_answer_is_not_shown() -> None:
    with pytest.raises(DecodeError) as caught:
        open_envelope(answer(b'{"connection_uri":"postgresql://u:hunter2@h'))
    assert "hunter2" not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize(
    ("ok", "kind"), [("true", "a string"), (1, "a number"), (0, "a number"), ([], "a list"), ({}, "an object")]
)
def test_an_ok_of_the_wrong_type_is_a_decode_error_that_names_it(ok: object, kind: str) -> None:
    with pytest.raises(DecodeError) as caught:
        open_envelope(answer({"ok": ok, "data": {}, "error": None, "metadata": {}}))
    assert str(caught.value) == f"$.ok: expected true or false, got {kind}"
    assert (caught.value.path, caught.value.status) == ("$.ok", 200)


@given(st.binary(max_size=40))
def test_whatever_arrives_is_an_envelope_or_a_decode_error(body: bytes) -> None:
    try:
        result: object = open_envelope(answer(body))
    except DecodeError as error:
        result = error
    assert isinstance(result, Envelope | DecodeError)


# --- refusals ----------------------------------------------------------------------------------------------------

ERROR = {"code": "VALIDATION_ERROR", "message": "name is taken", "hint": "choose another", "retryable": False}
FORMS: dict[str, tuple[Any, str | None, str]] = {
    "an envelope": ({"ok": False, "data": None, "error": ERROR, "metadata": {}}, "VALIDATION_ERROR", "name is taken"),
    "an envelope without data": ({"ok": False, "error": ERROR}, "VALIDATION_ERROR", "name is taken"),
    "an envelope that says ok": ({"ok": True, "data": None, "error": ERROR}, "VALIDATION_ERROR", "name is taken"),
    "an envelope with a string": ({"ok": False, "error": "no such thing"}, None, "no such thing"),
    "a bare error object": ({"error": ERROR}, "VALIDATION_ERROR", "name is taken"),
    "a bare error string": ({"error": "no such thing"}, None, "no such thing"),
    "a bare error string with a code": ({"error": "no such thing", "code": "X"}, "X", "no such thing"),
    "a bare error string with a message": ({"error": "bad", "message": "no such thing"}, None, "no such thing"),
    "a bare object": ({"code": "VALIDATION_ERROR", "message": "name is taken"}, "VALIDATION_ERROR", "name is taken"),
    "an error without a message": ({"ok": False, "error": {"code": "X", "hint": "sign in"}}, "X", "sign in"),
    "an empty error": ({"ok": False, "error": {}}, None, "the service gave no reason"),
    "no error at all": ({"ok": False}, None, "the service gave no reason"),
    "an error of null": ({"ok": False, "error": None}, None, "the service gave no reason"),
    "an error of the wrong type": ({"ok": False, "error": 5}, None, "the service gave no reason"),
    "an ok of the wrong type": ({"ok": "no", "error": ERROR}, "VALIDATION_ERROR", "name is taken"),
    "fields of the wrong type": ({"error": {"code": 5, "message": [], "hint": {}}}, None, "the service gave no reason"),
    "an empty object": ({}, None, "the service gave no reason"),
    "a list": ([1], None, "the service gave no reason"),
    "null": (None, None, "the service gave no reason"),
}


@pytest.mark.parametrize(("body", "code", "message"), FORMS.values(), ids=FORMS)
def test_a_refusal_is_read_in_every_form(body: object, code: str | None, message: str) -> None:
    error = refused(body)
    assert (type(error), error.code, error.message) == (BadRequestError, code, message)


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("form", ["an envelope", "an envelope without data", "an envelope with a string"])
def test_ok_false_is_a_refusal_whatever_the_status(form: str, status: int) -> None:
    given = answer(FORMS[form][0], status)
    assert open_envelope(given).error is not None


@pytest.mark.parametrize(("body", "headers", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_refusal_that_cannot_be_read_keeps_its_status(body: bytes, headers: dict[str, str], message: str) -> None:
    given = answer(body, 502, headers)
    error = api_error_of(given, open_envelope(given), None)
    assert (type(error), error.status, error.code, error.message) == (ServerError, 502, None, message)


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:12]))
def test_a_refusal_that_is_not_json_is_no_decode_error(body: bytes) -> None:
    assert open_envelope(answer(body, 500)).error is not None


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308])
def test_a_redirect_says_what_to_check(status: int) -> None:
    error = refused({}, status)
    assert type(error) is APIError
    assert error.message == "the service sent a redirect, which this client does not follow: check base_url"


def test_everything_that_an_error_says_is_kept() -> None:
    body = {"ok": False, "error": {**ERROR, "retryable": True}, "metadata": {"request_id": "r1"}}
    error = refused(body, 409)
    assert (error.status, error.code, error.message, error.hint, error.request_id, error.retryable) == (
        409,
        "VALIDATION_ERROR",
        "name is taken",
        "choose another",
        "r1",
        True,
    )


@pytest.mark.parametrize("retryable", ["true", 1, None, {}])
def test_a_retryable_that_is_no_boolean_says_nothing(retryable: object) -> None:
    assert refused({"error": {"code": "X", "retryable": retryable}}).retryable is None


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [({"request_id": "r1"}, "r1"), ({"request_id": 5}, None), ({}, None), ([], None), (5, None)],
)
def test_a_request_id_is_a_string_or_absent(metadata: object, expected: str | None) -> None:
    assert request_id(open_envelope(answer({"ok": True, "data": 1, "metadata": metadata}))) == expected


# --- classes (DESIGN section 6) --------------------------------------------------------------------------------------

CLASSES: dict[int, type[APIError]] = {
    300: APIError,
    302: APIError,
    400: BadRequestError,
    401: AuthenticationError,
    402: InsufficientCreditError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: APIError,
    409: ConflictError,
    410: APIError,
    418: APIError,
    421: APIError,
    422: BadRequestError,
    429: RateLimitError,
    451: APIError,
    500: ServerError,
    501: ServerError,
    502: ServerError,
    503: ServerError,
    504: ServerError,
    599: ServerError,
}


@pytest.mark.parametrize("code", [None, "NEW_CODE", "RATE_LIMITED", "FLAG_NOT_FOUND"])
@pytest.mark.parametrize("status", CLASSES)
def test_the_status_decides_the_class(status: int, code: str | None) -> None:
    error = refused({"ok": False, "error": {"code": code}}, status)
    assert (type(error), error.status, error.code) == (CLASSES[status], status, code)


CODES: dict[str, type[APIError]] = {
    "VALIDATION_ERROR": BadRequestError,
    "UNAUTHORIZED": AuthenticationError,
    "INSUFFICIENT_CREDIT": InsufficientCreditError,
    "FORBIDDEN": PermissionDeniedError,
    "NOT_FOUND": NotFoundError,
    "FLAG_NOT_FOUND": NotFoundError,
    "DB_PROJECT_NOT_FOUND": NotFoundError,
    "CDN_DISTRIBUTION_NOT_FOUND": NotFoundError,
    "STORAGE_BUCKET_NOT_FOUND": NotFoundError,
    "STORAGE_BUCKET_EXISTS": ConflictError,
    "FLAG_VERSION_CONFLICT": ConflictError,
    "IDEMPOTENCY_KEY_REUSED": ConflictError,
    "RATE_LIMITED": RateLimitError,
    "INTERNAL_ERROR": ServerError,
    "VENDOR_ERROR": ServerError,
    "VENDOR_UNAVAILABLE": ServerError,
    "VENDOR_TIMEOUT": ServerError,
    "CAPTCHA_SCORE_TOO_LOW": APIError,
    "NEW_CODE": APIError,
    "not_found": APIError,
}


@pytest.mark.parametrize("code", CODES)
def test_under_a_2xx_the_code_decides_the_class(code: str) -> None:
    assert type(refused({"ok": False, "error": {"code": code}}, 200)) is CODES[code]


def test_under_a_2xx_no_code_is_an_api_error() -> None:
    assert type(refused({"ok": False, "error": "no"}, 200)) is APIError


PAY = "https://infrai.cc/pay/1"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"checkout_url": PAY}, PAY),
        ({"details": {"checkout_url": PAY}}, PAY),
        ({"checkout_url": PAY, "details": {"checkout_url": "other"}}, PAY),
        ({"checkout_url": None, "details": {"checkout_url": PAY}}, PAY),
        ({"checkout_url": 5}, None),
        ({"details": {}}, None),
        ({"details": "text"}, None),
        ({}, None),
    ],
)
def test_a_402_finds_the_checkout_wherever_it_is(fields: dict[str, object], expected: str | None) -> None:
    error = refused({"ok": False, "error": {"code": "INSUFFICIENT_CREDIT", **fields}}, 402)
    assert isinstance(error, InsufficientCreditError)
    assert error.checkout_url == expected


def test_a_402_of_a_web_page_has_no_checkout() -> None:
    error = refused(b"<html>", 402)
    assert isinstance(error, InsufficientCreditError)
    assert error.checkout_url is None


@pytest.mark.parametrize("retry_after", [None, 1.5])
@pytest.mark.parametrize(("status", "kind"), [(429, RateLimitError), (503, ServerError)])
def test_an_error_carries_how_long_to_wait(status: int, kind: type[ServerError], retry_after: float | None) -> None:
    error = refused({"error": {"code": "RATE_LIMITED" if status == 429 else "DOWN"}}, status, retry_after=retry_after)
    assert isinstance(error, kind)
    assert error.retry_after == retry_after


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "a boolean"),
        (0, "a number"),
        (1.5, "a number"),
        ("", "a string"),
        ([], "a list"),
        ({}, "an object"),
    ],
)
def test_a_json_type_is_named_in_words(value: object, kind: str) -> None:
    assert kind_of(value) == kind


def test_an_answers_repr_shows_neither_body_nor_headers() -> None:
    text = repr(answer({"connection_uri": "hunter2"}, headers={"Set-Cookie": "hunter3"}))
    assert "hunter" not in text


@pytest.mark.parametrize(("status", "outcome"), [(200, DecodeError), (502, ServerError)])
def test_an_answer_beyond_all_measure_says_so(status: int, outcome: type[Exception]) -> None:
    given = Response(status, JSON, b"", oversized=True)
    with pytest.raises(outcome, match="the response is larger than 67108864 bytes"):
        raise api_error_of(given, open_envelope(given), None)


# --- money -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [True, False, None, "1", [1], {"usd": 1}])
def test_a_cost_that_is_no_number_costs_nothing(cost: object) -> None:
    assert (exact(1), exact(0)) == (1, 0)  # a cache that took 1 and True for the same would have an answer now
    envelope = open_envelope(answer({"ok": False, "error": {"code": "X"}, "metadata": {"cost_usd": cost}}, 400))
    assert cost_of(envelope) is None
    assert metadata_of(envelope).cost_usd is None
    assert str(exact(1.0)) == "1.0"
    with pytest.raises(InvalidOperation):  # not the 1.0 that the cache holds
        exact(True)


@pytest.mark.parametrize("order", list(itertools.permutations(["1", "1.0", "0", "0.0", "-0.0", "1e-05"], 6))[::97])
def test_money_keeps_the_form_in_which_it_came_whatever_came_before(order: tuple[str, ...]) -> None:
    for text in order * 2:
        number = json.loads(text)
        assert str(exact(number)) == str(Decimal(repr(number)))


# --- what an error may repeat ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 404, 503])
@pytest.mark.parametrize("error", [{}, {"error": None}])
def test_an_error_that_is_null_stands_in_the_document_itself(error: dict[str, object], status: int) -> None:
    body = {"ok": False, **error, "code": "FLAG_NOT_FOUND", "message": "why", "hint": "what", "retryable": False}
    failed = refused(body, status)
    assert (failed.code, failed.message, failed.hint, failed.retryable) == ("FLAG_NOT_FOUND", "why", "what", False)


@pytest.mark.parametrize("error", [[], 5, True, ["X"]])
def test_an_error_of_another_type_says_nothing(error: object) -> None:
    failed = refused({"ok": False, "error": error, "code": "X", "message": "why"})
    assert (failed.code, failed.message) == (None, "the service gave no reason")


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("x-gzip", gzip.compress),
        ("X-GZIP", gzip.compress),
        ("gzip, gzip", lambda body: gzip.compress(gzip.compress(body))),
        ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
        ("identity, x-gzip", gzip.compress),
        ("", lambda body: body),
        ("identity", lambda body: body),
        ("gzip", lambda body: body),  # aiohttp has read it
        ("br", lambda body: body),
        ("br, gzip", lambda body: body),  # which nobody here can read
    ],
)
def test_codings_that_aiohttp_does_not_know_are_read(encoding: str, pack: Any) -> None:
    assert decoded(pack(b'{"ok": true}'), encoding) == b'{"ok": true}'
    assert decoded(pack(b'\xef\xbb\xbf{"ok": true}'), encoding) == b'{"ok": true}'


def test_a_coding_that_is_broken_leaves_the_body_and_a_bomb_is_cut() -> None:
    assert decoded(b"no gzip", "x-gzip") == b"no gzip"
    bomb = gzip.compress(bytes(LARGEST_RESPONSE + 1000))
    assert len(decoded(bomb, "x-gzip")) == LARGEST_RESPONSE


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("open postgresql://u:pw@h/d now", "open postgresql://u:***@h/d now"),
        ("host=h password=pw user=u", "host=h password=*** user=u"),
        ("the key ifr_0123456789 is unknown", "the key *** is unknown"),
        ("the key ifr%5F0123456789 and IFR&#95;0123456789", "the key *** and ***"),
        ("the key ifr_01\n  234\\n56789 and ifr_\u200b0123\u00ad456789", "the key *** and ***"),
        ("two\n lines\tand\r\nmore", "two lines and more"),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 499 + "…"),
    ],
)
def test_a_text_of_the_service_is_shown_short_and_without_secrets(text: str, shown: str) -> None:
    assert safe_text(text, ("ifr_0123456789",)) == shown


def test_a_short_key_is_not_looked_for_because_words_hold_it() -> None:
    assert safe_text("keys", ("k",)) == "keys"
    assert safe_text(None, ("k",)) is None
    assert safe_text(5, ("k",)) is None


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://api.example/v1/x?token=SECRET", " to https://api.example"),
        ("http://u:SECRET@api.example:8080/x", " to http://api.example:8080"),
        ("HTTPS://API.example/", " to https://api.example"),
        ("/v2/x?SECRET", ""),
        ("//evil.example/SECRET", ""),
        ("ftp://h/SECRET", ""),
        ("http://[::1", ""),
        ("http://h:99999999/", ""),
        ("", ""),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"text"])
def test_a_redirect_says_where_to_and_no_more(location: str, told: str, body: bytes) -> None:
    failed = refused_by(Response(302, {"Location": location}, body))
    assert failed.message == f"the service sent a redirect{told}, which this client does not follow: check base_url"


@pytest.mark.parametrize(("status", "told"), [(407, "check proxy="), (511, "sign in")])
def test_what_stands_between_is_named(status: int, told: str) -> None:
    assert told in refused_by(Response(status, {"Content-Type": "text/html"}, b"<html>")).message


def refused_by(response: Response) -> APIError:
    return api_error_of(response, open_envelope(response), None)
