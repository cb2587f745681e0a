"""The checksums that Python does not bring, by the published values of their nine digits."""

from __future__ import annotations

from functools import partial

import pytest

from infrai_async.local._errors import RequestRefused
from infrai_async.local.objects.checksums import Crc, announced

DIGITS = b"123456789"


@pytest.mark.parametrize(
    ("make", "published"),
    [
        (partial(Crc, 32, 0x82F63B78), "e3069283"),  # CRC-32/ISCSI
        (partial(Crc, 64, 0x9A6C9329AC4BC9B5), "ae8b14860a799888"),  # CRC-64/NVME
    ],
)
def test_a_crc_has_the_published_value_in_pieces_too(make: partial[Crc], published: str) -> None:
    whole, pieces = make(), make()
    whole.update(DIGITS)
    for byte in DIGITS:
        pieces.update(bytes([byte]))
    assert whole.digest().hex() == pieces.digest().hex() == published
    assert make().digest() == bytes(len(published) // 2)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Digest": "sha-256=abc"},
        {"Content-Digest": ""},
        {"Content-Digest": "sha-256=:AAAA:"},
        {"x-amz-checksum-crc32": "AAAAAAAA"},
        {"x-amz-checksum-crc32": "AA AA"},
        {"x-amz-content-sha256": "xyz"},
        {"content-md5": ""},
    ],
)
def test_a_malformed_checksum_is_named(headers: dict[str, str]) -> None:
    with pytest.raises(RequestRefused) as caught:
        announced(headers)
    assert caught.value.status == 400
    assert next(iter(headers)).lower() in caught.value.message.lower()


def test_what_says_nothing_of_the_bytes_is_no_checksum() -> None:
    harmless = {"x-amz-sdk-checksum-algorithm": "CRC32", "x-amz-checksum-type": "FULL_OBJECT"}
    assert announced({**harmless, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "Content-Digest": "new=:AAAA:"}) == []
