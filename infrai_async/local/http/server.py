"""aiohttp's low-level server, with error responses in the gateway's envelope for malformed requests."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from infrai_async.local._errors import RequestRefused, out_of_resources
from infrai_async.local.http.body import PATIENCE
from infrai_async.local.http.envelope import CallMetadata
from infrai_async.local.http.responses import refused

_logger = logging.getLogger(__name__)
_LONGEST_LINE: Final = 2**16  # bytes of the request line; clients may send a flag's context in it (CONTRACT.md D7)
_LONGEST_FIELD: Final = 2**15 + 2**8  # bytes of a header field: cookies of all local programs add up in a browser


@contextmanager
def told_once_of_lacking_descriptors() -> Iterator[None]:
    """Log one line a minute while the running event loop can accept no connections, instead of many tracebacks."""
    loop = asyncio.get_running_loop()
    if loop.get_exception_handler() is not None:  # whoever set it decides
        yield
        return
    told = -math.inf

    def tell(loop: asyncio.AbstractEventLoop, about: dict[str, Any]) -> None:
        nonlocal told
        error = about.get("exception")
        refusal = out_of_resources(error) if isinstance(error, OSError) else None
        if refusal is None:
            loop.default_exception_handler(about)
        elif loop.time() - told >= PATIENCE:
            told = loop.time()
            _logger.error("%s, so new connections wait: %s", refusal.message, refusal.hint)

    loop.set_exception_handler(tell)
    try:
        yield
    finally:
        if loop.get_exception_handler() is tell:
            loop.set_exception_handler(None)


class Server(web.Server):
    """Pass every request to one handler."""

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of one connection; it does not decompress bodies, which is left to the handler."""
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # AppRunner's too
            auto_decompress=False,
            keepalive_timeout=PATIENCE,  # also for a head that does not come, or not to its end
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_FIELD,
        )


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
        answer = refused(_refusal(exc), CallMetadata())
        answer.force_close()
        return answer


def _refusal(error: BaseException | None) -> RequestRefused:
    """Return the response to a request that cannot be parsed."""
    if isinstance(error, LineTooLong) and error.args[1] == _LONGEST_LINE:
        message = f"the URL is longer than {_LONGEST_LINE:,} bytes"
        return RequestRefused(414, "VALIDATION_ERROR", message, hint="send less in the query, such as in context")
    if isinstance(error, LineTooLong):
        message = f"a header is longer than {_LONGEST_FIELD:,} bytes"
        return RequestRefused(431, "VALIDATION_ERROR", message, hint="delete the cookies of this host, or send less")
    if isinstance(error, BadHttpMessage) and error.message.startswith("Too many headers"):
        return RequestRefused(431, "VALIDATION_ERROR", "the request has too many headers", hint="send fewer headers")
    return RequestRefused(400, "VALIDATION_ERROR", f"the request is not valid HTTP ({type(error).__name__})")
