"""Servers of two small untrained models, one of them with a chat template."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

import gptkit
from gptkit.components.tokenizer.byte import ByteSpec
from gptkit.runs.run import Run
from tests.support.chat_run import make_chat_run
from tests.support.server import ServerProcess


def make_plain_run(directory: Path, context_length: int = 512) -> Path:
    """Write a small untrained model of bytes, without a chat template."""
    tokenizer = ByteSpec().fit(iter(()))
    model = {"d_model": 32, "n_layers": 2, "context_length": context_length, "attention": {"n_heads": 2}}
    spec = {"sampler": [{"name": "temperature", "value": 0.7}], "tokenizer": "byte"}
    return gptkit.save_run(directory, gptkit.GPT(model, vocab_size=tokenizer.vocab_size, seed=1), tokenizer, spec=spec)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the directories of the models `plain` and `chat`."""
    directory = tmp_path_factory.mktemp("runs")
    return make_plain_run(directory / "plain"), make_chat_run(directory / "chat", context_length=512)


@pytest.fixture(scope="session")
def plain(runs: tuple[Path, Path]) -> Run:
    """Return the model `plain`, loaded here."""
    return gptkit.load(runs[0])


@pytest.fixture(scope="session")
def chat(runs: tuple[Path, Path]) -> Run:
    """Return the model `chat`, loaded here."""
    return gptkit.load(runs[1])


@pytest.fixture(scope="session")
def server(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Return a running server of both models."""
    log = tmp_path_factory.mktemp("server") / "log"
    process = ServerProcess(runs, log, "--max-batch", "16", "--max-queue", "32", "--max-tokens", "500")
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    """Return a client of the server."""
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as made:
        yield made
