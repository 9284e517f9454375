"""llama.cpp reads exported files: equal generated tokens and equal tokenization."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.components.tokenizer.tiktoken import TiktokenSpec
from gptkit.core.errors import TokenizerError
from gptkit.runs.exporting import export_model
from gptkit.text.published import recipe
from gptkit.text.ranks import RankTokenizer
from tests.support.gguf_families import NAMES, family_of, model_of
from tests.support.gguf_models import DECODER, GROUPED, MODELS, make_pieces, make_run

xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp is not installed")

TEXTS = [
    "Hello, world! It's the other cat's hat.",
    "12345 and 678, 9\n\n\n  indented\ttabs  \n",
    "é 中文 🙂 naïve ÅNGSTRÖM don'T WE'LL",
    "  leading and trailing  ",
    "x == y; foo(bar)/*baz*/ <|no special|>",
]
PROSE = ["The cat sat on the mat, and the other cat's 12 hats sat on the other mats. " * 20]


@contextlib.contextmanager
def served(file: Path) -> Iterator[Any]:
    """Start a server on this machine, and yield a client."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.n_ctx, parameters.n_parallel, parameters.port = 64, 1, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    # By default keys and values are cached in half precision, which changes close choices.
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server: Any = xllamacpp.Server(parameters)

    def ask(path: str, **body: Any) -> Any:
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), head)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    yield ask
    # The server stops when its last reference is deleted.
    parameters = server = None


def written(ask: Any, ids: list[int], count: int) -> list[int]:
    greedy = {"temperature": 0.0, "top_k": 1, "repeat_penalty": 1.0}
    result: list[int] = ask("/completion", prompt=ids, n_predict=count, return_tokens=True, ignore_eos=True, **greedy)[
        "tokens"
    ]
    return result


def greedy(run: gptkit.Run, ids: list[int], count: int) -> tuple[list[int], float]:
    """Return the most likely tokens, without the end token, and the smallest margin to the second most likely one."""
    ids, begin, closest = list(ids), len(ids), float("inf")
    for _ in range(count):
        with torch.no_grad():
            logits_V = run.model(torch.tensor([ids])).logits[0, -1]
        logits_V[run.tokenizer.end_id] = -torch.inf
        best = logits_V.topk(2)
        closest = min(closest, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return ids[begin:], closest


@pytest.mark.parametrize("type", ["f32", "f16"])
@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens_equal_llama_cpp(tmp_path: Path, name: str, type: Any) -> None:
    run = make_run(tmp_path / "run", MODELS[name])
    file = export_model(run, tmp_path / "model.gguf", to={"name": "gguf", "type": type})
    # Both use the file's weights, so that their rounding is not compared.
    back = gptkit.import_model(file, tmp_path / "back")
    back.model.float()
    with served(file) as ask:
        for prompt in ("The quick brown fox", "é!"):
            ids = list(prompt.encode())
            expected, closest = greedy(back, ids, 20)
            assert written(ask, ids, 20) == expected, f"the closest choice was by {closest:.1g}"


GELU = ("falcon", "mpt", "gemma", "starcoder2")
"""ggml computes GELU by a table in fp16."""
PROMPTS = ["The quick brown fox jumps over", "in the beginning was the word", "0123456789 abcdefghij"]


@pytest.mark.parametrize("name", NAMES)
def test_families_equal_llama_cpp(tmp_path: Path, name: str) -> None:
    """Greedy tokens, and the probabilities of the most likely ones, which exceed the attention windows."""
    run = make_run(tmp_path / "run", model_of(name))
    file = export_model(run, tmp_path / "model.gguf", family=family_of(name).component_name())
    back = gptkit.import_model(file, tmp_path / "back")
    with served(file) as ask:
        for prompt in PROMPTS:
            ids = list(prompt.encode())
            expected, closest = greedy(back, ids, 12)
            assert written(ask, ids, 12) == expected, f"the closest choice was by {closest:.1g}"
            with torch.no_grad():
                logits_TV = back.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            for end in range(8, len(ids) + 1, 3):
                # Tokens that are parts of characters are reported without probabilities.
                answer = ask("/completion", prompt=ids[:end], n_predict=1, temperature=0.0, n_probs=8)
                for entry in answer.get("completion_probabilities", [{"top_logprobs": []}])[0]["top_logprobs"]:
                    tolerance = 8e-3 if name.startswith(GELU) else 2e-4
                    assert entry["logprob"] == pytest.approx(float(logits_TV[end - 1, entry["id"]]), abs=tolerance)


WIDE = {
    **DECODER,
    "d_model": 256,
    "n_layers": 2,
    "attention": {**GROUPED, "d_head": 64},
    "feedforward": {"name": "gated", "d_hidden": 512},
}


@pytest.mark.parametrize("type", ["bf16", "q8_0", "q4_0", "q4_k", "q6_k"])
def test_quantized_files_equal_llama_cpp(tmp_path: Path, type: Any) -> None:
    """llama.cpp rounds the activations too (to bf16, or to blocks of 8 bits), which changes close choices.

    So each of its tokens must be the most likely one in gptkit too, or nearly so, after the same tokens.
    """
    file = export_model(make_run(tmp_path / "run", WIDE), tmp_path / "model.gguf", to={"name": "gguf", "type": type})
    back = gptkit.import_model(file, tmp_path / "back")
    back.model.float()
    gaps: list[float] = []
    with served(file) as ask:
        for prompt in PROMPTS:
            ids = list(prompt.encode())
            for token in written(ask, ids, 10):
                with torch.no_grad():
                    logits_V = back.model(torch.tensor([ids])).logits[0, -1]
                logits_V[back.tokenizer.end_id] = -torch.inf
                gaps.append(float(logits_V.max() - logits_V[token]))
                ids.append(token)
    # Another model's tokens would be some standard deviations of the logits away from the best.
    spread = float(logits_V[:256].std())
    assert max(gaps) < 0.5 * spread, (gaps, spread)
    assert sum(gap == 0 for gap in gaps) > 0.8 * len(gaps)


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "gpt4o"])
def test_token_ids_equal_llama_cpp(tmp_path: Path, pattern: str) -> None:
    spec = BpeSpec(vocab_size=400, pattern=pattern, special_tokens=("<|user|>",), start_token="<|endoftext|>")
    words = spec.fit(iter([*PROSE, *TEXTS]))
    run = make_run(tmp_path / "run", DECODER, spec.model_dump(mode="json"), words)
    file = export_model(run, tmp_path / "model.gguf")
    # An imported and exported tokenizer, through tokenizer.json, gives equal ids.
    again = export_model(gptkit.import_model(file, tmp_path / "back").directory, tmp_path / "again.gguf")
    for each in (file, again):
        with served(each) as ask:
            for text in TEXTS:
                assert ask("/tokenize", content=text)["tokens"] == words.encode(text)
            message = ask("/tokenize", content="<|user|> Hi", add_special=True)["tokens"]
            assert message == [words.start_id, *words.encode("<|user|> Hi", allowed_special=["<|user|>"])]


@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base"])
def test_published_patterns_equal_llama_cpp(tmp_path: Path, encoding: Any) -> None:
    """Regular expressions of published encodings, with a generated vocabulary."""
    trained = BpeSpec(vocab_size=400, pattern="gpt4").fit(iter([*PROSE, *TEXTS]))
    assert isinstance(trained, RankTokenizer)
    ranks = trained.ranks
    words = RankTokenizer("tiktoken", recipe(encoding).pattern, ranks, {"<|endoftext|>": 500}, end="<|endoftext|>")
    spec = TiktokenSpec(encoding=encoding).model_dump(mode="json")
    with served(export_model(make_run(tmp_path / "run", DECODER, spec, words), tmp_path / "model.gguf")) as ask:
        for text in TEXTS:
            assert ask("/tokenize", content=text)["tokens"] == words.encode(text)


def test_published_ranks_equal_llama_cpp(tmp_path: Path) -> None:
    spec = TiktokenSpec(encoding="gpt2")
    try:
        words = spec.fit(iter(()))
    except TokenizerError as error:
        pytest.skip(f"GPT-2's ranks are unavailable: {error.message}")
    narrow = {**DECODER, "d_model": 32, "n_layers": 1}
    run = make_run(tmp_path / "run", narrow, spec.model_dump(mode="json"), words)
    with served(export_model(run, tmp_path / "model.gguf", to={"name": "gguf", "type": "f16"})) as ask:
        for text in TEXTS:
            assert ask("/tokenize", content=text)["tokens"] == words.encode(text)


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_tokens_equal_llama_cpp(tmp_path: Path, prefix: bool) -> None:
    """SentencePiece vocabularies, imported and exported again: token ids equal those of llama.cpp."""
    file = make_pieces(tmp_path, prefix)
    back = gptkit.import_model(file, tmp_path / "back")
    native = back.tokenizer
    assert (native.start_id, native.end_id) == (1, 2)
    texts = ["the inn", " there  sings\n\nher", "tttt ttt    and é中🙂", "ohne Sinn <s> xyz", "here<turn> and there"]
    for each in (file, export_model(back.directory, tmp_path / "again.gguf")):
        with served(each) as ask:
            for text in texts:
                result = ask("/tokenize", content=text)["tokens"]
                assert native.encode(text, allowed_special=native.special_tokens) == result, text
                # As in models with this option, a word after a special token gets another space.
                assert native.decode(result) == text or (prefix and "<" in text)
