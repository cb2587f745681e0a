"""The dashboard at ``/``: what the gateway has and did, for people on this machine. It needs no key and shows none."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Final

import attrs
from aiohttp import web

from infrai_async.local._errors import RequestRefused, wrong_method
from infrai_async.local.http.host_guard import check_peer
from infrai_async.local.http.params import parse_query
from infrai_async.local.pages.queries import Overview, read
from infrai_async.local.pages.rendering import policy_hash, render, resource
from infrai_async.local.services.base import Address, ServiceContext

_STYLE: Final = resource("page.css")
_SCRIPT: Final = resource("page.js")
_HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {policy_hash(_STYLE)}; script-src {policy_hash(_SCRIPT)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def answer(context: ServiceContext, request: web.BaseRequest) -> web.Response:
    """Answer with the page, or with 304 if the reader already has it as it is.

    Raises:
        RequestRefused: if the request comes from another machine, has another method or asks for another page.
    """
    check_peer(request.remote, request.headers.get("CDN-Loop"))
    if request.rel_url.raw_path != "/":
        raise RequestRefused(404, "NOT_FOUND", "there is no such page", hint="GET / is the gateway's page")
    if request.method not in ("GET", "HEAD"):
        raise wrong_method(request.method, ("GET", "HEAD"))
    account = parse_query(request.rel_url.raw_query_string).get("account")
    context = attrs.evolve(context, address=Address(context.address.base_url))  # for a reader on this machine
    await context.count_traffic()
    overview = await context.store.read(partial(read, context=context, account=account))
    body = page(overview, context).encode()
    tag = hashlib.sha256(body).hexdigest()[:32]
    same = any(known.value == tag for known in request.if_none_match or ())
    response = web.Response(status=304, headers=_HEADERS) if same else _whole(body)
    response.etag = tag
    return response


def _whole(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="text/html", charset="utf-8", headers=_HEADERS)


def page(overview: Overview, context: ServiceContext) -> str:
    """Return the whole page."""
    return render(
        "dashboard.html",
        style=_STYLE,
        script=_SCRIPT,
        overview=overview,
        calls=context.recent.newest(),
        base_url=context.base_url,
        port=context.base_url.rpartition(":")[2],
        postgres_version=context.postgres and context.postgres.version,
        postgres_missing=context.postgres_missing,
        counts_objects=context.s3 is None,  # only the other store can count what is in it
    )
