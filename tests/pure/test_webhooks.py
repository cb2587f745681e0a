"""Whether a webhook was sent by the service."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from infrai_async import InvalidArgument, verify_webhook

BODY = json.dumps({"event": "project.created", "name": "Zoë"}).encode()
SECRET = "whsec_4711"
SIGNATURE = f"sha256={hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest()}"


def test_the_published_value_of_a_known_text() -> None:
    """RFC 4231, test case 2."""
    told = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert verify_webhook(b"what do ya want for nothing?", told, "Jefe")


@pytest.mark.parametrize("body", [BODY, BODY.decode(), bytearray(BODY), memoryview(BODY)])
@pytest.mark.parametrize("secret", [SECRET, SECRET.encode()])
@pytest.mark.parametrize(
    "signature", [SIGNATURE, SIGNATURE.removeprefix("sha256="), SIGNATURE.upper(), f" {SIGNATURE} "]
)
def test_the_right_signature_in_any_spelling(body: Any, secret: Any, signature: str) -> None:
    assert verify_webhook(body, signature, secret) is True


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "sha256=",
        SIGNATURE[:-1],
        SIGNATURE + "0",
        SIGNATURE.replace("a", "b", 1),
        "sha1=abc",
        "ü" * 64,
        5,
        b"x",
    ],
)
def test_any_other_signature_is_wrong(signature: Any) -> None:
    assert verify_webhook(BODY, signature, SECRET) is False


def test_another_body_or_secret_is_wrong() -> None:
    assert not verify_webhook(BODY + b" ", SIGNATURE, SECRET)
    assert not verify_webhook(BODY, SIGNATURE, SECRET + "x")


@pytest.mark.parametrize(
    ("body", "secret", "said"),
    [
        (json.loads(BODY), SECRET, "body must be the bytes of the request as they arrived"),
        (None, SECRET, "body must be"),
        (BODY, None, "secret must be a string"),
        (BODY, "", "secret must not be empty"),
        (BODY, b"", "secret must not be empty"),
    ],
)
def test_what_cannot_be_verified_is_refused_by_name(body: Any, secret: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        verify_webhook(body, SIGNATURE, secret)
