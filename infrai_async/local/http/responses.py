"""Send errors in their envelope, and abort connections whose response cannot be completed."""

from __future__ import annotations

from aiohttp import web

from infrai_async.local._errors import RequestRefused
from infrai_async.local.http.envelope import CallMetadata, failure, headers_of


def refused(refusal: RequestRefused, metadata: CallMetadata) -> web.Response:
    """Return the HTTP response for a refused request."""
    about = metadata.to_dict()
    return web.Response(
        status=refusal.status,
        body=failure(refusal.to_dict(), about),
        content_type="application/json",
        charset="utf-8",
        headers=headers_of(about) | refusal.headers,
    )


def abort(request: web.BaseRequest) -> None:
    """Abort a connection whose response is incomplete, so that the client cannot mistake it for a complete one."""
    if request.transport is not None:
        request.transport.abort()
