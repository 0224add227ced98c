"""The page at `/`, without a browser: its files, and what is said of them to a browser."""

import http.client
import re

import pytest

from tfllm.gateway.page_files import page_files

REFERENCE = re.compile(r'(?:href|src|from)[= ]"([^"]+)"')
TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


def texts():
    return {path: file.body.decode() for path, file in page_files().items()}


def test_every_file_is_served_as_what_it_is(running):
    for path, file in page_files().items():
        connection, response = running.open("GET", path)
        assert (response.status, response.read()) == (200, file.body), path
        suffix = path.rpartition(".")[2] if path != "/" else "html"
        assert response.headers["Content-Type"] == f"{TYPES[suffix]}; charset=utf-8"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        connection.close()


def test_only_files_of_the_page_are_served(running):
    for path in ("/page/", "/page/../server.py", "/page/page_files.py", "/page/%2e%2e/server.py"):
        assert running.ask("GET", path)[0] == 404


def test_what_the_files_refer_to_is_there():
    for path, text in texts().items():
        for found in REFERENCE.findall(text):
            wanted = found.replace("./", "/page/", 1) if found.startswith("./") else found
            if not found.startswith("http"):
                assert wanted in page_files(), f"{path} refers to {found}"


def test_every_file_is_referred_to():
    found = {
        each.rpartition("/")[2] for text in texts().values() for each in REFERENCE.findall(text)
    }
    assert {path.rpartition("/")[2] for path in page_files()} - {""} == found


def test_no_file_asks_another_host():
    for path, text in texts().items():
        code = re.sub(r"^//.*|^ ?\*.*", "", text, flags=re.MULTILINE)  # comments name sources
        hosts = set(re.findall(r"(?:https?:)?//[\w.]+", code))
        assert hosts <= {"http://www.w3.org"}, path  # the name of a namespace
        assert not re.findall(r"url\(|@import|\bimport\(", code), path


def test_nothing_makes_markup_or_code_of_text():
    made = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(")
    for path, text in texts().items():
        assert not made.search(text), path
    assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", texts()["/"])


@pytest.mark.parametrize("path", ["/", "/page/main.js"])
def test_a_browser_may_load_nothing_from_elsewhere(running, path):
    connection, response = running.open("GET", path)
    response.read()
    connection.close()
    policy = dict(
        rule.split(" ", 1) for rule in response.headers["Content-Security-Policy"].split("; ")
    )
    assert policy.pop("default-src") == policy.pop("trusted-types") == "'none'"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert set(policy.values()) == {"'self'", "'none'"}


def test_the_page_is_small():
    """A slow line shows it at once."""
    assert sum(len(file.body) for file in page_files().values()) < 60_000


def test_a_head_request_is_answered(running):
    connection = http.client.HTTPConnection("127.0.0.1", running.gateway.port, timeout=60)
    connection.request("HEAD", "/")
    assert connection.getresponse().status == 200
    connection.close()
