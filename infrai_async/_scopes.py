"""What the block that a call is made in says of it."""

from __future__ import annotations


def current_operation() -> str | None:
    """Return the name of the operation that the call is part of, ``None`` outside of any."""
    return None
