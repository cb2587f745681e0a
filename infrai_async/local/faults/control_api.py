"""Control of the rate limit and the faults over HTTP, for tests in another process or another language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from aiohttp import web

from infrai_async.local._errors import RequestRefused, invalid, wrong_method
from infrai_async.local.faults.faults import Fault
from infrai_async.local.faults.injector import FaultInjector
from infrai_async.local.http.body import read_body
from infrai_async.local.http.envelope import CallMetadata, headers_of, success
from infrai_async.local.http.host_guard import check_peer
from infrai_async.local.http.params import parse_body
from infrai_async.local.services.auth import Keys
from infrai_async.models import JSON


class ControlApi:
    """The endpoint below ``/_gateway``: POST sets, with the arguments of the Python method; GET shows; DELETE clears.

    Requests must come from this machine and carry an API key.
    """

    def __init__(self, injector: FaultInjector, keys: Keys) -> None:
        self._injector = injector
        self._keys = keys
        self._controls = {
            "/_gateway/faults": (self._add_fault, injector.faults.clear, self._faults),
            "/_gateway/limit": (self._set_limit, injector.lift_limit, self._limit),
        }

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Carry out a request, and respond with the settings that are now in force.

        Raises:
            RequestRefused: if the request is not allowed or its arguments are invalid.
        """
        metadata = CallMetadata()
        check_peer(request.remote, request.headers.get("CDN-Loop"))
        await self._keys.account(request.headers.get("Authorization", ""))
        if request.rel_url.raw_path not in self._controls:
            raise RequestRefused(404, "NOT_FOUND", f"unknown path: use {' or '.join(self._controls)}")
        set_, clear, show = self._controls[request.rel_url.raw_path]
        match request.method:
            case "POST":
                _try(set_, parse_body(await read_body(request)))
            case "DELETE":
                clear()
            case "GET":
                pass
            case _:
                raise wrong_method(request.method, ("GET", "POST", "DELETE"))
        about = metadata.to_dict()
        headers = headers_of(about) | {"Cache-Control": "no-store"}
        return web.Response(body=success(show(), about), content_type="application/json", headers=headers)

    def _add_fault(self, given: Mapping[str, Any]) -> None:
        _check_names(given, *(field.name for field in attrs.fields(Fault)))
        self._injector.faults.add(**given)

    def _faults(self) -> JSON:
        return {"faults": [attrs.asdict(fault) for fault in self._injector.faults]}

    def _set_limit(self, given: Mapping[str, Any]) -> None:
        _check_names(given, "rate", "burst")
        self._injector.set_limit(**given)

    def _limit(self) -> JSON:
        limit = self._injector.limit
        return {"rate": None, "burst": None} if limit is None else {"rate": limit.rate, "burst": limit.burst}


def _try(set_: Callable[[Mapping[str, Any]], None], given: Mapping[str, Any]) -> None:
    try:
        set_(given)
    except ValueError as error:
        raise invalid(str(error)) from None


def _check_names(given: Mapping[str, Any], *names: str) -> None:
    for name in given:
        if name not in names:
            raise ValueError(f"{name}: unknown argument; the known ones are {', '.join(names)}")
