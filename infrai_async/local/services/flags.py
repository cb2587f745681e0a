"""The ``flags`` service: flag definitions under optimistic concurrency control, and their evaluation."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._errors import RequestRefused, conflict, invalid
from infrai_async.local.services.base import (
    Data,
    ServiceCall,
    ServiceContext,
    capability,
    check_name,
    existing,
    iso,
    new_id,
)
from infrai_async.local.services.pagination import list_page
from infrai_async.local.state.tables import FLAGS, add, document, find, publish
from infrai_async.local.targeting.evaluation import Evaluation, checked, evaluate
from infrai_async.local.targeting.rollout import FIELDS, type_of
from infrai_async.models import JSON

_DEFINITION: Final = ("description", "type", "default_value", "rules", "rollout", "tags", "enabled", "archived")


def _flag(_: ServiceContext, data: Data) -> Data:
    return {name: value for name, value in data.items() if name != "id"}


def _flags(context: ServiceContext, page: Data) -> Data:
    return page | {"items": [_flag(context, item) for item in page["items"]]}


def _find(call: ServiceCall, connection: Connection) -> Data:
    return existing(call, connection, FLAGS, "FLAG", key=call.params["key"])


# --- definitions -------------------------------------------------------------------------------------------------


@capability("flags.set", present=_flag)
def set_flag(call: ServiceCall, connection: Connection) -> Data:
    """Create a flag, or update the given fields of an existing one; without ``version`` the last write wins."""
    key = check_name("key", call.params["key"])
    before = find(connection, FLAGS, call.account, key=key)
    _check_version(call, before)
    flag = _defined(call, before or _new_flag(call, key))
    if before is not None:
        return _write(call, connection, flag)
    add(connection, FLAGS, call.account, flag)
    publish(connection, FLAGS, flag["id"])
    return flag


def _new_flag(call: ServiceCall, key: str) -> Data:
    kind = call.params.get("type") or type_of(call.params.get("default_value", False))
    return {
        "id": new_id("flg"),
        "key": key,
        "description": None,
        "type": kind,
        "default_value": False if kind == "bool" else None,
        "rules": [],
        "rollout": None,
        "tags": {},
        "enabled": True,
        "version": 1,
        "archived": False,
        "created_at": iso(call.now),
        "updated_at": iso(call.now),
    }


def _defined(call: ServiceCall, flag: Data) -> Data:
    """Return the flag with the caller's fields applied; an empty rollout removes the existing one."""
    given = call.given(*_DEFINITION)
    if any(not isinstance(value, str) for value in given.get("tags", {}).values()):
        raise invalid("the values of tags must be strings", tags="an object of strings")
    return checked(flag | given)


def _check_version(call: ServiceCall, flag: Data | None) -> None:
    expected, actual = call.params.get("version"), flag["version"] if flag else 0
    if expected is not None and expected != actual:
        raise conflict(
            "FLAG_VERSION_CONFLICT",
            f"the flag has version {actual}, not {expected}: read it and try again",
            expected=expected,
            actual=actual,
        )


def _write(call: ServiceCall, connection: Connection, flag: Data) -> Data:
    flag = flag | {"version": flag["version"] + 1, "updated_at": iso(call.now)}
    connection.execute(FLAGS.update().where(FLAGS.c.id == flag["id"]).values(flag))
    return flag


@capability("flags.get", present=_flag)
def get_flag(call: ServiceCall, connection: Connection) -> Data:
    """Return the definition of a flag."""
    return _find(call, connection)


@capability("flags.list", present=_flags)
def list_flags(call: ServiceCall, connection: Connection) -> Data:
    """Return a page of flags; archived ones only on request."""
    shown = {} if call.params.get("include_archived") else {"archived": False}
    return list_page(call, connection, FLAGS, **shown)


@capability("flags.toggle", present=_flag)
def toggle(call: ServiceCall, connection: Connection) -> Data:
    """Enable or disable a flag."""
    flag = _find(call, connection)
    _check_version(call, flag)
    return _write(call, connection, flag | {"enabled": call.params["enabled"]})


@capability("flags.rollout", present=_flag)
def roll_out(call: ServiceCall, connection: Connection) -> Data:
    """Set the rollout of a flag."""
    flag = _find(call, connection)
    _check_version(call, flag)
    before = flag["rollout"] or {}  # a new percentage alone must not drop the variants
    rollout = {"variants": before.get("variants")} | call.given(*FIELDS)
    return _write(call, connection, checked(flag | {"rollout": rollout}))


@capability("flags.delete")
def delete_flag(call: ServiceCall, connection: Connection) -> Data:
    """Delete a flag."""
    flag = _find(call, connection)
    connection.execute(FLAGS.delete().where(FLAGS.c.id == flag["id"]))
    return {"ok": True, "key": flag["key"]}


# --- evaluation --------------------------------------------------------------------------------------------------


def _evaluate(call: ServiceCall, flag: Data) -> Evaluation:
    return evaluate(flag, call.params.get("user_id"), call.params.get("context", {}))


@capability("flags.is_enabled")
def is_enabled(call: ServiceCall, connection: Connection) -> Data:
    """Return whether a flag is on for an evaluation context."""
    return {"enabled": _evaluate(call, _find(call, connection)).on}


@capability("flags.get_value")
def get_value(call: ServiceCall, connection: Connection) -> Data:
    """Evaluate a flag; without a value, return the caller's default if there is one."""
    flag: Data | None = None
    try:
        flag = _find(call, connection)
        evaluation = _evaluate(call, flag)
    except RequestRefused:
        if "default" not in call.params:
            raise
        return _fallback(call, flag)
    value = {"key": flag["key"], "value": evaluation.value, "reason": evaluation.reason} | _about(flag)
    return value if evaluation.variant is None else value | {"variant": evaluation.variant}


def _fallback(call: ServiceCall, flag: Data | None) -> Data:
    """Return the caller's default for a flag that does not exist or cannot be evaluated (C14)."""
    default = call.params["default"]
    about = _about(flag) if flag else {"default_value": default, "enabled": False, "version": None}
    return {"key": call.params["key"], "value": default, "reason": "default"} | about


def _about(flag: Data) -> Data:
    return {name: flag[name] for name in ("default_value", "enabled", "version")}


@capability("flags.get_all")
def get_all(call: ServiceCall, connection: Connection) -> Data:
    """Evaluate every flag; a flag that cannot be evaluated has its default value, as a disabled one has.

    A program that reads all flags at startup must not fail because of one of them, and leaving that one out would look
    as if it did not exist. ``get_value`` and ``is_enabled`` concern a single flag and report the error.
    """
    query = sa.select(FLAGS).where(FLAGS.c.account_id == call.account, ~FLAGS.c.archived).order_by(FLAGS.c.seq)
    flags = [document(row) for row in connection.execute(query)]
    return {flag["key"]: _value_of(call, flag) for flag in flags}


def _value_of(call: ServiceCall, flag: Data) -> JSON:
    try:
        return _evaluate(call, flag).value
    except RequestRefused:
        value: JSON = flag["default_value"]
        return value
