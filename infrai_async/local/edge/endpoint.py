"""The endpoint of the edge: serve requests to distributions from the cache or from their origins.

Under its own host name a distribution is a separate origin to browsers. Under ``/edge/<id>`` it shares the gateway's
origin; there its pages are sandboxed, so that none of them can read the dashboard or submit the checkout form.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from multidict import CIMultiDict

from infrai_async.local._errors import RequestRefused, not_found
from infrai_async.local.edge.config import DistributionSettings
from infrai_async.local.edge.counters import TrafficCounters
from infrai_async.local.edge.fetcher import CacheHit, CacheRequest, Fetcher
from infrai_async.local.edge.mount import mount
from infrai_async.local.edge.origins import (
    FAILURES,
    VIA,
    Origins,
    as_refusal,
    check_target,
    end_to_end,
    loops,
    origin_url,
    request_headers,
)
from infrai_async.local.edge.policy import Headers
from infrai_async.local.edge.spool import BodyIncomplete
from infrai_async.local.http.body import let_body_come
from infrai_async.local.http.conditional import http_date, select
from infrai_async.local.http.host_guard import host_name, is_edge
from infrai_async.local.http.responses import abort
from infrai_async.local.services.base import Address, Data, PostgresStatus
from infrai_async.local.services.cdn import id_of_edge
from infrai_async.local.state.store import Store

_AT_ONCE: Final = 2**16
"""Responses of up to this many bytes are sent in one piece with their headers."""
_SANDBOX: Final = "sandbox allow-downloads allow-forms allow-modals allow-popups allow-scripts"
_NEVER_SENT: Final = ("cache-tag", "surrogate-key", "age")
_FOR_HTTPS: Final = "use https, through a proxy that terminates TLS and sets X-Forwarded-Proto: https"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Edge:
    """Handle requests to distributions.

    Args:
        store: the state.
        directory: the directory for large cached bodies.
        address: the gateway's own address, which must not be used as an origin.
        postgres_status: the gateway's Postgres server, which must not be used as an origin either.
    """

    def __init__(self, store: Store, directory: Path, address: Address, postgres_status: PostgresStatus) -> None:
        self._address = address
        self._postgres_status = postgres_status
        self._origins = Origins(self._owned)
        self._fetcher = Fetcher(self._origins, directory)
        self._distributions = DistributionSettings(store, self._fetcher.drop)
        self._counters = TrafficCounters(store)

    def start(self) -> None:
        """Start to write the traffic counters to the state periodically."""
        self._counters.start()

    def changed(self, id: str) -> None:
        """Invalidate what the edge knows about a distribution."""
        self._distributions.changed(id)

    async def count_traffic(self) -> None:
        """Write the traffic counters to the state now."""
        await self._counters.flush()

    async def aclose(self) -> None:
        """Cancel requests to origins, and write the traffic counters to the state."""
        await self._fetcher.aclose()
        await self._origins.aclose()
        await self._counters.aclose()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle a request that addresses a distribution by path or by host name.

        Raises:
            RequestRefused: if the distribution does not exist or does not allow the request, or its origin failed.
        """
        id, target = _addressed(request)
        settings = await self._distributions.settings(id)
        if settings is None:
            raise not_found("CDN_DISTRIBUTION", id)
        _check(request, settings)
        try:
            if request.method not in ("GET", "HEAD"):
                return await self._pass(request, settings, target)
            cache_request = CacheRequest(request.method, (id, target), request.headers, request.remote, settings)
            async with self._fetcher.find(cache_request) as hit:
                return await self._send(request, id, hit)
        except RequestRefused:
            self._counters.count(id, hit=False, size=0)
            raise

    def _owned(self) -> Iterable[int]:
        """Return the ports of the gateway and its Postgres on this machine, which must not be used as origins."""
        postgres = self._postgres_status.server
        addresses = [self._address.base_url] + ([] if postgres is None else [postgres.uri("", "")])
        return {port for address in addresses if (port := urlsplit(address).port)}

    async def _send(self, request: web.BaseRequest, id: str, hit: CacheHit) -> web.StreamResponse:
        status, headers, start, length = _selected(request, id, hit)
        left = 0 if request.method == "HEAD" else sys.maxsize if length is None else length
        body, sent = hit.entry.body, 0
        response = web.StreamResponse(status=status, headers=headers)
        try:
            with body.reader(start) as reader:
                if left <= min(_AT_ONCE, body.size - start):
                    chunk = await reader.read(left) if left else b""
                    sent = len(chunk)
                    return web.Response(status=status, headers=headers, body=chunk)
                await response.prepare(request)
                while left and (chunk := await reader.read(left)):
                    await response.write(chunk)
                    sent, left = sent + len(chunk), left - len(chunk)
                await response.write_eof()
        except (BodyIncomplete, ConnectionError):
            abort(request)
        finally:
            self._counters.count(id, hit=hit.label != "MISS", size=sent)
        return response

    async def _pass(self, request: web.BaseRequest, settings: Data, target: str) -> web.StreamResponse:
        """Stream a request to the origin and its response back, without caching."""
        url, id, sent = origin_url(settings["origin"], target), settings["id"], 0
        asking = request_headers(request.headers, request.remote, cached=False)
        body = request.content if request.body_exists else None
        await let_body_come(request)
        response: web.StreamResponse | None = None
        try:
            async with self._origins.request(request.method, url, asking, body) as answered:
                if request.method not in _SAFE and answered.status < 400:
                    self._fetcher.forget((id, target))
                headers = end_to_end(answered.headers, _NEVER_SENT)
                _sign(request, id, headers, answered.headers, "MISS")
                response = web.StreamResponse(status=answered.status, headers=headers)
                await response.prepare(request)
                async for chunk in answered.content.iter_chunked(2**16):
                    await response.write(chunk)
                    sent += len(chunk)
                await response.write_eof()
        except FAILURES as error:
            if response is None or not response.prepared:
                raise as_refusal(error) from error
            abort(request)
        self._counters.count(id, hit=False, size=sent)
        return response


def _addressed(request: web.BaseRequest) -> tuple[str, str]:
    """Return the distribution that a request addresses, and the undecoded path and query within it."""
    path, query = request.rel_url.raw_path, request.rel_url.raw_query_string
    if _has_own_name(request):
        id = id_of_edge(host_name(request.host))
    else:
        id, _, path = path.removeprefix("/edge").removeprefix("/").partition("/")
        path = "/" + path
    return id, check_target(f"{path}?{query}" if query else path)


def _has_own_name(request: web.BaseRequest) -> bool:
    """Return whether a request addresses a distribution by its host name."""
    return is_edge(host_name(request.host))


def _check(request: web.BaseRequest, settings: Data) -> None:
    """Raise if a distribution does not allow a request."""
    allowed = [method.upper() for method in settings["allowed_methods"]]
    if not settings["enabled"]:
        raise RequestRefused(403, "CDN_DISTRIBUTION_DISABLED", "this distribution is disabled")
    if settings["https_only"] and request.headers.get("X-Forwarded-Proto", "").lower() != "https":
        raise RequestRefused(403, "CDN_HTTPS_ONLY", "this distribution accepts only https", hint=_FOR_HTTPS)
    if request.method not in allowed:
        headers = {"Allow": ", ".join(allowed)}
        raise RequestRefused(405, "METHOD_NOT_ALLOWED", "this distribution does not allow this method", headers=headers)
    if request.headers.get("Upgrade", "").lower() == "websocket":
        raise RequestRefused(
            501,
            "NOT_SUPPORTED",
            "the edge does not support WebSockets",
            hint="connect to the origin directly",
            retryable=False,
        )
    if loops(request.headers):
        raise RequestRefused(
            508, "CDN_LOOP", "the request has already passed through this edge: its origin leads back", retryable=False
        )


def _selected(request: web.BaseRequest, id: str, hit: CacheHit) -> tuple[int, CIMultiDict[str], int, int | None]:
    """Return the status, the headers, and the start and length (if known) of the part of an entry to send."""
    answer, headers = hit.entry.answer, hit.entry.answer.headers.copy()
    for name in _NEVER_SENT:
        headers.popall(name, None)
    size = _content_length(headers)
    status, start, length = answer.status, 0, size
    if answer.status == 200:
        etag, modified = headers.get("ETag"), http_date(headers.get("Last-Modified"))
        chosen = select(request.method, request.headers, etag=etag, modified=modified, size=size)
        status, start, length = chosen.status, chosen.start, chosen.length
        headers.update(chosen.headers)
    _describe(headers, status, length)
    headers["Age"] = str(max(0, int(time.monotonic() - answer.born)))
    _sign(request, id, headers, answer.headers, hit.label)
    return status, headers, start, length


def _sign(request: web.BaseRequest, id: str, headers: CIMultiDict[str], origins: Headers, label: str) -> None:
    """Add the edge's own headers, and under the gateway's origin the sandbox."""
    headers["X-Cache"] = label
    headers["Via"] = ", ".join((*origins.getall("Via", ()), VIA))
    if not _has_own_name(request):
        headers.add("Content-Security-Policy", _SANDBOX)
        mount(headers, f"/edge/{id}")


def _content_length(headers: Headers) -> int | None:
    return int(headers["Content-Length"]) if "Content-Length" in headers else None


def _describe(headers: CIMultiDict[str], status: int, length: int | None) -> None:
    """Make the headers describe the part of the body that is sent."""
    if status in (204, 304, 412, 416):
        for name in ("Content-Encoding", "Content-Length", "Content-Type"):
            headers.popall(name, None)
    if length is not None and status not in (204, 304):
        headers["Content-Length"] = str(length)
