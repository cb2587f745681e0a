"""Hash passwords the way Postgres stores them, so that statements, logs and `pg_stat_activity` never show them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64encode

_ROUNDS = 4096


def verifier(password: str) -> str:
    """Return the SCRAM-SHA-256 verifier (RFC 5803) of an ASCII password, for `CREATE ROLE ... PASSWORD`."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ROUNDS)
    client, server = (hmac.digest(salted, label, "sha256") for label in (b"Client Key", b"Server Key"))
    stored = hashlib.sha256(client).digest()
    return f"SCRAM-SHA-256${_ROUNDS}:{_text(salt)}${_text(stored)}:{_text(server)}"


def _text(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")
