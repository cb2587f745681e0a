"""How an answer becomes what the call returns: in full whatever it is, and quickly where nothing is amiss."""

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
    """The two ways to read one kind of answer, which come to the same.

    Attributes:
        full: takes any success apart, or says where it is wrong.
        quick: takes the body of an answer of status 200; ``None``, without a reason, for whatever is not plainly
            right. What it returns may be false, as an empty page is.
    """

    full: Callable[[Capability[Any], Envelope], T_co]
    quick: Callable[[Capability[Any], bytes], T_co | None]
