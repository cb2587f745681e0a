"""The interface of response readers, which turn a response into the result of its call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

if TYPE_CHECKING:
    from infrai_async._protocol.response import Envelope
    from infrai_async.capabilities import Capability

T_co = TypeVar("T_co", covariant=True)


@attrs.frozen
class ResponseReader(Generic[T_co]):
    """The two ways to read one kind of response; they give equal results.

    Attributes:
        full: reads any success, or raises an error that says where it is wrong.
        quick: reads the body of a response of status 200; returns ``None`` if the body is not in the expected form.
            Its result may be falsy, as an empty page is.
    """

    full: Callable[[Capability[Any], Envelope], T_co]
    quick: Callable[[Capability[Any], bytes], T_co | None]
