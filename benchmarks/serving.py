"""The server under load: throughput of one client and of eight, and 64 clients that also cancel, leave and send garbage.

::

    python -m benchmarks.serving                    # 20 s per throughput, 180 s of load
    python -m benchmarks.serving --seconds 8 --load 40 --clients 64
    python -m benchmarks.serving --run runs/gpt

Without ``--run`` the throughput is that of a GPT-2 of 124 M random parameters on bytes, and the load that of a model of 4 M,
so that many requests are answered. The load phase fails if an answer has a status of 500 or more, if two equal requests get
different texts, if memory, threads or files grow after a warm-up, or if requests still run at the end. The times of the load
phase are those of complete answers, waiting in the queue included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gptkit
from gptkit.components.tokenizer.byte import ByteSpec

N_TOKENS = 48


@dataclass
class Load:
    """Results of the load phase."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    n_left: int = 0


LARGE = {"d_model": 768, "n_layers": 12, "context_length": 1024, "vocab_size": 50_304, "attention": {"n_heads": 12}}
SMALL = {"d_model": 256, "n_layers": 4, "context_length": 512, "vocab_size": 4096, "attention": {"n_heads": 8}}


def make_run(directory: Path, model: dict[str, Any]) -> Path:
    """Write an untrained model."""
    tokenizer = ByteSpec().fit(iter(()))
    return gptkit.save_run(directory, gptkit.GPT(model, seed=1), tokenizer)


class Server:
    """`gptkit serve` in a process."""

    def __init__(self, run: Path, log: Path, options: list[str]) -> None:
        command = [sys.executable, "-m", "gptkit", "serve", str(run), "--name", "model", "--port", "0", *options]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr)
        while not (match := re.search(r"at http://127\.0\.0\.1:(\d+)/", log.read_text())):
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.1)
        self.port = int(match[1])

    def resources(self) -> dict[str, float]:
        """Return resident memory in MB, threads and open files."""
        process = Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return {
            "MB": int(status["VmRSS"].split()[0]) / 1000,
            "threads": int(status["Threads"]),
            "files": len(list((process / "fd").iterdir())),
        }

    def stop(self) -> int:
        """End the server; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def request(body: Any, path: str = "/v1/completions") -> bytes:
    """Return a whole HTTP request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {len(data)}")
    return "\r\n".join((*lines, "Connection: close")).encode() + b"\r\n\r\n" + data


def completion(seed: int, **fields: Any) -> dict[str, Any]:
    """Return the body of a completion, which depends on the seed only."""
    prompt = f"Request number {seed} asks for " + "more " * (seed % 20)
    return {"prompt": prompt, "max_tokens": N_TOKENS, "seed": seed, "temperature": 1.0, "ignore_eos": True, **fields}


async def exchange(port: int, data: bytes, read: int = -1) -> tuple[int, bytes]:
    """Send a request on a connection of its own; return the status and the body, or 0 and the first `read` bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        answer = await reader.read(read)
    finally:
        writer.close()
    if read >= 0:
        return 0, answer
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, content


async def throughput(port: int, n_clients: int, seconds: float) -> float:
    """Return generated tokens per second of clients that send one request after another."""
    end, n_tokens = time.perf_counter() + seconds, 0

    async def client(index: int) -> None:
        nonlocal n_tokens
        turn = 0
        while time.perf_counter() < end:
            status, content = await exchange(port, request(completion(1000 * index + turn)))
            assert status == 200, content
            n_tokens += json.loads(content)["usage"]["completion_tokens"]
            turn += 1

    begin = time.perf_counter()
    await asyncio.gather(*(client(index) for index in range(n_clients)))
    return n_tokens / (time.perf_counter() - begin)


async def visit(port: int, load: Load, random_: random.Random) -> None:
    """Send one random request."""
    kind = random_.random()
    seed = random_.randrange(40)
    begin = time.perf_counter()
    if kind < 0.65:
        stream = random_.random() < 0.5
        status, content = await exchange(port, request(completion(seed, stream=stream)))
        if status == 200:
            load.seconds.append(time.perf_counter() - begin)
            text = streamed(content) if stream else json.loads(content)["choices"][0]["text"]
            if load.texts.setdefault(seed, text) != text:
                load.problems.append(f"request {seed} got two texts")
    elif kind < 0.75:  # leaves during the stream
        await exchange(port, request(completion(seed, stream=True)), read=random_.randrange(1, 2000))
        load.n_left += 1
        return
    elif kind < 0.85:  # leaves before the answer
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(completion(seed, n=2)))
        await writer.drain()
        await asyncio.sleep(random_.random())
        writer.close()
        load.n_left += 1
        return
    elif kind < 0.95:
        body = random_.choice([b"{", b"[]", b"\xff\xfe", {"prompt": 5}, {"prompt": "a", "n": 10**9}, b"[" * 10_000])
        status, _ = await exchange(port, request(body))
    else:
        status, _ = await exchange(port, request(b" " * (5 * 1024 * 1024)))
    load.statuses[status] = load.statuses.get(status, 0) + 1
    if status >= 500 or status == 0:
        load.problems.append(f"status {status}")
    if status == 429:
        await asyncio.sleep(random_.random())


def streamed(content: bytes) -> str:
    """Return the text of a stream of chunks."""
    # The chunks of HTTP are separated by their sizes, which no line of an event begins with.
    lines = [line for line in content.decode().split("\n") if line.startswith("data: {")]
    return "".join(json.loads(line.removeprefix("data: "))["choices"][0]["text"] for line in lines)


async def under_load(port: int, n_clients: int, seconds: float, seed: int) -> Load:
    """Let clients send random requests for a time."""
    load, end = Load(), time.perf_counter() + seconds

    async def client(index: int) -> None:
        random_ = random.Random(f"{seed}/{index}")
        while time.perf_counter() < end:
            try:
                await visit(port, load, random_)
            except (ConnectionError, OSError) as error:
                load.problems.append(repr(error))

    await asyncio.gather(*(client(index) for index in range(n_clients)))
    return load


async def settled(port: int) -> bool:
    """Wait until no request runs or waits; return whether that happened within 30 seconds."""
    for _ in range(300):
        get = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        _, content = await exchange(port, get)
        values = re.findall(rb"^gptkit_(?:running_requests|queue_length)\{.*\} (\S+)$", content, re.MULTILINE)
        if values and all(float(value) == 0 for value in values):
            return True
        await asyncio.sleep(0.1)
    return False


def percentile(values: list[float], share: float) -> float:
    """Return a percentile of the values."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def measure_throughput(server: Server, options: argparse.Namespace) -> list[str]:
    """Measure one client and eight."""
    await throughput(server.port, 8, 3)
    one = await throughput(server.port, 1, options.seconds)
    eight = await throughput(server.port, 8, options.seconds)
    print(f"throughput: 1 client {one:.0f} tokens/s, 8 clients {eight:.0f} tokens/s, {eight / one:.2f} times")
    return []


async def measure_load(server: Server, options: argparse.Namespace) -> list[str]:
    """Let many clients send random requests; return the problems."""
    problems: list[str] = []
    await under_load(server.port, options.clients, min(20, options.load / 2), seed=0)
    problems += [] if await settled(server.port) else ["requests still run after the warm-up"]
    before = server.resources()
    load = await under_load(server.port, options.clients, options.load, seed=1)
    problems += load.problems + ([] if await settled(server.port) else ["requests still run at the end"])
    await asyncio.sleep(1)
    after = server.resources()
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(load.statuses.items()))
    print(f"load: {options.clients} clients for {options.load:g} s; statuses {statuses}; {load.n_left} left early")
    if load.seconds:
        median, high = statistics.median(load.seconds), percentile(load.seconds, 0.99)
        print(f"complete answers: {len(load.seconds)}, p50 {median:.2f} s, p99 {high:.2f} s; {len(load.texts)} distinct")
    for name, value in before.items():
        print(f"{name}: {value:.0f} before, {after[name]:.0f} after")
    if after["MB"] > 1.05 * before["MB"] + 20:
        problems.append("memory grew")
    if after["threads"] > before["threads"] or after["files"] > before["files"]:
        problems.append("threads or files grew")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run directory")
    parser.add_argument("--seconds", type=float, default=20, help="time of each throughput measurement; 0 for none")
    parser.add_argument("--load", type=float, default=180, help="time of the load phase; 0 for none")
    parser.add_argument("--clients", type=int, default=64, help="clients of the load phase")
    parser.add_argument("--serve", default="", help="further options of gptkit serve")
    options = parser.parse_args()
    phases = [(measure_throughput, LARGE, options.seconds), (measure_load, SMALL, options.load)]
    problems: list[str] = []
    for phase, model, seconds in phases:
        if not seconds:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            run = options.run or make_run(Path(scratch) / "run", model)
            server = Server(run, Path(scratch) / "log", options.serve.split())
            try:
                problems += asyncio.run(phase(server, options))
            finally:
                code = server.stop()
            problems += [] if code == 0 else [f"the server ended with code {code}"]
    for problem in sorted(set(problems)):
        print(f"PROBLEM: {problem} ({problems.count(problem)} times)")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
