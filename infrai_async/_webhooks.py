"""Webhooks that arrive: whether the service sent them."""

from __future__ import annotations

import hashlib
import hmac

from infrai_async.errors import InvalidArgument

_SCHEME = "sha256="


def verify_webhook(body: bytes | str, signature: str | None, secret: str | bytes) -> bool:
    """Return whether a webhook's signature is that of its body; compared in constant time (contract D38).

    Call it with the body exactly as it arrived, before anything parses it, and answer 401 if it returns ``False``.

    Args:
        body: the body of the request.
        signature: its header ``X-Infrai-Signature``; ``None`` if it has none.
        secret: the webhook's secret.

    Raises:
        InvalidArgument: ``secret`` is empty, or an argument is of the wrong type, such as a body that was parsed.

    Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d38
    """
    for name, value in (("body", body), ("secret", secret)):
        if not isinstance(value, bytes | bytearray | memoryview | str):
            what = "the bytes of the request as they arrived" if name == "body" else "a string"
            raise InvalidArgument(f"{name} must be {what}")
    if not secret:
        raise InvalidArgument("secret must not be empty: anybody could sign with it")
    if not isinstance(signature, str):
        return False
    content, key = (value.encode() if isinstance(value, str) else value for value in (body, secret))
    expected = hmac.new(key, content, hashlib.sha256).hexdigest()
    # As bytes, since strings are only compared in constant time if they are ASCII.
    given = signature.strip().lower().removeprefix(_SCHEME).encode(errors="replace")
    return hmac.compare_digest(expected.encode(), given)
