"""The HTTP application: one handler for every capability, and endpoints for everything outside the API.

An endpoint handles all requests whose path begins with its name (the endpoint ``""`` handles ``/``) and has its own
rules for access; the host names of distributions lead to the endpoint ``edge``. Errors of endpoints use the same
envelope as those of the API.

A call passes these steps in order: check the host name, route to a capability, authenticate the key, apply the rate
limit and faults, parse the parameters, carry out the call, and wrap the result in the envelope.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from aiohttp import web

from infrai_async.capabilities import CAPABILITIES
from infrai_async.local._errors import RequestRefused, out_of_resources
from infrai_async.local.faults.injector import FaultInjector, after, before
from infrai_async.local.http.body import check_expectation, read_body
from infrai_async.local.http.call_log import ACCOUNT, CAPABILITY
from infrai_async.local.http.envelope import CallMetadata, encode, headers_of, success
from infrai_async.local.http.host_guard import HostGuard, check_own_page, is_edge
from infrai_async.local.http.params import (
    decompress,
    parse_body,
    parse_idempotency_key,
    parse_params,
    parse_query,
    unknown_fields,
)
from infrai_async.local.http.responses import refused
from infrai_async.local.http.router import Match, Router
from infrai_async.local.services import account, cdn, db, discovery, flags, storage
from infrai_async.local.services.auth import Keys
from infrai_async.local.services.base import ServiceCall, ServiceContext
from infrai_async.local.services.executor import Executor

SERVING: Final = (cdn, db, discovery, flags, storage, account)
"""The modules whose import registers the services."""
Endpoint: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_logger = logging.getLogger(__name__)


class Application:
    """Handle all HTTP requests to the gateway.

    Args:
        context: the context of the services.
        executor: carries out calls.
        guard: checks host names.
        keys: authenticates API keys.
        injector: applies the rate limit and faults.
        endpoints: the handlers for requests outside the API, by the first segment of the path.
    """

    def __init__(
        self,
        context: ServiceContext,
        executor: Executor,
        *,
        guard: HostGuard,
        keys: Keys,
        injector: FaultInjector,
        endpoints: Mapping[str, Endpoint],
    ) -> None:
        self._context = context
        self._executor = executor
        self._guard = guard
        self._keys = keys
        self._injector = injector
        self._endpoints = endpoints
        self._router = Router(CAPABILITIES.values())

    def serve_generation(self, generation: int | None) -> None:
        """Serve only the generation of routes with this index where there are two; ``None`` serves both."""
        self._router = Router(CAPABILITIES.values(), generation)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle a request; every error becomes a response."""
        answer = await self._answer_or_refuse(request)
        self._context.recent.note(request, answer)
        return answer

    async def _answer_or_refuse(self, request: web.BaseRequest) -> web.StreamResponse:
        metadata = CallMetadata()
        try:
            return await self._answer(request, metadata)
        except RequestRefused as refusal:
            return refused(refusal, metadata)
        except web.HTTPRequestEntityTooLarge:
            return refused(RequestRefused(413, "VALIDATION_ERROR", "the body is larger than 1 MiB"), metadata)
        except (web.RequestPayloadError, ConnectionResetError):
            return refused(RequestRefused(400, "VALIDATION_ERROR", "the body is incomplete or malformed"), metadata)
        except Exception as error:
            if (lacking := out_of_resources(error)) is not None:
                return refused(lacking, metadata)
            _logger.exception("request %s failed", metadata.request_id)
            return refused(
                RequestRefused(500, "INTERNAL_ERROR", "the local gateway failed; see its log for details"), metadata
            )

    async def _answer(self, request: web.BaseRequest, metadata: CallMetadata) -> web.StreamResponse:
        check_expectation(request)
        self._guard.check(request.headers.get("Host"))
        name = self._guard.check(request.host)  # an absolute request target overrides Host (RFC 9112, 3.2.2)
        endpoint = self._endpoints.get("edge" if is_edge(name) else request.rel_url.raw_path[1:].partition("/")[0])
        return await (self._call(request, metadata) if endpoint is None else endpoint(request))

    async def _call(self, request: web.BaseRequest, metadata: CallMetadata) -> web.StreamResponse:
        match = self._router.match(request.method, request.rel_url.raw_path)
        context = self._context.for_caller(request.host)
        request[CAPABILITY], authorization = match.capability.id, request.headers.get("Authorization", "")
        if match.capability.public and match.capability.mutates:
            check_own_page(request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin"), request.host)
        account = request[ACCOUNT] = "" if match.capability.public else await self._keys.account(authorization)
        fault = self._injector.admit(match.capability.id, account)
        try:
            await before(fault, match.capability.id, account, request, context)
            answer = await self._carry_out(request, match, account, metadata, context)
        except RequestRefused as refusal:
            answer = refused(refusal, metadata)
        return await after(request, answer, fault)

    async def _carry_out(
        self, request: web.BaseRequest, match: Match, account: str, metadata: CallMetadata, context: ServiceContext
    ) -> web.Response:
        call = await self._read(request, match, account, context)
        if match.capability.id.startswith("db."):
            await self._context.postgres_status.settle()
            self._context.check_postgres()
        outcome = await self._executor.execute(call)
        about = metadata.to_dict(outcome.nano)
        body = encode(outcome.data) if match.capability.bare else success(outcome.data, about)
        return web.Response(body=body, content_type="application/json", charset="utf-8", headers=headers_of(about))

    async def _read(self, request: web.BaseRequest, match: Match, account: str, context: ServiceContext) -> ServiceCall:
        capability = match.capability
        encoding = request.headers.get("Content-Encoding", "")
        body = parse_body(decompress(await read_body(request), encoding)) if capability.mutates else {}
        key = parse_idempotency_key(request.headers.get("Idempotency-Key"), body) if capability.mutates else None
        params = parse_params(match, parse_query(request.rel_url.raw_query_string), body)
        return ServiceCall(
            capability=capability,
            account=account,
            params=params,
            unknown=unknown_fields(capability, body),
            key=key,
            context=context,
        )
