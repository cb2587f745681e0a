"""aiohttp's low-level server, with error responses in the gateway's envelope for malformed requests."""

from __future__ import annotations

import asyncio

from aiohttp import web

from infrai_async.local._errors import RequestRefused
from infrai_async.local.http.envelope import CallMetadata
from infrai_async.local.http.responses import refused


class Server(web.Server):
    """Pass every request to one handler."""

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of one connection; it does not decompress bodies, which is left to the handler."""
        return _Connection(self, loop=asyncio.get_running_loop(), access_log=None, auto_decompress=False)  # type: ignore[arg-type] # AppRunner's too


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Respond to a request that cannot be parsed, in the envelope and without logging a traceback.

        The message names only the type of the error, because its text may quote a header that contains a secret.
        """
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        kind = f"the request is not valid HTTP ({type(exc).__name__})"
        answer = refused(RequestRefused(400, "VALIDATION_ERROR", kind), CallMetadata())
        answer.force_close()
        return answer
