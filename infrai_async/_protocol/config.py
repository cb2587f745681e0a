"""The sources of a client's settings: its arguments, then the environment, then the credentials file."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from infrai_async.errors import ConfigurationError

DEFAULT_BASE_URL: Final = "https://api.infrai.cc"
_HOW_TO_GET_A_KEY: Final = (
    "no API key found: pass api_key=, set INFRAI_API_KEY, or write the key to ~/.infrai/credentials "
    "(sign in at https://infrai.cc/login to get one; the local gateway prints its own)"
)


class Secret(str):
    """A string whose repr hides its text, so that tracebacks with local variables do not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def base_url(given: str | None, environment: Mapping[str, str], *, allow_http: bool) -> str:
    """Return the base URL without ``/v1`` and without a trailing slash (D1).

    Args:
        given: the client's argument. If it is ``None``, ``INFRAI_BASE_URL`` is used, then the service's own address.
        environment: the environment variables.
        allow_http: whether plain HTTP to another machine is allowed.

    Raises:
        ConfigurationError: the URL is not an http or https URL, contains credentials, or would send the API key over
            plain HTTP.
    """
    name = "base_url" if given is not None else "INFRAI_BASE_URL"
    text = given if given is not None else environment.get("INFRAI_BASE_URL") or DEFAULT_BASE_URL
    try:
        text = text.strip()
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except (ValueError, AttributeError):
        raise ConfigurationError(f"{name} is not a URL: it must look like {DEFAULT_BASE_URL}") from None
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(f"{name} has characters that are not allowed in a URL: percent-encode them")
    if parts.scheme not in ("http", "https") or not host:
        shown = "" if "@" in text else f", not {text!r}"
        raise ConfigurationError(f"{name} must look like {DEFAULT_BASE_URL}{shown}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(f"{name} must have no user, password, query or fragment")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise ConfigurationError(
            f"{name} would send the API key over plain http to {host}: use https, or pass allow_http=True "
            "if you trust the network"
        )
    name_or_address = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{name_or_address}" + (f":{port}" if port is not None else "")
    return origin + parts.path.rstrip("/").removesuffix("/v1").rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether a host name or address refers to this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_api_key(key: object, source: str) -> Secret:
    """Return the API key after checking that it can be sent in a header; the error never shows the key.

    Raises:
        ConfigurationError: the key is not a non-empty string of printable ASCII characters without spaces.
    """
    text = key.strip() if isinstance(key, str) else ""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(
            f"the API key from {source} must be a non-empty string of printable ASCII characters without spaces"
        )
    return Secret(text)


def find_api_key(environment: Mapping[str, str], credentials: Path) -> Secret:
    """Return the API key from ``INFRAI_API_KEY`` or, if that is not set, from the credentials file.

    Raises:
        ConfigurationError: there is no key, or the file cannot be read. The message names every place for a key.
    """
    if environment.get("INFRAI_API_KEY"):
        return check_api_key(environment["INFRAI_API_KEY"], "INFRAI_API_KEY")
    try:
        text = credentials.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(_HOW_TO_GET_A_KEY) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{credentials} cannot be read ({type(error).__name__}): pass api_key=") from None
    if text.startswith("INFRAI_API_KEY="):
        raise ConfigurationError(f'{credentials} must contain {{"api_key": "..."}} or the bare key, not an assignment')
    if not text.startswith("{"):
        return check_api_key(text, str(credentials))
    try:
        return check_api_key(json.loads(text).get("api_key"), str(credentials))
    except json.JSONDecodeError:
        raise ConfigurationError(f'{credentials} must contain {{"api_key": "..."}} or the bare key') from None


def credentials_file() -> Path:
    """Return the path of the credentials file; without a home directory, a relative path that does not exist."""
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
        if path.exists() and not (path.is_file() and os.access(path, os.R_OK)):
            raise PermissionError("the existing one is not a readable file, so it cannot be kept as a backup")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"{path} cannot be written ({reason}): pass write_credentials=False and store the key yourself"
        ) from None


def write_credentials(path: Path, api_key: str) -> None:
    """Write the credentials file, readable by its owner only (D15); keep an existing one as ``.previous``."""
    with contextlib.suppress(FileNotFoundError):
        _write_whole(path.with_name(f"{path.name}.previous"), path.read_bytes())
    _write_whole(path, json.dumps({"api_key": str(api_key)}).encode() + b"\n")


def _write_whole(path: Path, content: bytes) -> None:
    """Replace the content of a file atomically: readers and concurrent writers see either the old or the new file."""
    descriptor, fresh = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
