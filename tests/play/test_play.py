"""`gptkit play`: the server by HTTP, and the page in a browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import gptkit
from gptkit.cli.main import app
from tests.support.browser import browser_page
from tests.support.chat_run import make_chat_run

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

CHAIN = [{"name": "temperature", "value": 0.9}, {"name": "top-k", "k": 20}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("jinja2")
    return make_chat_run(tmp_path_factory.mktemp("play") / "run", context_length=64)


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[str]:
    """The address of a running server, as host:port. It must end cleanly at Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gptkit", "play", str(run), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url), process.communicate()
    yield url.removeprefix("http://").rstrip("/")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "ERROR" not in errors


def request(
    server: str, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection(server, timeout=120)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        given.setdefault("Content-Type", "application/json")
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    connection.request(method, path, data, given)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, response, text


def generated(server: str, **body: Any) -> list[dict[str, Any]]:
    status, response, text = request(server, "POST", "/generate", {"sampler": CHAIN, "max_new_tokens": 6, **body})
    assert status == 200, text
    assert response.headers["content-type"].startswith("text/event-stream")
    return [json.loads(part.removeprefix("data: ")) for part in text.strip().split("\n\n")]


def test_page_and_its_headers(server: str) -> None:
    status, response, text = request(server, "GET", "/")
    assert status == 200
    assert "connect-src 'self'" in text
    assert not re.search(r"https?://(?!www.w3.org/2000/svg)", text)
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in response.headers


def test_stream_is_the_text_of_generate(server: str, run: Path) -> None:
    events = generated(server, prompt="hello", seed=7)
    loaded = gptkit.load(run, device="cpu")
    ids = loaded.tokenizer.encode("hello")
    (result,) = gptkit.generate(
        loaded.model, loaded.tokenizer, [ids], sampler=CHAIN, max_new_tokens=6, seed=7, stop_ids=loaded.text_ends, trace=True
    )
    assert result.trace is not None
    assert [token["id"] for token in events[0]["prompt"]] == ids
    assert [token for event in events for token in event.get("tokens", ())] == json.loads(
        json.dumps([token.as_dict() for token in result.trace])
    )
    assert events[-1] == {"finish": result.finish, "seed": 7, "ended": len(result.trace) > len(result.ids)}


def test_texts_continue_from_tokens_and_messages(server: str, run: Path) -> None:
    tokenizer = gptkit.load(run, device="cpu").tokenizer
    ids = [*tokenizer.encode("hello"), 5]
    events = generated(server, ids=ids)
    assert [token["id"] for token in events[0]["prompt"]] == ids
    message = generated(server, chat="hello")
    assert "<|turn|>" in "".join(token["text"] for token in message[0]["prompt"])
    assert 0 <= message[-1]["seed"] < 1 << 32


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": "a", "sampler": [{"name": "top-kk"}]}, "unknown sampler 'top-kk'"),
        ({"prompt": "a", "sampler": [{"name": "top-k", "k": 0}]}, "must be at least 1"),
        ({"prompt": "a", "max_new_tokens": 0}, "max_new_tokens"),
        ({"prompt": "a", "ids": [1]}, "one of prompt, chat and ids"),
        ({}, "one of prompt, chat and ids"),
        ({"ids": [999_999]}, "the model's vocabulary has"),
        ({"ids": []}, "no token"),
        ({"ids": [1] * 64}, "the text has 64 tokens, and the context 64"),
        ({"prompt": "a", "what": 1}, "what"),
        (b"{", "JSON"),
    ],
)
def test_wrong_requests_are_explained(server: str, body: Any, message: str) -> None:
    status, _, text = request(server, "POST", "/generate", body)
    assert status == 400
    assert message in json.loads(text)["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8765"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Host": "localhost"}, 200),
    ],
)
def test_other_sites_are_refused(server: str, headers: dict[str, str], status: int) -> None:
    assert request(server, "POST", "/generate", {"prompt": "hello", "max_new_tokens": 1}, **headers)[0] == status
    if "Host" in headers:
        assert request(server, "GET", "/", **headers)[0] == status


def test_other_paths_methods_and_sizes(server: str) -> None:
    assert request(server, "GET", "/generate")[0] == 405
    assert request(server, "GET", "/etc/passwd")[0] == 404
    assert request(server, "OPTIONS", "/generate", Origin="http://evil.example")[0] == 403
    assert request(server, "POST", "/generate", b" " * ((1 << 20) + 1))[0] == 413


def test_closed_connection_ends_the_generation(server: str) -> None:
    for _ in range(12):  # more than run and wait at once
        host, port = server.split(":")
        with socket.create_connection((host, int(port)), timeout=120) as connection:
            body = json.dumps({"prompt": "hello", "max_new_tokens": 50}).encode()
            head = ["POST /generate HTTP/1.1", f"Host: {server}", "Content-Type: application/json"]
            head += [f"Content-Length: {len(body)}", "", ""]
            connection.sendall("\r\n".join(head).encode() + body)
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
    end = time.monotonic() + 240
    while "finish" not in generated(server, prompt="hello")[-1]:  # the server notices a closed connection a moment later
        assert time.monotonic() < end
        time.sleep(0.05)


def test_port_in_use_and_missing_run(server: str, run: Path, tmp_path: Path) -> None:
    port = server.split(":")[1]
    result = CliRunner().invoke(app, ["play", str(run), "--port", port])
    assert result.exit_code == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in result.stderr
    result = CliRunner().invoke(app, ["play", str(tmp_path / "nothing"), "--port", "0"])
    assert result.exit_code == 2
    assert "error" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_page_in_a_browser(server: str, width: int, dark: bool) -> None:
    with browser_page(width=width, dark=dark, expected="400 (Bad Request)") as page:
        page.goto(f"http://{server}/")
        page.fill("#prompt", "hello")
        page.fill("#length", "6")
        page.fill("#seed", "7")
        for name in ("top-p", "temperature"):
            page.select_option("#add", name)
            page.click("#add-sampler")
        # Remove what the run's spec has, and put the temperature first.
        while page.locator(".sampler").count() > 2:
            page.locator(".sampler").first.get_by_title("remove").click()
        page.locator(".sampler").nth(1).get_by_title("move up").click()
        assert page.locator(".sampler b").all_inner_texts() == ["temperature", "top-p"]
        page.fill('[data-name="temperature"] [data-field="value"]', "0.7")
        page.click("#generate")
        page.wait_for_selector("#stop", state="hidden")
        page.wait_for_selector(".token.drawn")
        page.get_by_text("seed 7").wait_for()
        drawn = page.locator(".token.drawn").all_inner_texts()
        page.locator(".token.drawn").nth(2).hover()
        assert page.locator(".hover").is_visible()
        page.locator(".token.drawn").nth(2).click()
        heads = page.locator("#token .steps thead th").all_inner_texts()
        assert [head.split("\n")[0] for head in heads] == ["candidate", "model", "temperature", "top-p"]
        assert "value 0.7" in heads[2]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # Another candidate replaces the token; the ones before it stay, and the text continues.
        alternative = page.locator("#token .alternative").first
        name = alternative.inner_text()
        alternative.click()
        page.wait_for_selector("#stop", state="hidden")
        page.wait_for_selector(".token.forced")
        page.get_by_text("seed 7").wait_for()
        assert page.locator(".token.forced").get_attribute("aria-label").startswith(name)
        assert page.locator(".token.drawn").all_inner_texts()[:2] == drawn[:2]
        page.click("#undo")
        assert page.locator(".token.drawn").all_inner_texts() == drawn
        # A changed field changes the next generation; an error is shown and leaves the page usable.
        page.fill('[data-name="top-p"] [data-field="p"]', "7")
        page.click("#generate")
        page.locator(".message").wait_for()
        assert "must be at most 1" in page.locator(".message").inner_text()
        page.fill('[data-name="top-p"] [data-field="p"]', "0.5")
        page.keyboard.press("Escape")
        page.locator("#prompt").press("Control+Enter")
        page.get_by_text("seed 7").wait_for()
        assert page.locator(".message").is_hidden()
