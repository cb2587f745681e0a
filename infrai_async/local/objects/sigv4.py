"""Create and verify presigned URLs with AWS Signature Version 4, without I/O.

The URLs are those of the gateway's own objects or of an S3-compatible store. The path and query are signed in decoded
form, so clients may percent-encode them in any valid way.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import attrs

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_METHODS: Final = frozenset({"GET", "PUT"})
_TIME: Final = "%Y%m%dT%H%M%SZ"


@attrs.frozen(kw_only=True)
class Credentials:
    """An access key and its secret, which the repr omits."""

    id: str
    secret: str = attrs.field(repr=False)
    region: str
    token: str | None = attrs.field(default=None, repr=False)

    def scope(self, day: str) -> str:
        """Return the credential scope for a day, given as ``YYYYMMDD``."""
        return f"{day}/{self.region}/s3/aws4_request"


class BadSignature(Exception):
    """The signature does not match the request, or the URL has expired.

    Attributes:
        hint: what to do about it, if that can be told.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def presign(
    credentials: Credentials,
    method: str,
    url: str,
    *,
    at: datetime,
    seconds: int,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Return a presigned URL that is valid for ``seconds`` from ``at``.

    Args:
        credentials: the credentials to sign with.
        method: the HTTP method that the URL permits.
        url: an absolute URL without a query, its path percent-encoded.
        at: the time of signing; fractions of a second are ignored.
        seconds: the lifetime of the URL.
        query: further query parameters to sign.
        headers: headers that the request must send, besides ``Host``.
    """
    target, moment = urlsplit(url), at.astimezone(UTC).strftime(_TIME)
    signed = {"host": target.netloc} | {name.lower(): value for name, value in (headers or {}).items()}
    fields = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{credentials.id}/{credentials.scope(moment[:8])}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": ";".join(sorted(signed)),
        **({} if credentials.token is None else {"X-Amz-Security-Token": credentials.token}),
        **(query or {}),
    }
    seal = _signature(credentials, moment, method, unquote(target.path), fields.items(), signed)
    return f"{url}?{_encode(fields.items())}&X-Amz-Signature={seal}"


def verify(
    credentials: Credentials,
    method: str,
    path: str,
    query: Iterable[tuple[str, str]],
    headers: Mapping[str, str],
    *,
    now: datetime,
) -> None:
    """Verify that a request uses a URL created by ``presign``.

    Args:
        credentials: the credentials that must have signed it.
        method: the method of the request.
        path: the decoded path of the request.
        query: all decoded query parameters of the request.
        headers: the headers of the request, in a case-insensitive mapping, with the ``Host`` that was signed.
        now: the current time.

    Raises:
        BadSignature: if the signature does not match or the URL has expired.
    """
    pairs = list(query)
    fields = dict(pairs)
    moment, seal = fields.get("X-Amz-Date", ""), fields.pop("X-Amz-Signature", "")
    signed = {name: headers.get(name, "") for name in fields.get("X-Amz-SignedHeaders", "").split(";")}
    others = [(name, value) for name, value in pairs if name != "X-Amz-Signature"]
    expected = _signature(credentials, moment, method, path, others, signed)
    if len(pairs) - len(others) != 1 or not hmac.compare_digest(expected.encode(), seal.encode()):
        raise _unlike(credentials, moment, method, path, others, signed, seal)
    # The signature is valid, so the remaining fields have the form that presign gave them.
    begin = datetime.strptime(moment, _TIME).replace(tzinfo=UTC)
    if now >= begin + timedelta(seconds=int(fields["X-Amz-Expires"])):
        raise BadSignature("the URL has expired")


def _unlike(
    credentials: Credentials,
    moment: str,
    method: str,
    path: str,
    query: list[tuple[str, str]],
    signed: Mapping[str, str],
    seal: str,
) -> BadSignature:
    """Return the error for a signature that does not match, with what can be told of the reason."""
    for other in _METHODS - {method}:
        if hmac.compare_digest(_signature(credentials, moment, other, path, query, signed).encode(), seal.encode()):
            return BadSignature(f"the URL is for {other}, not for {method}", f"presign the object for {method}")
    names = sorted(name for name in signed if name not in ("", "host"))
    if not names:
        return BadSignature("the signature does not match the request", "use the URL exactly as presign returned it")
    sent = ", ".join(f"{name.title()} was {'sent' if signed[name] else 'not sent'}" for name in names)
    return BadSignature(
        f"the signature does not match the request: it covers {', '.join(name.title() for name in names)}",
        f"send exactly the headers that presign returned with the URL ({sent})",
    )


def _signature(
    credentials: Credentials,
    moment: str,
    method: str,
    path: str,
    query: Iterable[tuple[str, str]],
    headers: Mapping[str, str],
) -> str:
    names = sorted(headers)
    request = "\n".join(
        (
            method,
            quote(path, safe="/~"),
            _encode(query),
            *(f"{name}:{' '.join(headers[name].split())}" for name in names),
            "",
            ";".join(names),
            "UNSIGNED-PAYLOAD",
        )
    )
    digest = hashlib.sha256(request.encode(errors="surrogateescape")).hexdigest()
    scope = credentials.scope(moment[:8])
    text = "\n".join((_ALGORITHM, moment, scope, digest))
    key = f"AWS4{credentials.secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def _encode(query: Iterable[tuple[str, str]]) -> str:
    return "&".join(map("=".join, sorted((quote(name, safe="~"), quote(value, safe="~")) for name, value in query)))
