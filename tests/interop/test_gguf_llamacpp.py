"""llama.cpp reads exported files: equal generated tokens and equal tokenization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gptkit
from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.components.tokenizer.tiktoken import TiktokenSpec
from gptkit.core.errors import TokenizerError
from gptkit.runs.exporting import export_model
from gptkit.text.published import recipe
from gptkit.text.ranks import RankTokenizer
from tests.support.gguf_families import NAMES, family_of, model_of, tolerance_of
from tests.support.gguf_models import DECODER, MODELS, make_pieces, make_run
from tests.support.llama_server import PROMPTS, compare_probabilities, greedy, served, written

pytest.importorskip("xllamacpp", reason="llama.cpp is not installed")

TEXTS = [
    "Hello, world! It's the other cat's hat.",
    "12345 and 678, 9\n\n\n  indented\ttabs  \n",
    "é 中文 🙂 naïve ÅNGSTRÖM don'T WE'LL",
    "  leading and trailing  ",
    "x == y; foo(bar)/*baz*/ <|no special|>",
]
PROSE = ["The cat sat on the mat, and the other cat's 12 hats sat on the other mats. " * 20]


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
            compare_probabilities(ask, back, ids, tolerance_of(name))


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
