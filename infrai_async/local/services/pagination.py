"""Keyset pagination: a cursor holds the position of the last item, so rows may come and go between two pages."""

from __future__ import annotations

import base64
import re
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from infrai_async.local._errors import invalid
from infrai_async.local.services.base import Data, ServiceCall
from infrai_async.local.state.tables import document

_DEFAULT: Final = 100
_MOST: Final = 1000


def list_page(call: ServiceCall, connection: Connection, table: Table, **where: Any) -> Data:
    """Return a page of the account's rows, oldest first.

    Raises:
        RequestRefused: 400, if ``limit`` or ``cursor`` is invalid.
    """
    limit = call.params.get("limit", _DEFAULT)
    if not 1 <= limit <= _MOST:
        raise invalid(f"limit must be between 1 and {_MOST}", limit=f"between 1 and {_MOST}")
    query = sa.select(table).where(table.c.account_id == call.account, table.c.seq > _after(call)).filter_by(**where)
    rows = [*connection.execute(query.order_by(table.c.seq).limit(limit + 1))]
    following = _cursor(call, rows[limit - 1].seq) if len(rows) > limit else None
    return {"items": [document(row) for row in rows[:limit]], "next_cursor": following}


def _cursor(call: ServiceCall, seq: int) -> str:
    return base64.urlsafe_b64encode(f"{call.capability.id}:{seq}".encode()).decode().rstrip("=")


def _after(call: ServiceCall) -> int:
    cursor = call.params.get("cursor")
    if cursor is None:
        return 0
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        text = ""
    place = re.fullmatch(rf"{re.escape(call.capability.id)}:([0-9]{{1,18}})", text)
    if place is None:
        raise invalid(
            "cursor does not belong to this list; pass next_cursor of its previous page",
            cursor="next_cursor of a page of the same list",
        )
    return int(place[1])
