"""The checksums that an upload announces in its headers: which there are, and whether the bytes fit them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Final, Protocol

import attrs
from multidict import CIMultiDict

from infrai_async.local._errors import RequestRefused, invalid


class Hasher(Protocol):
    """What computes a checksum piece by piece."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""
        ...

    def digest(self) -> bytes:
        """Return the checksum of all bytes so far."""
        ...


@cache
def _table(polynomial: int) -> tuple[int, ...]:
    def entry(value: int) -> int:
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        return value

    return tuple(map(entry, range(256)))


class Crc:
    """A cyclic redundancy check, reflected, that begins and ends with all bits inverted.

    In plain Python it reaches some 10 MB/s; no package brings both of those that only Amazon's own programs send.

    Args:
        bits: its width.
        polynomial: its polynomial, reflected.
    """

    def __init__(self, bits: int, polynomial: int) -> None:
        self._size = bits // 8
        self._state = self._ones = (1 << bits) - 1
        self._table = _table(polynomial)

    def update(self, data: bytes, /) -> None:
        """Add bytes."""
        state, table = self._state, self._table
        for byte in data:
            state = table[(state ^ byte) & 0xFF] ^ state >> 8
        self._state = state

    def digest(self) -> bytes:
        """Return the checksum of all bytes so far."""
        return (self._state ^ self._ones).to_bytes(self._size)


class _Crc32:
    """The one that zlib computes."""

    def __init__(self) -> None:
        self._state = 0

    def update(self, data: bytes, /) -> None:
        self._state = zlib.crc32(data, self._state)

    def digest(self) -> bytes:
        return self._state.to_bytes(4)


_md5: Final = partial(hashlib.md5, usedforsecurity=False)
_sha1: Final = partial(hashlib.sha1, usedforsecurity=False)
_AMAZON: Final[Mapping[str, Callable[[], Hasher]]] = {
    "crc32": _Crc32,
    "crc32c": partial(Crc, 32, 0x82F63B78),
    "crc64nvme": partial(Crc, 64, 0x9A6C9329AC4BC9B5),
    "sha1": _sha1,
    "sha256": hashlib.sha256,
}
"""By the last part of ``x-amz-checksum-...``."""
_DIGESTS: Final[Mapping[str, Callable[[], Hasher]]] = {
    "md5": _md5,
    "sha": _sha1,
    "sha-256": hashlib.sha256,
    "sha-512": hashlib.sha512,
}
"""By the names of RFC 9530."""
_PREFIX: Final = "x-amz-checksum-"
_ABOUT: Final = {"x-amz-checksum-algorithm", "x-amz-checksum-type", "x-amz-checksum-mode"}
_DIGEST: Final = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):\s*(?:;[^,]*)?")


@attrs.frozen
class Check:
    """A checksum that was announced, and what computes the real one."""

    header: str
    announced: bytes
    hasher: Hasher

    def verify(self) -> None:
        """Compare them, once the hasher has seen the whole body.

        Raises:
            RequestRefused: 400, if they differ.
        """
        if self.hasher.digest() != self.announced:
            raise invalid(f"the body does not match {self.header}", **{self.header: "the checksum of the body"})


def announced(headers: Mapping[str, str]) -> list[Check]:
    """Return the checks for all checksums that the headers of an upload announce.

    Raises:
        RequestRefused: 400, if one is malformed or of an unknown kind; 501, for a body in signed chunks.
    """
    fields = CIMultiDict(headers)
    if "x-amz-trailer" in fields or "aws-chunked" in fields.get("Content-Encoding", "").lower():
        raise _chunked()
    return [*_of_md5(fields), *_of_amazon(fields), *_of_content(fields), *_of_digests(fields)]


def _of_md5(fields: CIMultiDict[str]) -> Iterator[Check]:
    if (text := fields.get("Content-MD5")) is not None:
        yield _check("Content-MD5", text, _md5)


def _of_amazon(fields: CIMultiDict[str]) -> Iterator[Check]:
    for name, text in fields.items():
        kind = name.lower().removeprefix(_PREFIX)
        if not name.lower().startswith(_PREFIX) or name.lower() in _ABOUT:
            continue
        if kind not in _AMAZON:
            known = ", ".join(sorted(_AMAZON))
            raise invalid(f"{name} is not a checksum that is known here: use one of {known}", **{name: "absent"})
        yield _check(name, text, _AMAZON[kind])


def _of_content(fields: CIMultiDict[str]) -> Iterator[Check]:
    text = fields.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    if text.startswith("STREAMING-"):
        raise _chunked()
    if text != "UNSIGNED-PAYLOAD":
        try:
            yield Check("x-amz-content-sha256", bytes.fromhex(text), hashlib.sha256())
        except ValueError:
            raise _malformed("x-amz-content-sha256", "SHA-256 in hexadecimal") from None


def _of_digests(fields: CIMultiDict[str]) -> Iterator[Check]:
    for name in ("Content-Digest", "Repr-Digest"):
        for text in ",".join(fields.getall(name, [])).split(",") if name in fields else ():
            if (found := _DIGEST.fullmatch(text)) is None:
                raise _malformed(name, "a list such as sha-256=:...:")
            if found[1] in _DIGESTS:  # RFC 9530 lets others be ignored: a sender may offer several
                yield _check(name, found[2], _DIGESTS[found[1]])


def _check(header: str, text: str, hasher: Callable[[], Hasher]) -> Check:
    made = hasher()
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != len(made.digest()):
        raise _malformed(header, "base64 of the checksum")
    return Check(header, digest, made)


def _malformed(header: str, wanted: str) -> RequestRefused:
    return invalid(f"{header} must be {wanted}", **{header: wanted})


def _chunked() -> RequestRefused:
    return RequestRefused(
        501,
        "NOT_IMPLEMENTED",
        "a body in signed chunks (aws-chunked, STREAMING-..., x-amz-trailer) is not supported by a presigned URL here",
        hint="send the bytes as they are, with a checksum in a header",
        retryable=False,
    )
