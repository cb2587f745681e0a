"""The API key: from the environment or the credentials file, in the forms in which people and editors write it."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final, Self

from infrai_async._protocol.config import Secret, hidden, without_quotes
from infrai_async._protocol.response import kind_of
from infrai_async.errors import ConfigurationError

_LARGEST_FILE: Final = 64 * 2**10
_PLACES: Final = "pass api_key=, set INFRAI_API_KEY, or write the key to ~/.infrai/credentials"
_HOW_TO_GET_A_KEY: Final = "sign in at https://infrai.cc/login to get one; the local gateway prints its own"
_FORMAT: Final = 'must contain {"api_key": "..."} or the bare key'
_BYTE_ORDER_MARKS: Final = (  # UTF-32 first, because its mark in little endian begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_assignment: Final = re.compile(  # of a shell, an .env file, PowerShell, INI or YAML
    r"^[ \t]*(?:(?:export|setx?)[ \t]+|\$env:)?[\"']?(?:[a-z][\w.-]*)?(?:key|token|secret)[\"']?[ \t]*[=:][ \t]*\S",
    re.IGNORECASE | re.MULTILINE,
)
_SIMILAR_NAMES: Final = frozenset({"apikey", "infraiapikey", "infraikey", "key", "token", "apitoken", "primaryapikey"})
_QUOTATION_MARKS: Final = frozenset(
    "\"'`\u201c\u201d\u201e\u2018\u2019\u201a\xab\xbb"
)  # of keyboards and word processors


class KnownKey(Secret):
    """An API key that knows its source.

    Attributes:
        source: the argument, variable or file that it comes from, as a message names it.
    """

    __slots__ = ("source",)
    source: str

    def __new__(cls, text: str, source: str) -> Self:
        """Create the key."""
        key = super().__new__(cls, text)
        key.source = source
        return key


def check_api_key(key: object, source: str) -> KnownKey:
    """Return the API key after checking that it can be sent in a header; the error never shows the key.

    Quotation marks and invisible characters around the key are removed.

    Raises:
        ConfigurationError: the key is not a non-empty string of printable ASCII characters without spaces.
    """
    checked = checked_api_key(key, source)
    del key
    if isinstance(checked, ConfigurationError):
        raise checked
    return checked


def checked_api_key(key: object, source: str) -> KnownKey | ConfigurationError:
    """Return the API key, or the error that ``check_api_key`` raises."""
    text = without_quotes(key) if isinstance(key, str) else ""
    fault = _fault_of(text) if isinstance(key, str) else f"it is of type {type(key).__name__}"
    if fault is None:
        return KnownKey(text, source)
    return ConfigurationError(
        f"the API key from {source} must be a non-empty string of printable ASCII characters without spaces: {fault}"
    )


def _fault_of(text: str) -> str | None:
    """Return what is wrong with a key, without quoting any of it; ``None`` if it is usable."""
    if not text:
        return "it is empty"
    if _assignment.match(text):
        return "it is an assignment, of which only the key is wanted"
    if text.lower().startswith(("bearer ", "authorization:")):
        return 'it begins with "Bearer" or "Authorization", of which only the key is wanted'
    if not _QUOTATION_MARKS.isdisjoint(text):
        return "it contains a quotation mark"
    if any(char.isspace() for char in text):
        return "it contains a space or a line break"
    if not text.isprintable():
        return "it contains a NUL or another invisible character"
    return None if text.isascii() else "it contains a character that is not ASCII"


def find_api_key(environment: Mapping[str, str], credentials: Path) -> KnownKey:
    """Return the API key from ``INFRAI_API_KEY`` or, if that is not set, from the credentials file.

    The file contains the bare key, or JSON with ``api_key`` (D15). UTF-8 and UTF-16 are read, with and without a byte
    order mark.

    Raises:
        ConfigurationError: there is no key, or the file cannot be read. The message says what is wrong.
    """
    given = environment.get("INFRAI_API_KEY")
    found = checked_api_key(given, "INFRAI_API_KEY") if given else _read_file(credentials)
    del environment, given
    if isinstance(found, ConfigurationError):
        raise found
    return found


def _read_file(path: Path) -> KnownKey | ConfigurationError:
    try:
        content = _content(path)
    except (FileNotFoundError, NotADirectoryError):
        homeless = "" if path.is_absolute() else ". That file was not looked for, because there is no home directory"
        return ConfigurationError(f"no API key found: {_PLACES} ({_HOW_TO_GET_A_KEY}){homeless}")
    except OSError as error:
        return ConfigurationError(f"{path} cannot be read ({reason_of(error)}): mend it, or pass api_key=")
    try:
        text = _decode(content)
    except UnicodeDecodeError:
        return ConfigurationError(f"{path} cannot be read (it is not text in UTF-8): save it as UTF-8")
    if text.startswith(("{", "[")):
        try:
            return _from_json(json.loads(text), path)
        except (ValueError, RecursionError):
            if text.startswith("{"):
                return ConfigurationError(f"{path} {_FORMAT}: it begins with a brace, but is not valid JSON")
    if _assignment.search(text):
        return ConfigurationError(f"{path} {_FORMAT}, not an assignment: leave the key alone on its line")
    return checked_api_key(text, str(path))


def _from_json(document: object, path: Path) -> KnownKey | ConfigurationError:
    if not isinstance(document, dict):
        return ConfigurationError(f"{path} {_FORMAT}: it contains {kind_of(document)} instead of a JSON object")
    if isinstance(key := document.get("api_key"), str):
        return checked_api_key(key, str(path))
    similar = [name for name in document if re.sub(r"[^a-z]", "", name.lower()) in _SIMILAR_NAMES]
    fault = "it is missing"
    if "api_key" in document:
        fault = f"it is {kind_of(key)}"
    elif similar:
        fault = f"it is missing; rename {similar[0]!r} to that"
    return ConfigurationError(f'the API key from {path} must be a non-empty string in the field "api_key": {fault}')


def _content(path: Path) -> bytes:
    if not path.is_absolute():  # the user has no home directory, and the working directory is not trusted
        raise FileNotFoundError
    if not stat.S_ISREG(path.stat().st_mode):  # first, because opening a pipe could wait for ever
        raise OSError("it is a directory or a device, not a file")
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise OSError(f"it is larger than {_LARGEST_FILE} bytes, so it is no credentials file")
    return content


def _decode(content: bytes) -> str:
    """Return the text of the file, in whatever Unicode encoding an editor has saved it.

    Raises:
        UnicodeDecodeError: the file is not text in a Unicode encoding.
    """
    encoding = "utf-8"
    for mark, name in _BYTE_ORDER_MARKS:
        if content.startswith(mark) and len(content) > len(mark):
            encoding = name
            break
    else:
        if len(content) > 1 and not any(content[1::2]):  # every second byte is zero: ASCII in UTF-16 without a mark
            encoding = "utf-16-le"
        elif len(content) > 1 and not any(content[::2]):
            encoding = "utf-16-be"
    return without_quotes(content.decode(encoding))


def reason_of(error: OSError) -> str:
    """Return why the operating system refused, without the path, which the message names itself."""
    return error.strerror or str(error)


def credentials_file() -> Path:
    """Return the path of the credentials file; without a home directory, a relative path, which is never read."""
    return Path(os.path.expanduser("~/.infrai/credentials"))


def prepare_credentials(path: Path) -> None:
    """Check that the credentials file can be written, before a key is requested that could then be lost.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    try:
        if not path.is_absolute():
            raise PermissionError("there is no home directory")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError("its directory is not writable")
        if _backup_of(path).is_dir():
            raise PermissionError(f"{_backup_of(path).name} beside it is a directory, not a backup")
        # Not ``exists``, which takes a symbolic link that leads back to itself for a file that is not there.
        with contextlib.suppress(FileNotFoundError):
            if not (stat.S_ISREG(path.stat().st_mode) and os.access(path, os.R_OK)):
                raise PermissionError("the existing one is not a readable file, so it cannot be kept as a backup")
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({reason_of(error)}): pass write_credentials=False and store the key yourself"
        ) from None


def write_credentials(path: Path, api_key: str) -> None:
    """Write the credentials file, readable by its owner only (D15); keep an existing one as ``.previous``.

    The existing file is kept byte for byte, whatever it contains.
    """
    api_key = hidden(api_key)
    with contextlib.suppress(FileNotFoundError), path.open("rb") as existing:
        _write_whole(_backup_of(path), existing)
    _write_whole(path, io.BytesIO(json.dumps({"api_key": str(api_key)}).encode() + b"\n"))


def _backup_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def _write_whole(path: Path, content: BinaryIO) -> None:
    """Replace the content of a file atomically: readers and concurrent writers see either the old or the new file."""
    descriptor, fresh = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
