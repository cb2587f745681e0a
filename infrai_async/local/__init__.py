"""The local gateway: Infrai's API on this machine, with a real state and a real Postgres (extra ``local``).

It imports the capability table and the models, and nothing else of the package; the client never imports it. Inside:

    _gateway    starts and closes everything            _service      what a service is; prices
    _app _server   HTTP: one handler for all calls      _db _storage _cdn _flags _wallet _discovery   the services
    _routes _parse _envelope _refusal _hosts   HTTP's plain parts, without I/O
    _execute    once, paid for, remembered              _rollout      what a flag evaluates to
    _store      the writer thread; _state: the tables   _postgres ... databases on a real server
    _shared     the state in Postgres, for several      _presence   finishes what a dead gateway began
    _keeper     Postgres again when it died             _closing _lock   ends wholly; one gateway at a time
    _janitor    clears up in the background             _keyring      every secret, from one
"""

from __future__ import annotations

try:
    from infrai_async.local._gateway import LocalGateway
    from infrai_async.local._lock import DirectoryInUse
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"the local gateway needs {_error.name}: pip install 'infrai-async[local]', or '.[local]' in a checkout",
        name=_error.name,
    ) from _error

__all__ = ["DirectoryInUse", "LocalGateway"]
