"""Feature flag capabilities (contract 2.4)."""

from __future__ import annotations

from typing import Final

from infrai_async.capabilities.table import PAGING, body, define, path, query
from infrai_async.models import Ack, Flag, FlagState, FlagValue, FlagValues

_CONTEXT: Final = (query("user_id"), query("context", "object"))

FLAG_IS_ENABLED: Final = define(
    "flags.is_enabled", "GET", "/flags/is_enabled/{key}", path("key"), *_CONTEXT, returns=FlagState
)
FLAG_SET: Final = define(
    "flags.set",
    "POST",
    "/flags/set",
    body("key", required=True),
    body("description"),
    body("type", choices=("bool", "string", "number", "json")),
    body("default_value", "json"),
    body("rules", "objects"),
    body("rollout", "object"),
    body("tags", "object"),
    body("enabled", "boolean"),
    body("archived", "boolean"),
    body("version", "integer"),
    returns=Flag,
)
FLAG_LIST: Final = define(
    "flags.list", "GET", "/flags/list", *PAGING, query("include_archived", "boolean"), returns=Flag, paged=True
)
FLAG_GET: Final = define("flags.get", "GET", "/flags/get/{key}", path("key"), returns=Flag)
FLAG_GET_VALUE: Final = define(
    "flags.get_value",
    "GET",
    "/flags/get_value/{key}",
    path("key"),
    *_CONTEXT,
    query("default", "json"),
    returns=FlagValue,
)
FLAG_GET_ALL: Final = define("flags.get_all", "GET", "/flags/get_all", *_CONTEXT, returns=FlagValues)
FLAG_TOGGLE: Final = define(
    "flags.toggle",
    "POST",
    "/flags/toggle/{key}",
    path("key", also=("key",)),
    body("enabled", "boolean", required=True),
    body("version", "integer", required=True),
    returns=Flag,
)
FLAG_ROLLOUT: Final = define(
    "flags.rollout",
    "POST",
    "/flags/rollout/{key}",
    path("key", also=("key",)),
    body("percentage", "number", required=True, bounds=(0, 100)),
    body("salt", required=True),
    body("sticky_unit", required=True, choices=("user_id", "session_id", "device_id")),
    body("version", "integer", required=True),
    body("variants", "objects"),
    returns=Flag,
)
FLAG_DELETE: Final = define("flags.delete", "DELETE", "/flags/delete/{key}", path("key"), returns=Ack)
