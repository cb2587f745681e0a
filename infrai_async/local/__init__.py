"""The local gateway: Infrai's API on this machine, with a real state and a real Postgres (extra ``local``).

It imports the capability table and the models, and nothing else of the package; the client never imports it. Inside:

    _gateway    starts and closes everything            _service      what a service is; prices
    _app _server   HTTP: one handler for all calls      _db _storage _cdn _flags _wallet _discovery   the services
    _routes _parse _envelope _refusal _hosts   HTTP's plain parts, without I/O
    _auth       whose key it is                         _checkout     the page on which a top-up is paid
    _trouble    what _limit and _faults say, done       _controls     both over HTTP, for this machine alone
    _execute    once, paid for, remembered              _evaluation   what a flag evaluates to
    _operators _rules   whom a flag's rules are for     _rollout      who is inside, and gets which variant
    _edge       what a distribution answers             _fetching _shelf _body   what is kept, and how it is got
    _caching    what may be kept, how long, for whom    _distributions _traffic  what the edge knows and counts
    _origin     how origins are asked, and which
    _store      the writer thread; _state: the tables   _postgres ... databases on a real server
    _objects    bytes in and out by presigned URL       _blobs _s3    where the bytes are: here, or in a store
    _transfer   a body to a file, a file to an answer
    _sigv4 _conditional   signatures, ranges and conditions, without I/O
    _shared     the state in Postgres, for several      _presence   finishes what a dead gateway began
    _keeper     Postgres again when it died             _closing _lock   ends wholly; one gateway at a time
    _janitor    clears up in the background             _keyring      every secret, from one
    _page       what a person sees at /                 _sections _markup _overview _recent   what is on it
"""

from __future__ import annotations

try:
    from infrai_async.local._gateway import LocalGateway
    from infrai_async.local._locks import DirectoryInUse
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"the local gateway needs {_error.name}: pip install 'infrai-async[local]', or '.[local]' in a checkout",
        name=_error.name,
    ) from _error

__all__ = ["DirectoryInUse", "LocalGateway"]
