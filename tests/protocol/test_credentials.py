"""API keys as people, editors and shells write them: each is read, or the error says what is wrong and shows no key."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from types import TracebackType

import pytest

from infrai_async._protocol.credentials import (
    check_api_key,
    credentials_file,
    find_api_key,
    prepare_credentials,
    write_credentials,
)
from infrai_async.errors import ConfigurationError

KEY = "ifr_pk_proj_hunter2"
DOCUMENT = json.dumps({"api_key": KEY})


def shown(error: BaseException) -> str:
    """All that a traceback with local variables shows, but for the frames of the test itself."""
    trace: TracebackType | None = error.__traceback__
    frames = []
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != __file__:
            frames.append(repr(trace.tb_frame.f_locals))
        trace = trace.tb_next
    assert frames
    return f"{error!r} {error.__context__!r} {' '.join(frames)}"


def refusal(content: bytes | str, tmp_path: Path) -> str:
    file = tmp_path / "credentials"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigurationError) as caught:
        find_api_key({"OTHER": KEY}, file)
    assert "hunter2" not in shown(caught.value)
    return str(caught.value).replace(str(file), "FILE")


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [KEY, f"{KEY}\r\n", f'"{KEY}"\n', f"'{KEY}'", DOCUMENT, f"{DOCUMENT}\r\n"], ids=ascii)
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "\ufeffutf-16-be", "utf-32", "\ufeffutf-32-be"],
)
def test_a_file_is_read_in_every_encoding_that_editors_save(tmp_path: Path, text: str, encoding: str) -> None:
    file = tmp_path / "credentials"
    mark = "\ufeff" if encoding.startswith("\ufeff") else ""
    file.write_bytes((mark + text).encode(encoding.removeprefix("\ufeff")))
    assert find_api_key({}, file) == KEY


@pytest.mark.parametrize(
    "text",
    [
        f'"{KEY}"',
        f"'{KEY}'",
        f"\ufeff{KEY}",
        f'\ufeff"{KEY}" \r\n',
        f'" {KEY} "',
        f"\u200b{KEY}\xa0",
        f"\u2060{KEY}\ufeff",
    ],
    ids=ascii,
)
def test_what_surrounds_a_key_that_was_copied_is_ignored(tmp_path: Path, text: str) -> None:
    assert check_api_key(text, "api_key=") == KEY
    assert find_api_key({"INFRAI_API_KEY": text}, tmp_path) == KEY
    (tmp_path / "credentials").write_text(json.dumps({"api_key": text}), encoding="utf-8")
    assert find_api_key({}, tmp_path / "credentials") == KEY


def test_a_link_to_the_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(KEY)
    (tmp_path / "credentials").symlink_to("elsewhere")
    assert find_api_key({}, tmp_path / "credentials") == KEY


def test_a_key_knows_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(DOCUMENT)
    assert find_api_key({"INFRAI_API_KEY": KEY}, file).source == "INFRAI_API_KEY"
    assert find_api_key({"INFRAI_API_KEY": ""}, file).source == str(file)
    assert check_api_key(KEY, "api_key=").source == "api_key="


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"api_key={KEY}",
        f"api_key = {KEY}",
        f"api-key: {KEY}",
        f"apikey={KEY}",
        f"API_KEY='{KEY}'",
        f"INFRAI_API_KEY={KEY}",
        f"export INFRAI_API_KEY={KEY}",
        f'\texport  INFRAI_API_KEY="{KEY}"\n',
        f"set INFRAI_API_KEY={KEY}\r\n",
        f'$env:INFRAI_API_KEY = "{KEY}"',
        f"# of the console\nINFRAI_API_KEY={KEY}\n",
        f"[default]\napi_key = {KEY}\n",
        f"[default]\r\nregion=x\r\napi_key={KEY}\r\n",
        f"region: x\napi_key: {KEY}",
        f'"api_key": "{KEY}"',
    ],
    ids=ascii,
)
def test_an_assignment_is_told_from_a_key(tmp_path: Path, text: str) -> None:
    must = 'FILE must contain {"api_key": "..."} or the bare key'
    assert refusal(text, tmp_path) == f"{must}, not an assignment: leave the key alone on its line"


@pytest.mark.parametrize("key", [KEY, "abc==", "key", "api-key-1", "k=", "ifr_key_=="])
def test_a_key_that_only_resembles_an_assignment_is_a_key(key: str) -> None:
    assert check_api_key(key, "api_key=") == key


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"INFRAI_API_KEY={KEY}", "it is an assignment, of which only the key is wanted"),
        (f"Bearer {KEY}", 'it begins with "Bearer" or "Authorization", of which only the key is wanted'),
        (f"authorization: bearer {KEY}", 'it begins with "Bearer" or "Authorization", of which only the key is wanted'),
        (f'"{KEY}', "it contains a quotation mark"),
        (f"\u201c{KEY}\u201d", "it contains a quotation mark"),
        (f"{KEY} {KEY}", "it contains a space or a line break"),
        (f"{KEY}\x00", "it contains a NUL or another invisible character"),
        (f"{KEY}\x1a", "it contains a NUL or another invisible character"),
        ('""', "it is empty"),
        ("\ufeff", "it is empty"),
        (f"{KEY}\udcff", "it contains a NUL or another invisible character"),
    ],
    ids=ascii,
)
def test_what_is_wrong_with_a_key_is_said(text: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_api_key({"INFRAI_API_KEY": text}, Path("/unused"))
    assert str(caught.value).startswith("the API key from INFRAI_API_KEY must be ")
    assert str(caught.value).endswith(f": {fault}")
    assert "hunter2" not in shown(caught.value)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({"apiKey": KEY}, "it is missing; rename 'apiKey' to that"),
        ({"api-key": KEY}, "it is missing; rename 'api-key' to that"),
        ({"INFRAI_API_KEY": KEY}, "it is missing; rename 'INFRAI_API_KEY' to that"),
        ({"token": KEY, "user": "u"}, "it is missing; rename 'token' to that"),
        ({"default": {"api_key": KEY}}, "it is missing"),
        ({KEY: "production"}, "it is missing"),
        ({}, "it is missing"),
        ({"api_key": None}, "it is null"),
        ({"api_key": 5}, "it is a number"),
        ({"api_key": [KEY]}, "it is a list"),
        ({"api_key": {"value": KEY}}, "it is an object"),
    ],
    ids=ascii,
)
def test_a_json_file_without_the_field_says_what_it_has_instead(
    tmp_path: Path, document: dict[str, object], fault: str
) -> None:
    must = 'the API key from FILE must be a non-empty string in the field "api_key"'
    assert refusal(json.dumps(document), tmp_path) == f"{must}: {fault}"


@pytest.mark.parametrize(
    ("content", "end"),
    [
        (f'[{{"api_key": "{KEY}"}}]', "or the bare key: it contains a list instead of a JSON object"),
        (f'{{"api_key": "{KEY}",}}', "or the bare key: it begins with a brace, but is not valid JSON"),
        ('{"a":' * 10_000, "or the bare key: it begins with a brace, but is not valid JSON"),
        (f'{{"api_key": {"9" * 5000}}}', "or the bare key: it begins with a brace, but is not valid JSON"),
        (b"\xfc" + KEY.encode(), "cannot be read (it is not text in UTF-8): save it as UTF-8"),
        (b"\xff\xfeh\x00u", "cannot be read (it is not text in UTF-8): save it as UTF-8"),
        ("x" * 70_000, "cannot be read (it is larger than 65536 bytes, so it is no credentials file): "),
        (f"{KEY[:9]}\n\n" + "\n" * 60_000 + "z", "it contains a space or a line break"),
    ],
    ids=["list", "comma", "deep", "digits", "latin-1", "half a character", "large", "many lines"],
)
def test_a_file_that_is_no_credentials_file_says_why(tmp_path: Path, content: bytes | str, end: str) -> None:
    assert end in refusal(content, tmp_path)


def test_what_is_no_file_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    for make in (lambda: path.mkdir(), lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")):
        make()
        with pytest.raises(ConfigurationError, match=r"cannot be read \(it is a directory or a device, not a file\)"):
            find_api_key({}, path)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_link_that_leads_back_to_itself_is_told(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.symlink_to("other")
    (tmp_path / "other").symlink_to("credentials")
    with pytest.raises(ConfigurationError, match="symbolic links"):
        find_api_key({}, path)
    with pytest.raises(ConfigurationError, match="symbolic links"):
        prepare_credentials(path)


def test_a_file_that_its_user_may_not_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "credentials"
    path.write_text(KEY)

    def refuse(*_: object) -> None:  # not by the file's mode, which does not bind root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigurationError) as caught:
        find_api_key({}, path)
    assert str(caught.value) == f"{path} cannot be read (Permission denied): mend it, or pass api_key="


@pytest.mark.skipif(sys.platform == "win32", reason="the home directory has another name there")
def test_without_a_home_directory_the_working_directory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.chdir(tmp_path)
    planted = tmp_path / "~" / ".infrai" / "credentials"
    planted.parent.mkdir(parents=True)
    planted.write_text(KEY)
    with pytest.raises(ConfigurationError, match="no home directory") as caught:
        find_api_key({}, credentials_file())
    assert "INFRAI_API_KEY" in str(caught.value)
    with pytest.raises(ConfigurationError, match="no home directory"):
        prepare_credentials(credentials_file())


# --- overwriting it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["\ufeffold".encode("utf-16-le"), b"", b"\x00" * 70_000, b"[default]\napi_key = x\n", b"\xff\xfe\x00"]
)
def test_a_file_in_any_form_is_replaced_and_kept_byte_for_byte(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "credentials"
    file.write_bytes(content)
    prepare_credentials(file)
    write_credentials(file, KEY)
    assert find_api_key({}, file) == KEY
    assert (tmp_path / "credentials.previous").read_bytes() == content


def test_what_cannot_be_replaced_is_refused_before_there_is_a_key(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="not a readable file"):
        prepare_credentials(path)
    path.unlink()
    (tmp_path / "credentials.previous").mkdir()
    with pytest.raises(ConfigurationError, match=r"credentials\.previous beside it is a directory"):
        prepare_credentials(path)


def test_a_link_to_nothing_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.symlink_to("nothing")
    prepare_credentials(path)
    write_credentials(path, KEY)
    assert not path.is_symlink()
    assert find_api_key({}, path) == KEY
