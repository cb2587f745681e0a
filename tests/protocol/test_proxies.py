"""Which proxy the environment names, and what it exempts; and what a proxy's URL must be."""

from __future__ import annotations

import pytest

from infrai_async._protocol.proxies import check_proxy, environment_proxy
from infrai_async.errors import ConfigurationError

PROXY = "http://proxy.example:3128"


def proxied(origin: str, no_proxy: str) -> bool:
    """Whether calls to a service go through the proxy."""
    return environment_proxy(origin, {"http_proxy": PROXY, "https_proxy": PROXY, "no_proxy": no_proxy}) is not None


# --- which variable ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"https_proxy": "http://a"}, "http://a"),
        ({"HTTPS_PROXY": "http://a"}, "http://a"),
        ({"https_proxy": "http://a", "HTTPS_PROXY": "http://b"}, "http://a"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://b"}, None),
        ({"http_proxy": "http://a"}, None),
        ({"all_proxy": "http://a"}, "http://a"),
        ({"ALL_PROXY": "http://a"}, "http://a"),
        ({"ALL_PROXY": "http://a", "HTTPS_PROXY": "http://b"}, "http://b"),
        ({"https_proxy": "a.example:3128"}, "http://a.example:3128"),
        ({"https_proxy": "user:passw0rd@a.example:3128"}, "http://user:passw0rd@a.example:3128"),
        ({"https_proxy": ' "http://a" '}, "http://a"),
        ({"https_proxy": "HTTP://a/"}, "HTTP://a/"),
        ({"https_proxy": "https://a"}, "https://a"),
        ({"https_proxy": "[::1]:3128"}, "http://[::1]:3128"),
        ({"HTTPS_PROXY": "http://a", "REQUEST_METHOD": "GET"}, "http://a"),
        ({"HTTPS_PROXY": "http://a", "NO_PROXY": "api.test"}, None),
        ({"HTTPS_PROXY": "http://a", "no_proxy": "", "NO_PROXY": "api.test"}, "http://a"),
        ({"HTTPS_PROXY": "http://a", "no_proxy": "other.test", "NO_PROXY": "api.test"}, "http://a"),
    ],
    ids=repr,
)
def test_the_variables_of_the_environment_have_an_order(environment: dict[str, str], expected: str | None) -> None:
    assert environment_proxy("https://api.test", environment) == expected


def test_a_cgi_programs_caller_cannot_choose_the_proxy() -> None:
    for environment, expected in [
        ({"HTTP_PROXY": PROXY}, PROXY),
        ({"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None),
        ({"http_proxy": PROXY, "REQUEST_METHOD": "GET"}, PROXY),
        ({"HTTP_PROXY": "http://forged", "ALL_PROXY": PROXY, "REQUEST_METHOD": "GET"}, PROXY),
    ]:
        assert environment_proxy("http://api.test", environment) == expected


# --- exceptions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("no_proxy", "origin", "exempt"),
    [
        ("*", "https://api.test", True),
        ("a.test, *", "https://api.test", True),
        ("api.test", "https://api.test", True),
        ("API.Test", "https://api.test", True),
        ("api.test.", "https://api.test", True),
        ("api.test", "https://api.test.", True),
        ("test", "https://api.test", True),
        (".test", "https://api.test", True),
        (".api.test", "https://api.test", True),
        ("*.test", "https://api.test", True),
        ("pi.test", "https://api.test", False),
        ("api.tes", "https://api.test", False),
        ("x.api.test", "https://api.test", False),
        ("a.test,b.test api.test", "https://api.test", True),
        (" , ,api.test ,", "https://api.test", True),
        ('"api.test"', "https://api.test", True),
        (", ,", "https://api.test", False),
        (".", "https://api.test", False),
        ("api.test:443", "https://api.test", True),
        ("api.test:80", "https://api.test", False),
        ("api.test:80", "http://api.test", True),
        ("api.test:8443", "https://api.test:8443", True),
        (".test:8443", "https://api.test:8443", True),
        ("*:8443", "https://api.test:8443", True),
        ("*:80", "https://api.test:8443", False),
        ("api.test:port", "https://api.test", False),
        ("api.test:99999999999999999999", "https://api.test", False),
        ("127.0.0.1", "http://127.0.0.1:8000", True),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", True),
        ("127.0.0.1:1", "http://127.0.0.1:8000", False),
        ("0.0.1", "http://127.0.0.1", False),
        ("127.0.0.0/8", "http://127.0.0.1:8000", True),
        ("127.0.0.1/8", "http://127.0.0.1:8000", True),
        ("127.0.0.0/255.0.0.0", "http://127.0.0.1:8000", True),
        ("10.0.0.0/8", "http://127.0.0.1:8000", False),
        ("127.0.0.0/99", "http://127.0.0.1:8000", False),
        ("127.0.0.0/8", "http://api.test", False),
        ("::1", "http://[::1]:8000", True),
        ("0:0:0:0:0:0:0:1", "http://[::1]:8000", True),
        ("[::1]", "http://[::1]:8000", True),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("[::1]:8001", "http://[::1]:8000", False),
        ("fd00::/8", "http://[fd12::1]", True),
        ("[fd00::]/8", "http://[fd12::1]", True),
        ("fe80::/10", "http://[fd12::1]", False),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]", True),
        ("bücher.example", "https://xn--bcher-kva.example", True),
        (".BÜCHER.example", "https://a.xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "https://xn--bcher-kva.example", True),
        ("\u2603" * 300, "https://api.test", False),
        ("localhost", "http://127.0.0.1", False),
    ],
    ids=ascii,
)
def test_no_proxy_exempts_names_addresses_and_networks(no_proxy: str, origin: str, exempt: bool) -> None:
    assert proxied(origin, no_proxy) is not exempt


def test_what_is_exempt_needs_no_usable_proxy() -> None:
    assert environment_proxy("https://api.test", {"https_proxy": "socks5://a", "no_proxy": "api.test"}) is None


# --- what a proxy's URL must be ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "http://a:3128/",
        "https://user:passw0rd@a:443",
        "http://user:p%40ss@a",
        "http://user:p%C3%BC@a",
        "http://[::1]:3128",
    ],
)
def test_the_url_of_an_http_proxy_is_taken_as_it_is(url: str) -> None:
    taken = check_proxy(url, "proxy")
    assert taken == url
    assert repr(taken) == "'***'"


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("socks5://user:passw0rd@a:1080", "SOCKS (socks5://) is not supported, only proxies that speak HTTP are"),
        ("socks5h://passw0rd@a:1080", "SOCKS (socks5h://) is not supported, only proxies that speak HTTP are"),
        ("SOCKS4://a", "SOCKS (socks4://) is not supported, only proxies that speak HTTP are"),
        ("socks://a", "SOCKS (socks://) is not supported, only proxies that speak HTTP are"),
        ("ftp://user:passw0rd@a", "it does not begin with http:// or https://"),
        ("passw0rd://a", "it does not begin with http:// or https://"),
        ("user:passw0rd@a:3128", "it does not begin with http:// or https://"),
        ("", "it does not begin with http:// or https://"),
        (5, "it does not begin with http:// or https://"),
        ("http://", "it does not name a host"),
        ("http://user:passw0rd@", "it does not name a host"),
        ("http://a b", "it does not name a host"),
        ("http://a\n", "it does not name a host"),
        ("http://a:0", "it does not name a host"),
        ("http://a:99999", "it is not a URL (special characters of a user or a password are percent-encoded)"),
        ("http://user:passw0rd#@a", "it is not a URL (special characters of a user or a password are percent-encoded)"),
        ("http://[::1", "it is not a URL (special characters of a user or a password are percent-encoded)"),
        ("http://user:1#passw0rd@a", "special characters of its user or password must be percent-encoded"),
        ("http://user:1/passw0rd@a", "special characters of its user or password must be percent-encoded"),
        ("http://user:1?passw0rd@a", "special characters of its user or password must be percent-encoded"),
        ("http://us%3Aer:passw0rd@a", "its user must not contain a colon"),
        ("http://user:passw0rd%E2%82%AC@a", "its user and password must consist of Latin-1 characters"),
    ],
    ids=ascii,
)
def test_every_other_proxy_is_refused_by_name_and_not_shown(url: object, fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_proxy(url, "HTTPS_PROXY")
    must = "HTTPS_PROXY must be the URL of an HTTP proxy, such as http://proxy.example:3128"
    assert str(caught.value) == f"{must}: {fault}"
    assert caught.value.__context__ is None
    trace = caught.value.__traceback__
    assert trace is not None
    assert trace.tb_next is not None
    assert "passw0rd" not in repr(trace.tb_next.tb_frame.f_locals)


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_the_variable_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be") as caught:
        environment_proxy("https://api.test", {name: "socks5://user:passw0rd@a"})
    assert "passw0rd" not in str(caught.value)
