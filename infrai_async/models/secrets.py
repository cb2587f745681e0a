"""Masks of the secrets that models hold."""

from __future__ import annotations

import re


def mask_uri(uri: str) -> str:
    """Return a connection URI with its password replaced by ``***``.

    Everything between the colon after the user name and the last ``@`` counts as the password, so that no part of a
    password with unescaped punctuation is shown. A ``password=`` parameter is masked too.
    """
    masked = re.sub(r"(?<=//)([^:@/]*):.*@", r"\1:***@", uri, flags=re.DOTALL)
    return re.sub(r"(?is)(password\s*=\s*)('(?:[^'\\]|\\.)*'(?![^&\s])|(?:\\.|[^&\s])+)", r"\1***", masked)


def repr_uri(uri: str) -> str:
    """Return the repr of a connection URI with its password masked."""
    return repr(mask_uri(uri))


def repr_signed(url: str) -> str:
    """Return the repr of a presigned URL without its query, which carries the signature."""
    return repr(mask_signed(url))


def mask_signed(url: str) -> str:
    """Return a presigned URL with its query replaced by ``***``."""
    return url.partition("?")[0] + ("?***" if "?" in url else "")


def repr_secret(_: object) -> str:
    """Return a repr that reveals nothing of a secret."""
    return "'***'"
