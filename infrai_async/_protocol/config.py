"""Where the settings of a client come from: its arguments, then the environment, then the credentials file."""

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
    "no API key: pass api_key=, set INFRAI_API_KEY, or put one into ~/.infrai/credentials "
    "(sign in at https://infrai.cc/login to get one; the local gateway prints its own)"
)


class Secret(str):
    """A string whose repr shows nothing, so that no dump of a frame's variables does either."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def base_url(given: str | None, environment: Mapping[str, str], *, allow_http: bool) -> str:
    """Return the base URL without ``/v1`` and without a trailing slash (D1).

    Args:
        given: the client's argument; else ``INFRAI_BASE_URL``, else the service's own address.
        environment: the environment variables.
        allow_http: whether plain http may go to another machine.

    Raises:
        ConfigurationError: it is no http(s) URL, carries credentials, or would send the key over plain http.
    """
    name = "base_url" if given is not None else "INFRAI_BASE_URL"
    text = given if given is not None else environment.get("INFRAI_BASE_URL") or DEFAULT_BASE_URL
    try:
        text = text.strip()
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except (ValueError, AttributeError):
        raise ConfigurationError(f"{name} is not a URL") from None
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(f"{name} has characters that no URL may have: percent-encode them")
    if parts.scheme not in ("http", "https") or not host:
        shown = "" if "@" in text else f", not {text!r}"
        raise ConfigurationError(f"{name} must look like {DEFAULT_BASE_URL}{shown}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(f"{name} must have no user, password, query or fragment")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise ConfigurationError(
            f"{name} would send the API key over plain http to {host}: use https, or pass allow_http=True "
            "where the network is yours"
        )
    name_or_address = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{name_or_address}" + (f":{port}" if port is not None else "")
    return origin + parts.path.rstrip("/").removesuffix("/v1").rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_api_key(key: object, source: str) -> Secret:
    """Return a key that a header can carry; the message never shows it.

    Raises:
        ConfigurationError: it is empty, not a string, or has characters that no header may have.
    """
    text = key.strip() if isinstance(key, str) else ""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(
            f"the API key from {source} must be a non-empty string of printable ASCII characters without spaces"
        )
    return Secret(text)


def find_api_key(environment: Mapping[str, str], credentials: Path) -> Secret:
    """Return the key of ``INFRAI_API_KEY``, else of the credentials file.

    Raises:
        ConfigurationError: there is none, or the file is unreadable; the message names every place to put one.
    """
    if environment.get("INFRAI_API_KEY"):
        return check_api_key(environment["INFRAI_API_KEY"], "INFRAI_API_KEY")
    try:
        text = credentials.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(_HOW_TO_GET_A_KEY) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{credentials} cannot be read ({type(error).__name__})") from None
    if text.startswith("INFRAI_API_KEY="):
        raise ConfigurationError(f'{credentials} must hold {{"api_key": "..."}} or the bare key, no assignment')
    if not text.startswith("{"):
        return check_api_key(text, str(credentials))
    try:
        return check_api_key(json.loads(text).get("api_key"), str(credentials))
    except json.JSONDecodeError:
        raise ConfigurationError(f'{credentials} must hold {{"api_key": "..."}} or the bare key') from None


def credentials_file() -> Path:
    """Return where the credentials file is; a path that cannot exist where there is no home directory."""
    return Path(os.path.expanduser("~/.infrai/credentials"))


def prepare_credentials(path: Path) -> None:
    """See to it that the credentials file can be written, before there is a key that could be lost.

    Raises:
        ConfigurationError: it cannot.
    """
    try:
        if not path.is_absolute():
            raise PermissionError("there is no home directory")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError("no right to write there")
        if path.exists() and not (path.is_file() and os.access(path, os.R_OK)):
            raise PermissionError("what is there is no file that can be read, and so kept")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"{path} cannot be written ({reason}): pass write_credentials=False and keep the key yourself"
        ) from None


def write_credentials(path: Path, api_key: str) -> None:
    """Write the credentials file, readable by its owner alone (D15); one that was there is kept as ``.previous``."""
    with contextlib.suppress(FileNotFoundError):
        _write_whole(path.with_name(f"{path.name}.previous"), path.read_bytes())
    _write_whole(path, json.dumps({"api_key": str(api_key)}).encode() + b"\n")


def _write_whole(path: Path, content: bytes) -> None:
    """Let a file have this content: at every moment, and whoever else writes it too, it is an old one or a new one."""
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
