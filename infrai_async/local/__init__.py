"""The local gateway: Infrai's API on this machine, with a real state and a real Postgres (extra ``local``).

It imports the capability table, the models, and ``_running``, where it says that it runs, and nothing else of the
package; the client never imports it. A wing imports wings that stand above it here, and none below:

    _errors _files _locks   what is refused; files that are whole or not there; one process at a time
    postgres            a real server: found, started, guarded, and its databases copied
    http                routes, parameters, the envelope, conditions, refusals; no service
    targeting           what a flag evaluates to, and for whom; no I/O at all
    state               the tables, the thread that writes them, and the one secret that all others follow from
    objects             the bytes of stored objects, and the signatures of their URLs
    services            what each capability does, once and paid for
    edge                the cache in front of a distribution's origin
    pages               what a person sees: the gateway's page, and the one on which a top-up is paid
    faults              failures and rate limits on demand
    lifecycle           what runs beside the calls: Postgres kept alive, other gateways watched, what is deleted cleared
    objects_endpoint    bytes in and out by presigned URL
    _app                one handler for every capability
    _gateway            the composition root: builds everything, starts it, closes it

The five from ``edge`` to ``objects_endpoint`` stand side by side and do not import each other, nor do ``postgres``,
``http`` and ``targeting``; a test holds the code to this list.
"""

from __future__ import annotations

try:
    import fcntl as _fcntl  # noqa: F401 - POSIX systems have it, and no package brings it
except ModuleNotFoundError:
    raise ImportError(
        "the local gateway runs on Linux and macOS, not on Windows: run it in WSL, "
        "or give the client the base_url of a gateway on another machine",
        name=__name__,
    ) from None

try:
    from infrai_async.local._gateway import LocalGateway
    from infrai_async.local._locks import DirectoryInUse
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"the local gateway needs {_error.name}: pip install 'infrai-async[local]', or '.[local]' in a checkout",
        name=_error.name,
    ) from _error

__all__ = ["DirectoryInUse", "LocalGateway"]
