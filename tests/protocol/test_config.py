"""Where settings come from: argument, environment, credentials file; and what is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infrai_async._protocol.config import Secret, base_url, is_loopback
from infrai_async._protocol.credentials import (
    check_api_key,
    credentials_file,
    find_api_key,
    prepare_credentials,
    write_credentials,
)
from infrai_async.errors import ConfigurationError

KEY = "ifr_pk_proj_hunter2"


def refusal(url: Any, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        base_url(url, environment or {}, allow_http=False)
    return str(caught.value)


# --- the base URL (D1) -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "//", "/v1//"])
@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://api.infrai.cc", "https://api.infrai.cc"),
        ("HTTPS://API.Infrai.cc", "https://api.infrai.cc"),
        ("https://api.infrai.cc:8443", "https://api.infrai.cc:8443"),
        ("https://gw.example/infrai", "https://gw.example/infrai"),
        ("https://gw.example/v1x", "https://gw.example/v1x"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("  https://api.infrai.cc", "https://api.infrai.cc"),
    ],
)
def test_a_base_url_is_taken_with_or_without_v1(origin: str, expected: str, suffix: str) -> None:
    assert base_url(origin + suffix, {}, allow_http=False) == expected


def test_the_argument_wins_over_the_environment() -> None:
    environment = {"INFRAI_BASE_URL": "https://other.example"}
    assert base_url("https://api.example", environment, allow_http=False) == "https://api.example"


def test_the_environment_wins_over_the_default() -> None:
    assert base_url(None, {"INFRAI_BASE_URL": "https://api.example/v1"}, allow_http=False) == "https://api.example"


@pytest.mark.parametrize("environment", [{}, {"INFRAI_BASE_URL": ""}])
def test_without_either_it_is_the_service_itself(environment: dict[str, str]) -> None:
    assert base_url(None, environment, allow_http=False) == "https://api.infrai.cc"


@pytest.mark.parametrize(
    "host",
    ["localhost", "api.localhost", "127.0.0.1", "127.1.2.3", "[::1]", "LOCALHOST"],
)
def test_plain_http_may_go_to_this_machine(host: str) -> None:
    assert base_url(f"http://{host}:80", {}, allow_http=False) == f"http://{host.lower()}:80"


@pytest.mark.parametrize(
    "host",
    [
        "api.infrai.cc",
        "10.0.0.1",
        "192.168.1.1",
        "0.0.0.0",
        "[::]",
        "[fe80::1]",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "2130706433",
    ],
)
def test_plain_http_to_any_other_machine_is_refused(host: str) -> None:
    assert refusal(f"http://{host}").startswith("base_url would send the API key over plain http to ")


def test_plain_http_goes_where_the_network_is_the_callers() -> None:
    assert base_url("http://gateway:8000", {}, allow_http=True) == "http://gateway:8000"


@pytest.mark.parametrize(
    "url",
    [
        "https://user@api.infrai.cc",
        "https://user:hunter2@api.infrai.cc",
        "https://:hunter2@api.infrai.cc",
        "https://@api.infrai.cc",
        "https://api.infrai.cc?key=hunter2",
        "https://api.infrai.cc/#hunter2",
    ],
)
def test_a_base_url_carries_no_credentials(url: str) -> None:
    assert refusal(url) == "base_url must have no user, password, query or fragment"


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "api.infrai.cc",
        "//api.infrai.cc",
        "ftp://api.infrai.cc",
        "file:///etc/passwd",
        "https://",
        "https:///v1",
    ],
)
def test_a_base_url_is_http_and_names_a_host(url: str) -> None:
    assert refusal(url) == f"base_url must look like https://api.infrai.cc, not {url.strip()!r}"


def test_a_base_url_with_a_password_is_not_shown() -> None:
    assert refusal("ftp://user:hunter2@api.infrai.cc") == "base_url must look like https://api.infrai.cc"


@pytest.mark.parametrize("url", ["https://api.infrai.cc:port", "https://api.infrai.cc:99999", "https://[::1", 5, ["x"]])
def test_what_is_no_url_is_refused(url: Any) -> None:
    assert refusal(url) == "base_url is not a URL: it must look like https://api.infrai.cc"


def test_a_wrong_environment_variable_is_named() -> None:
    message = "INFRAI_BASE_URL must look like https://api.infrai.cc, not 'nonsense'"
    assert refusal(None, {"INFRAI_BASE_URL": "nonsense"}) == message


@pytest.mark.parametrize(
    "text",
    ['"{}"', "'{}'", "\ufeff{}", "\ufeff'{}'\r\n", '" {} "', "\u200b{}\xa0"],
    ids=["dq", "sq", "bom", "all", "in", "web"],
)
def test_what_surrounds_a_base_url_that_was_copied_is_ignored(text: str) -> None:
    url = text.format("https://gw.example/v1")
    assert base_url(url, {}, allow_http=False) == "https://gw.example"
    assert base_url(None, {"INFRAI_BASE_URL": url}, allow_http=False) == "https://gw.example"


@pytest.mark.parametrize(
    "url", [KEY, "api.infrai.cc?key=hunter2", "api.infrai.cc#hunter2", "opaque-hunter2"], ids=lambda url: url[:4]
)
def test_a_key_in_the_place_of_the_base_url_is_not_shown(url: str) -> None:
    environment = {"INFRAI_BASE_URL": url, "INFRAI_API_KEY": "opaque-hunter2"}
    assert refusal(None, environment) == "INFRAI_BASE_URL must look like https://api.infrai.cc"


def test_a_host_name_with_other_letters_is_told_of_its_ascii_form() -> None:
    assert "xn--" in refusal("https://bücher.example")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("a.localhost", True), ("127.0.0.1", True), ("::1", True), ("::2", False), ("", False)],
)
def test_loopback_is_known_by_name_and_address(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# --- the key -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [KEY, f"  {KEY}\n", f"{KEY}\r\n"])
def test_a_key_is_taken_without_the_space_around_it(text: str) -> None:
    assert check_api_key(text, "api_key") == KEY


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("\n", "it is empty"),
        ("ifr_hünter2", "it contains a character that is not ASCII"),
        ("ifr\nhunter2", "it contains a space or a line break"),
        ("ifr\x00hunter2", "it contains a NUL or another invisible character"),
        (None, "it is of type NoneType"),
        (5, "it is of type int"),
        (b"ifr_hunter2", "it is of type bytes"),
        (["ifr_hunter2"], "it is of type list"),
    ],
    ids=repr,
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: object, fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_api_key(key, "api_key")
    message = "the API key from api_key must be a non-empty string of printable ASCII characters without spaces"
    assert str(caught.value) == f"{message}: {fault}"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("ifr_other")
    assert find_api_key({"INFRAI_API_KEY": KEY}, file) == KEY


@pytest.mark.parametrize("environment", [{}, {"INFRAI_API_KEY": ""}])
@pytest.mark.parametrize(
    "text",
    [
        f'{{"api_key": "{KEY}"}}',
        f'\n  {{"api_key": "{KEY}", "account_id": "a"}}\n',
        KEY,
        f"{KEY}\n",
        f"\n {KEY} \n\n",
    ],
)
def test_the_file_is_json_or_the_bare_key(tmp_path: Path, text: str, environment: dict[str, str]) -> None:
    file = tmp_path / "credentials"
    file.write_text(text)
    assert find_api_key(environment, file) == KEY


@pytest.mark.parametrize("path", ["credentials", "missing/credentials", "file/credentials"])
def test_without_a_key_the_error_names_all_three_places(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        find_api_key({}, tmp_path / path)
    for place in ("api_key=", "INFRAI_API_KEY", "~/.infrai/credentials"):
        assert place in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["a directory", "not UTF-8"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "credentials"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        find_api_key({}, file)
    assert str(caught.value).startswith(f"{file} cannot be read (")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"{KEY}\n{KEY}",
        '{"api_key": ""}',
        '{"api_key": 5}',
        "{}",
        f'{{"key": "{KEY}"}}',
        f'{{"api_key": ["{KEY}"]}}',
    ],
)
def test_a_file_without_a_usable_key_is_named_and_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "credentials"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        find_api_key({}, file)
    assert str(caught.value).startswith(f"the API key from {file} must be a non-empty string")
    assert "hunter2" not in f"{caught.value!r}"


@pytest.mark.parametrize("text", [f'{{"api_key": "{KEY}', f"{{{KEY}}}"])
def test_a_broken_json_file_says_what_it_must_hold_and_is_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "credentials"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        find_api_key({}, file)
    must = f'{file} must contain {{"api_key": "..."}} or the bare key'
    assert str(caught.value) == f"{must}: it begins with a brace, but is not valid JSON"


def test_a_wrong_key_of_the_environment_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_api_key({"INFRAI_API_KEY": "hünter2"}, Path("unused"))
    assert "INFRAI_API_KEY" in str(caught.value)
    assert "hünter2" not in f"{caught.value} {caught.value!r}"


def test_a_key_is_a_secret() -> None:
    key = check_api_key(KEY, "api_key")
    assert isinstance(key, Secret)
    assert repr(key) == "'***'"
    assert f"{[key]} {(key,)} { ({'key': key}) }".count("hunter2") == 0


def test_a_secret_is_the_string_that_it_is() -> None:
    assert Secret(KEY) == KEY
    assert f"Bearer {Secret(KEY)}" == "Bearer ifr_pk_proj_hunter2"


# --- writing it (D15) ----------------------------------------------------------------------------------------------


def test_written_credentials_are_their_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / ".infrai" / "credentials"
    prepare_credentials(file)
    write_credentials(file, KEY)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_that_could_not_be_written_is_refused_before_there_is_a_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory" / "credentials").mkdir(parents=True)
    for path in (*(tmp_path / name / "credentials" for name in ("file", "directory")), Path("~/.infrai/credentials")):
        with pytest.raises(ConfigurationError, match="write_credentials=False"):
            prepare_credentials(path)


def test_an_assignment_in_the_credentials_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"INFRAI_API_KEY={KEY}")
    with pytest.raises(ConfigurationError, match="not an assignment") as caught:
        find_api_key({}, file)
    assert KEY not in str(caught.value)


def test_written_credentials_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    write_credentials(file, Secret(KEY))
    assert json.loads(file.read_text()) == {"api_key": KEY}
    assert find_api_key({}, file) == KEY


def test_the_file_that_was_there_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("ifr_old")
    write_credentials(file, KEY)
    assert (tmp_path / "credentials.previous").read_text() == "ifr_old"


def test_nothing_else_is_left_behind(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    for key in ("ifr_1", "ifr_2", "ifr_3"):
        write_credentials(file, key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["credentials", "credentials.previous"]
    assert find_api_key({}, file) == "ifr_3"


def test_a_previous_file_that_everybody_could_read_becomes_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("ifr_old")
    file.chmod(0o644)
    write_credentials(file, KEY)
    for path in (file, tmp_path / "credentials.previous"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_who_looks_while_several_write_finds_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    write_credentials(file, "ifr_0")
    with ThreadPoolExecutor(8) as threads:
        writing = [threads.submit(write_credentials, file, f"ifr_{number}") for number in range(100)]
        while not all(one.done() for one in writing):
            assert find_api_key({}, file).startswith("ifr_")
        for one in writing:
            one.result()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["credentials", "credentials.previous"]


def test_credentials_live_in_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert credentials_file() == tmp_path / ".infrai" / "credentials"
