"""Files that the pages of the documentation name: small runs, models, texts and specs, in which the pages are executed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import tokenizers
from ruamel.yaml import YAML

import gptkit
from tests.support.snippets import ROOT

__all__ = ["make_released_model", "make_stage"]

TEXTS = (
    *("my.txt", "book.txt", "novels.txt", "a.txt", "b.txt", "story.txt", "letters.txt", "specs/letters.txt"),
    *("other.txt", "books/one.txt", "books/two.txt", "data/text.txt"),
)
RUNS = ("gpt", "smollm2", "large", "small", "qwen", "tiny", "teacher")
DIRECTORIES = ("SmolLM2-135M-Instruct", "SmolLM2-135M", "path/to/Qwen3-0.6B", "models/SmolLM2-135M")
GGUF = ("SmolLM2-135M-Instruct.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf")
MODEL: dict[str, Any] = {
    "d_model": 64,
    "n_layers": 3,
    "context_length": 256,
    "position": "rotary",
    "attention": {"name": "grouped-query", "n_heads": 2, "n_kv_heads": 1},
    "norm": "rms",
    "feedforward": {"name": "gated", "d_hidden": 128},
}
TRAINING = {"steps": 1, "batch_size": 1, "window": 64, "evaluate_batches": 1, "log_every": 1, "device": "cpu"}


def make_tokenizer_files(directory: Path) -> Path:
    """Write a tokenizer with a token for each byte, an end token and a chat template; return the directory of its files."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["Once"],
        tokenizers.trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=["?", "<end>"], show_progress=False),
    )
    directory.mkdir(parents=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}<end>{% endfor %}assistant:"
    config = {"eos_token": "<end>", "chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def make_released_model(directory: Path) -> dict[str, Any]:
    """Write a corpus, a run and an external model of the family llama; return the run's spec.

    The working directory must be this directory.
    """
    text = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("architecture.md", "decisions.md"))
    (directory / "corpus.txt").write_text(text[:20_000], encoding="utf-8")
    files = make_tokenizer_files(directory / "files")
    spec = {
        "name": "corpus",
        "tokenizer": {"name": "hugging-face", "path": str(files)},
        "model": MODEL,
        "data": {"name": "text", "path": str(directory / "corpus.txt")},
        "training": TRAINING,
    }
    gptkit.train(spec, "runs/gpt", progress=False)
    gptkit.export_model("runs/gpt", "SmolLM2-135M-Instruct")
    return spec


def make_stage(directory: Path) -> None:
    """Write the files that the pages name, below a directory. The working directory must be this directory.

    The runs are one model of the family llama, except `runs/my`, which no family expresses and which has 400 steps, and
    `runs/multi` with a multi-token head.
    """
    spec = make_released_model(directory)
    text = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("architecture.md", "decisions.md"))
    for name in TEXTS:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if path.parent.name == "books" else text[:20_000], encoding="utf-8")
    messages = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A small model."}]
    lines = [{"messages": messages, "question": "Who?", "answer": "A model.", "text": text[:500]}] * 40
    for name in ("chats.jsonl", "questions.jsonl", "code/lines.jsonl"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for name in ("my.yaml", "spec.yaml", "new.yaml", "gpt.yaml", "base.yaml", "specs/my.yaml"):
        with (directory / name).open("w", encoding="utf-8") as stream:
            YAML(typ="safe", pure=True).dump(spec, stream)
    gptkit.export_model("runs/gpt", GGUF[0])
    for name in RUNS[1:]:
        shutil.copytree(directory / "runs" / "gpt", directory / "runs" / name)
    for name in DIRECTORIES[1:]:
        shutil.copytree(directory / DIRECTORIES[0], directory / name)
    shutil.copy(directory / GGUF[0], directory / GGUF[1])
    gptkit.train({**spec, "model": {**MODEL, "head": "multi-token"}}, "runs/multi", progress=False)
    other = {**MODEL, "d_model": 32, "n_layers": 2, "context_length": 1024, "norm": "layer", "block": "sandwich"}
    gptkit.train({**spec, "model": other, "training": {**TRAINING, "steps": 400, "window": 8}}, "runs/my", progress=False)
