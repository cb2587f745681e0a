"""Derive every secret of a gateway from one root secret, kept in the data directory or in the shared state.

No other secret is stored: an API key is recognized by its hash, and a password is derived from the name of its
database. The same data directory, or the same shared state, therefore yields the same keys and passwords again.
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
"""The account that every gateway has from its first start."""


class Keyring:
    """Derive keys and passwords from a root secret."""

    __slots__ = ("_root",)

    def __init__(self, root: bytes) -> None:
        self._root = root

    @classmethod
    def open(cls, directory: Path) -> Keyring:
        """Read the root secret of a data directory, or create it durably."""
        path = directory / "secret"
        if not path.exists():
            write_whole(path, secrets.token_bytes(32))
        return cls(path.read_bytes())

    @classmethod
    def shared(cls, connection: Connection) -> Keyring:
        """Read the root secret of a shared state, or create it.

        It runs as a job of the store, so two gateways that start at the same time agree on one secret.
        """
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
        """Return the secret that signs the URLs of a bucket's objects."""
        return self._derive("objects", bucket)

    def mark(self) -> str:
        """Return a public identifier of this keyring, which reveals none of its secrets."""
        return "infrai-async " + self._derive("mark", "")[:32]


def hash_key(api_key: str) -> str:
    """Return the hash by which an API key is looked up; comparing hashes leaks nothing about the key through timing."""
    return hashlib.sha256(api_key.encode(errors="surrogateescape")).hexdigest()
