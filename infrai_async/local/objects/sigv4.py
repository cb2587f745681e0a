"""AWS Signature Version 4 in a URL's query, without I/O: what S3's presigned URLs are signed with.

The same few lines make URLs for the gateway's own objects, check them, and make those of an S3-compatible store.
A path and a query are signed as they are once decoded, so a client may write their escapes as it likes.
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
_TIME: Final = "%Y%m%dT%H%M%SZ"


@attrs.frozen(kw_only=True)
class Credentials:
    """Who signs; shows no secret."""

    id: str
    secret: str = attrs.field(repr=False)
    region: str
    token: str | None = attrs.field(default=None, repr=False)

    def scope(self, day: str) -> str:
        """Return what the signatures of one day are good for."""
        return f"{day}/{self.region}/s3/aws4_request"


class BadSignature(Exception):
    """A URL was not signed by us, or was changed since, or is used for something else, or too late."""


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
    """Return ``url``, which has no query yet, signed for ``seconds`` from ``at``.

    Args:
        credentials: who signs.
        method: what the URL is for.
        url: an absolute URL, its path percent-encoded.
        at: the time of signing; its fraction of a second does not count.
        seconds: how long it works.
        query: further parameters, signed along.
        headers: what a request has to send along, besides ``Host``.
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
    """Check that a request is one that ``presign`` made a URL for.

    Args:
        credentials: who should have signed.
        method: the request's.
        path: the request's, decoded.
        query: the request's parameters, decoded, every one of them.
        headers: the request's, found whatever their case, with the ``Host`` that was signed.
        now: the time.

    Raises:
        BadSignature: it is none, or its time is over.
    """
    pairs = list(query)
    fields = dict(pairs)
    moment, seal = fields.get("X-Amz-Date", ""), fields.pop("X-Amz-Signature", "")
    signed = {name: headers.get(name, "") for name in fields.get("X-Amz-SignedHeaders", "").split(";")}
    others = [(name, value) for name, value in pairs if name != "X-Amz-Signature"]
    expected = _signature(credentials, moment, method, path, others, signed)
    if len(pairs) - len(others) != 1 or not hmac.compare_digest(expected.encode(), seal.encode()):
        raise BadSignature("the signature is not that of this request")
    # Signed by us, so everything else is as we wrote it.
    begin = datetime.strptime(moment, _TIME).replace(tzinfo=UTC)
    if now >= begin + timedelta(seconds=int(fields["X-Amz-Expires"])):
        raise BadSignature("the URL has expired")


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
