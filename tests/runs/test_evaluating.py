"""One definition of loss and bits per byte for the validation split, files, scores, and validation in training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Core
from tokenizers import decoders, models, normalizers

import gptkit
from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.components.tokenizer.hugging_face import HuggingFaceTokenizer
from gptkit.core.errors import DataError
from gptkit.data.text_bytes import bytes_of_text
from gptkit.inference import score
from gptkit.training.records import read_metrics
from tests.support.chat_run import CHAT_TEMPLATE

CONTEXT = 24
LINES = [{"q": f"What is {number}?", "a": f"It is {number % 7}, naïvely."} for number in range(40)]


def spec(data: dict[str, Any], tokenizer: Any = "byte", **training: Any) -> dict[str, Any]:
    return {
        "tokenizer": tokenizer,
        "model": {"context_length": CONTEXT, "d_model": 16, "n_layers": 1, "attention": {"n_heads": 2}},
        "data": data,
        "training": {"steps": 2, "batch_size": 2, "sample_tokens": 0, "precision": "fp32", "device": "cpu", **training},
    }


@pytest.mark.parametrize("prompts", [False, True])
def test_the_same_text_has_the_same_numbers_in_every_way(tmp_path: Path, prompts: bool) -> None:
    corpus, held_out = tmp_path / "lines.jsonl", tmp_path / "held.jsonl"
    corpus.write_text("\n".join(map(json.dumps, LINES)))
    data = {"name": "jsonl", "path": str(corpus), "field": "a", "validation": 0.3}
    data |= {"prompt_field": "q", "prompt_end": "\n"} if prompts else {}
    run = gptkit.train(spec(data, evaluate_batches=1000), tmp_path / "run", progress=False)
    text = run.tokenizer.decode(run.prepared().validation.tokens.tolist())
    validated = [
        line["validation_loss"] for line in read_metrics(tmp_path / "run/metrics.jsonl") if "validation_loss" in line
    ]
    on_split = run.evaluate()
    assert on_split["loss"] == pytest.approx(validated[-1], rel=1e-6)
    documents = [document for document in text.split("<|endoftext|>") if document]
    chosen = [line for line in LINES if (f"{line['q']}\n" if prompts else "") + line["a"] in documents]
    held_out.write_text("\n".join(json.dumps(line) for line in chosen))
    assert run.evaluate(held_out) == pytest.approx(on_split, rel=1e-6)
    assert run.evaluate([held_out, held_out])["loss"] == pytest.approx(on_split["loss"], rel=0.02)


def test_a_text_within_the_context_has_the_loss_of_its_score(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the cat sat on the mat " * 60)
    run = gptkit.train(spec({"name": "text", "path": str(corpus)}), tmp_path / "run", progress=False)
    (tmp_path / "one.txt").write_text("a naïve text")
    end = run.tokenizer.end_id
    assert end is not None
    log_p_T = score(run.model, [*run.tokenizer.encode("a naïve text"), end]).double()
    result = run.evaluate(tmp_path / "one.txt")
    assert result["loss"] == pytest.approx(-float(log_p_T.mean()), rel=1e-6)
    assert result["tokens"] == len("a naïve text".encode())
    # The end token is not text, so its loss does not count. The first byte is not predicted.
    n_bytes = len("a naïve text".encode()) - 1
    assert result["bits_per_byte"] == pytest.approx(-float(log_p_T[:-1].sum()) / math.log(2) / n_bytes, rel=1e-6)


def test_files_of_several_types_are_evaluated_together(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the cat sat on the mat " * 60)
    run = gptkit.train(spec({"name": "text", "path": str(corpus)}), tmp_path / "run", progress=False)
    (tmp_path / "one.txt").write_text("the cat sat " * 9)
    (tmp_path / "two.jsonl").write_text(json.dumps({"text": "on a mat " * 30}))
    parts = [run.evaluate(tmp_path / name) for name in ("one.txt", "two.jsonl")]
    both = run.evaluate([tmp_path / "one.txt", tmp_path / "two.jsonl"])
    assert both["tokens"] == sum(part["tokens"] for part in parts)
    assert both["loss"] == pytest.approx(sum(part["loss"] * part["tokens"] for part in parts) / both["tokens"])
    with pytest.raises(DataError):
        run.evaluate(tmp_path / "absent.txt")


def test_lines_with_other_fields_have_a_remedy_that_a_run_accepts(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("the cat sat on the mat " * 30)
    run = gptkit.train(spec({"name": "text", "path": str(tmp_path / "one.txt")}), tmp_path / "run")
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "One", "completion": "two"}))
    with pytest.raises(DataError, match="no field 'text'") as caught:
        run.evaluate(tmp_path / "pairs.jsonl")
    assert caught.value.hint is not None
    assert "Set `" not in caught.value.hint
    assert caught.value.hint.endswith("""jq -c '{"text": .FIELD}' FILE > LINES""")


def test_bits_per_byte_are_omitted_for_lossy_tokenizers(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the cat sat on the mat " * 60)
    words = {"name": "word", "fallback": "unknown"}
    run = gptkit.train(spec({"name": "text", "path": str(corpus)}, words), tmp_path / "run", progress=False)
    (tmp_path / "known.txt").write_text("the mat sat on the cat")
    (tmp_path / "unknown.txt").write_text("the dog sat on the cat")
    assert run.evaluate(tmp_path / "known.txt")["bits_per_byte"] > 0
    lossy = run.evaluate([tmp_path / "known.txt", tmp_path / "unknown.txt"])
    assert "bits_per_byte" not in lossy
    assert lossy["loss"] > 0


def test_space_added_by_a_vocabulary_is_not_counted(tmp_path: Path) -> None:
    from gptkit.data import prepare
    from gptkit.files import validate_data
    from gptkit.runs.spec import ExperimentSpec

    core = Core(models.BPE({"<s>": 0, "</s>": 1, "▁": 2, "a": 3, "b": 4, "ab": 5, "▁ab": 6}, [("a", "b"), ("▁", "ab")]))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    core.add_special_tokens(["<s>", "</s>"])
    tokenizer = HuggingFaceTokenizer(core.to_str().encode(), "<s>", "</s>")
    assert tokenizer.leading == b" "
    texts = ["ab ab", "b", " a"]
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    data = {"name": "jsonl", "path": str(tmp_path / "lines.jsonl"), "validation": 0}
    data_spec = validate_data({"model": {}, "data": data}, ExperimentSpec).data
    prepared = prepare(data_spec, tokenizer, tmp_path / "tokens", tmp_path)
    bytes_N = torch.from_numpy(bytes_of_text(prepared.train, tokenizer))
    assert int(bytes_N[bytes_N > 0].sum()) == sum(len(text.encode()) for text in texts)
    assert int((bytes_N < 0).sum()) == 2 * len(texts)


def test_damaged_tokens_outside_the_vocabulary_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text of some words\n" * 50)
    data = {"name": "text", "path": str(tmp_path / "a.txt"), "validation": 0.3}
    run = gptkit.train(spec(data), tmp_path / "run", progress=False)
    damaged = tmp_path / "run/data/validation-00000.bin"
    damaged.write_bytes(b"\xff" * damaged.stat().st_size)
    with pytest.raises(DataError, match="the tokens are damaged: 65535 is not an id of the tokenizer's 257"):
        bytes_of_text(run.prepared().validation, run.tokenizer)


def test_conversations_have_the_same_numbers_in_both_ways(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    words = BpeSpec(vocab_size=300, pattern="gpt2", special_tokens=("<|turn|>", "<|done|>")).fit(iter(["what is it"]))
    (tmp_path / "words").mkdir()
    (tmp_path / "words/tokenizer.json").write_text(words.to_tokenizer_json())
    (tmp_path / "words/tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    (tmp_path / "words/chat_template.jinja").write_text(CHAT_TEMPLATE)
    talks = [
        {"messages": [{"role": "user", "content": line["q"]}, {"role": "assistant", "content": line["a"]}]} for line in LINES
    ]
    (tmp_path / "talks.jsonl").write_text("\n".join(map(json.dumps, talks)))
    data = {"name": "jsonl", "path": str(tmp_path / "talks.jsonl"), "messages_field": "messages", "validation": 0.3}
    tokenizer = {"name": "hugging-face", "path": str(tmp_path / "words")}
    run = gptkit.train(spec(data, tokenizer), tmp_path / "run", progress=False)
    on_split = run.evaluate()
    held_out = run.tokenizer.decode(run.prepared().validation.tokens.tolist())
    chosen = [talk for talk in talks if f"user\n{talk['messages'][0]['content']}<" in held_out]
    assert 0 < len(chosen) < len(talks)
    (tmp_path / "held.jsonl").write_text("\n".join(map(json.dumps, chosen)))
    assert run.evaluate(tmp_path / "held.jsonl") == pytest.approx(on_split, rel=1e-6)
    assert on_split["bits_per_byte"] > 0
