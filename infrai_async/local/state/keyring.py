"""Every secret of a gateway, derived from one: a file's in the data directory, or that of a shared state.

So no other secret is kept anywhere: an account's key is known by its hash, a database by its name, and the same data
directory, or the same shared state, gives the same key and the same passwords again.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._files import write_whole
from infrai_async.local.state.tables import ROOT

FIRST_ACCOUNT: Final = "acc_local"
"""The account that a gateway has from the start."""


class Keyring:
    """Derives keys and passwords from ``root``, and shows none of them."""

    __slots__ = ("_root",)

    def __init__(self, root: bytes) -> None:
        self._root = root

    @classmethod
    def open(cls, directory: Path) -> Keyring:
        """Read the data directory's secret, or make one that outlives a crash."""
        path = directory / "secret"
        if not path.exists():
            write_whole(path, secrets.token_bytes(32))
        return cls(path.read_bytes())

    @classmethod
    def shared(cls, connection: Connection) -> Keyring:
        """Read the secret of the state that gateways share, or make it: a job, so that two at once make one."""
        secret = connection.scalar(sa.select(ROOT.c.secret))
        if secret is None:
            secret = secrets.token_bytes(32)
            connection.execute(ROOT.insert().values(secret=secret))
        return cls(secret)

    def _derive(self, purpose: str, name: str) -> str:
        return hmac.new(self._root, f"{purpose}\0{name}".encode(), hashlib.sha256).hexdigest()[:48]

    def api_key(self, account: str) -> str:
        """Return the API key of an account."""
        return "ifr_" + self._derive("api key", account)

    def password(self, database: str) -> str:
        """Return the password of a database's role."""
        return self._derive("database", database)

    def signing_secret(self, bucket: str) -> str:
        """Return what the URLs of a bucket's objects are signed with."""
        return self._derive("objects", bucket)

    def mark(self) -> str:
        """Return what names this keyring in public, and so whatever belongs to it; no secret follows from it."""
        return "infrai-async " + self._derive("mark", "")[:32]


def hash_key(api_key: str) -> str:
    """Return what the state keeps of an API key; equal hashes give nothing away through timing."""
    return hashlib.sha256(api_key.encode(errors="surrogateescape")).hexdigest()
