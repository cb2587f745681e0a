"""Reading a response: from its bytes to data and metadata, or to an error, without I/O."""

from __future__ import annotations

import functools
import html
import re
import zlib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from infrai_async._protocol import json
from infrai_async.errors import (
    APIError,
    DecodeError,
    InsufficientCreditError,
    RateLimitError,
    ServerError,
    TransportError,
    api_error_class,
)
from infrai_async.models import Metadata, mask_uri

LARGEST_RESPONSE: Final = 64 * 2**20  # bytes; a page has a few kB, so a larger response is a fault or an attack
_AROUND: Final = 4  # levels around a value: of the envelope, a page, its list and an item
_ENVELOPE: Final = frozenset({"data", "error", "metadata"})
_LONGEST_TEXT: Final = 500  # characters of a text of the service in an error
LONGEST_NAME: Final = 100  # characters of a code or an id
_SHORTEST_KEY: Final = 8  # characters; anything shorter is a test's key, and occurs in ordinary words
_CODINGS: Final[Mapping[str, int]] = {  # by name, the window size that zlib wants
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}
_KINDS: Final = frozenset({"application/json", "application/octet-stream", "application/xml", "text/plain", "text/xml"})


@attrs.define
class Response:
    """A complete HTTP response; or an ``oversized`` one, which was not read to its end.

    ``started_at`` is in seconds since the epoch; ``seconds`` and ``waited`` are durations in seconds. ``keys`` are the
    API keys that the call has sent, which no error may repeat, and ``key_source`` the argument, variable or file that
    they came from; it is empty if the request carried none.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    started_at: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    oversized: bool = False
    keys: tuple[str, ...] = attrs.field(default=(), repr=False)
    key_source: str = ""


@attrs.frozen
class NoResponse:
    """An attempt without a complete response; ``sent`` is true if any of its bytes may have been sent."""

    error: TransportError
    sent: bool
    started_at: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0


@attrs.define
class Envelope:
    """The parts of a response: ``root`` is the JSON path of ``data``; ``error`` is ``None`` on success."""

    data: object = attrs.field(default=None, repr=False)
    metadata: object = attrs.field(default=None, repr=False)
    error: Mapping[str, object] | None = attrs.field(default=None, repr=False)
    root: str = "$"
    enveloped: bool = False


def decoded(body: bytes, encoding: str) -> bytes:
    """Return the body of a response without a byte order mark, and without codings that aiohttp does not know.

    aiohttp decodes a single coding by its usual name, but not the old name ``x-gzip``, and not several codings.
    """
    names = [name.strip() for name in encoding.lower().split(",") if name.strip() not in ("", "identity")]
    if (len(names) > 1 or names == ["x-gzip"]) and all(name in _CODINGS for name in names):
        for name in reversed(names):
            decoder = zlib.decompressobj(_CODINGS[name])
            try:
                body = decoder.decompress(body, LARGEST_RESPONSE)
            except zlib.error:
                break
    return body.removeprefix(b"\xef\xbb\xbf")


def open_envelope(response: Response) -> Envelope:
    """Split a response into its parts, be it an envelope, a bare document or an error in any form (D14, D16).

    Raises:
        DecodeError: a success cannot be read. An error response always gives an envelope: its status says enough.
    """
    success = 200 <= response.status < 300
    try:
        document = json.loads(response.body)
        if not success and json.is_too_deep(document, json.NESTING + _AROUND):
            raise ValueError("nested too deeply")  # as the parsers do, each at a limit of its own
    except ValueError:
        if success:
            raise DecodeError(_unreadable(response), status=response.status) from None
        return Envelope(error={"message": _unreadable(response)})
    if not isinstance(document, dict):
        return Envelope(document, error=None if success else {})
    ok = document.get("ok")
    if success and ok is True and "data" in document:
        return Envelope(document["data"], document.get("metadata"), None, "$.data", True)
    if ok is False or ("ok" in document and not _ENVELOPE.isdisjoint(document)):
        return _from_envelope(document, success, response.status)
    return Envelope(document, error=None if success else _bare_error(document))


def _from_envelope(document: dict[str, object], success: bool, status: int) -> Envelope:
    ok = document["ok"]
    if success and ok is True:
        return Envelope(document.get("data"), document.get("metadata"), root="$.data", enveloped=True)
    if success and ok is not False:
        raise DecodeError(f"$.ok: expected true or false, got {kind_of(ok)}", path="$.ok", status=status)
    error = document.get("error")
    if isinstance(error, str):
        error = {"message": error}
    fields = error if isinstance(error, dict) else document if error is None else {}
    return Envelope(metadata=document.get("metadata"), error=fields, root="$.error", enveloped=True)


def _bare_error(document: dict[str, object]) -> dict[str, object]:
    error = document.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {**document, "message": document.get("message", error)}
    return document


def _unreadable(response: Response) -> str:
    """Say why a response cannot be read, without quoting it: whatever it holds may be a secret."""
    if response.oversized:
        return f"the response is larger than {LARGEST_RESPONSE} bytes: check that base_url leads to the API"
    if (known := _by_status(response)) is not None:
        return known
    if not response.body:
        return "the response is empty: it may have been cut off"
    kind = response.headers.get("Content-Type", "no content type").partition(";")[0].strip().lower()
    if "html" in kind:
        kind = kind if kind in ("text/html", "application/xhtml+xml") else "HTML"
        return f"the response is a web page ({kind}), not JSON: check base_url, or look for a proxy or sign-in page"
    known = kind if kind in _KINDS or kind == "no content type" else "another content type"
    return f"the response is not valid JSON ({known}, {len(response.body)} bytes): it may have been cut off"


def add_advice(envelope: Envelope, advice: str) -> None:
    """Make the message of a refusal say what to do; a web server in between cannot know it."""
    fields = envelope.error or {}
    given = safe_text(fields.get("message"), ()) if envelope.enveloped else None
    envelope.error = {**fields, "message": f"{given}; {advice}" if given else advice}


def _by_status(response: Response) -> str | None:
    """Say what answered in the place of the service, if the status tells."""
    match response.status:
        case 407:
            return "a proxy asks for a user name and a password: check proxy="
        case 511:
            return "the network asks to sign in first: open any web page in a browser"
    return _redirect(response) if 300 <= response.status < 400 else None


def _redirect(response: Response) -> str:
    try:
        target = urlsplit(response.headers.get("Location", ""))
        host = f"[{target.hostname}]" if ":" in (target.hostname or "") else target.hostname
        origin = f"{target.scheme}://{host}" + (f":{target.port}" if target.port else "")
    except ValueError:
        origin = ""
    # Only its origin, as the rest of an address may hold a secret.
    to = (
        f" to {origin}"
        if re.fullmatch(r"https?://([a-z0-9.\-]{1,253}|\[[0-9a-f:.]{2,45}\])(:\d{1,5})?", origin)
        else ""
    )
    return f"the service sent a redirect{to}, which this client does not follow: check base_url"


def exact(number: float) -> Decimal:
    """Return an amount of money as the decimal that was sent, the shortest form of ``number``.

    Prices repeat, so they are cached; but a cache cannot tell 0.0 from -0.0.
    """
    return _exact(number) if number else Decimal(repr(number))


@functools.lru_cache(maxsize=1024, typed=True)
def _exact(number: float) -> Decimal:
    return Decimal(repr(number))


def metadata_of(envelope: Envelope) -> Metadata:
    """Return the metadata that can be read from any response, errors included: cost, vendor and request id."""
    return Metadata(request_id=request_id(envelope), cost_usd=cost_of(envelope), vendor=vendor_of(envelope))


def cost_of(envelope: Envelope) -> Decimal | None:
    """Return the cost of the call in USD; ``None`` if the envelope does not say."""
    metadata = envelope.metadata
    cost = metadata.get("cost_usd") if isinstance(metadata, dict) else None
    return exact(cost) if type(cost) is float or type(cost) is int else None


def request_id(envelope: Envelope) -> str | None:
    """Return the service's id of the call; ``None`` if the envelope has none."""
    return _metadata_text(envelope, "request_id")


def vendor_of(envelope: Envelope) -> str | None:
    """Return the vendor that carried out the call; ``None`` if the envelope does not say."""
    return _metadata_text(envelope, "vendor")


def _metadata_text(envelope: Envelope, name: str) -> str | None:
    metadata = envelope.metadata
    return _text(metadata.get(name)) if isinstance(metadata, dict) else None


def api_error_of(response: Response, envelope: Envelope, retry_after: float | None) -> APIError:
    """Return the exception for an error response, without the context of the call."""
    fields = envelope.error or {}
    code, retryable = safe_text(fields.get("code"), response.keys, LONGEST_NAME), fields.get("retryable")
    cls = api_error_class(response.status, code)
    details: dict[str, Any] = {}
    if cls is InsufficientCreditError:
        url = _checkout_url(fields)
        details["checkout_url"] = None if url is None else without_keys(url, response.keys)
    if cls in (RateLimitError, ServerError):
        details["retry_after"] = retry_after
    hint = safe_text(fields.get("hint"), response.keys)
    message = safe_text(fields.get("message"), response.keys) or hint or _default_message(response)
    if 300 <= response.status < 400 and "redirect" not in message:
        message = f"{_redirect(response)} ({message})"
    return cls(
        message,
        status=response.status,
        code=code,
        hint=hint,
        request_id=safe_text(request_id(envelope), response.keys, LONGEST_NAME),
        retryable=retryable if isinstance(retryable, bool) else None,
        **details,
    )


def _default_message(response: Response) -> str:
    return _by_status(response) or "the service gave no reason"


def _checkout_url(fields: Mapping[str, object]) -> str | None:
    details = fields.get("details")
    nested = details.get("checkout_url") if isinstance(details, dict) else None
    return _text(fields.get("checkout_url")) or _text(nested)


def safe_text(value: object, keys: Iterable[str], most: int = _LONGEST_TEXT) -> str | None:
    """Return a text of the service as an error may show it: short, without our key and the passwords of URIs."""
    text = _text(value)
    if text is None:
        return None
    # First what the error itself would leave out, as a key may be hidden in pieces.
    text = "".join(char for char in text[: 4 * _LONGEST_TEXT] if char.isprintable() or char.isspace())
    text = " ".join(mask_uri(word) for word in without_keys(text, keys).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def without_keys(text: str, keys: Iterable[str]) -> str:
    """Return a text without our API keys, also as URLs and web pages spell them, or broken by white space."""
    for key in keys:
        if len(key) >= _SHORTEST_KEY:
            spellings = (f"{re.escape(char)}|%{ord(char):02x}|&#{ord(char)};|{html.escape(char)}" for char in key)
            text = re.sub(
                r"(?:\s|\\[nrt]?)*".join(f"(?:{each})" for each in spellings), "***", text, flags=re.IGNORECASE
            )
    return text


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def kind_of(value: object) -> str:
    """Return the name of the JSON type of ``value``, for messages that must not show the value itself."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
    return "an object"
