"""aiohttp's server, with our answers to what never becomes a request."""

from __future__ import annotations

import asyncio

from aiohttp import web

from infrai_async.local._errors import RequestRefused
from infrai_async.local.http.envelope import CallMetadata
from infrai_async.local.http.responses import refused


class Server(web.Server):
    """Hands every request to one handler."""

    def __call__(self) -> web.RequestHandler:
        """Return what speaks HTTP on one connection; what a body was encoded with is its receiver's to undo."""
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
        """Refuse what the parser refuses in the envelope; somebody else's mistake is nothing to log a traceback for.

        What it was is said by its kind alone: a header that is too long may be a secret.
        """
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        kind = f"this is no HTTP request that can be read ({type(exc).__name__})"
        answer = refused(RequestRefused(400, "VALIDATION_ERROR", kind), CallMetadata())
        answer.force_close()
        return answer
