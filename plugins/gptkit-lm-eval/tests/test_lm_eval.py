"""Scores against those of the model for single texts, and an evaluation by the harness, without network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from gptkit_lm_eval import GptkitLM
from gptkit_lm_eval.windows import rolling, windows
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

import gptkit
from gptkit.core.errors import GptkitError

CONTEXT = 24
TEXT = "the cat sat on the mat and the dog lay on the rug. one two three four five six. "


def train(directory: Path, tokenizer: str = "{name: bpe, vocab_size: 290}", **model: Any) -> gptkit.Run:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "text.txt").write_text(TEXT * 40, encoding="utf-8")
    parts = {"d_model": 16, "n_layers": 1, "context_length": CONTEXT, "attention": {"name": "multi-head", "n_heads": 2}}
    (directory / "gpt.yaml").write_text(
        f"""
        tokenizer: {tokenizer}
        model: {json.dumps({**parts, **model})}
        data: {{name: text, path: text.txt}}
        training: {{steps: 30, batch_size: 8, optimizer: {{name: adamw, learning_rate: 1e-2}}}}
        """,
        encoding="utf-8",
    )
    return gptkit.train(str(directory / "gpt.yaml"), str(directory / "run"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    return train(tmp_path_factory.mktemp("run"))


def ask(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=given, idx=i) for i, given in enumerate(arguments)]  # type: ignore[arg-type]


@torch.no_grad()
def alone(run: gptkit.Run, ids: list[int], n: int) -> tuple[float, bool]:
    """Score the last n tokens given the rest in one unpadded call."""
    logits = run.model(torch.tensor([ids[:-1]])).logits[0, -n:]
    scores = logits.log_softmax(-1)[range(n), ids[-n:]]
    return float(scores.sum()), logits.argmax(-1).tolist() == ids[-n:]


PAIRS = [
    ("the cat", " sat on"),
    ("the cat sat", " five"),
    ("one two three four", " five six."),
    ("a", " b"),
    ("the dog ", "lay"),
]


def test_a_text_that_tokens_lose_has_no_score(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = train(tmp_path, "{name: word, fallback: unknown}")
    lm = GptkitLM(words)
    result = lm.loglikelihood_rolling(ask("loglikelihood_rolling", ("the cat",), ("the horse",)), disable_tqdm=True)
    assert result[0] < 0
    assert math.isnan(result[1])
    assert "the tokenizer loses part of 1 of 2 texts" in caplog.text


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_scores_of_continuations_equal_those_of_the_model(run: gptkit.Run, batch_size: int | str) -> None:
    lm = GptkitLM(run, batch_size=batch_size)
    result = lm.loglikelihood(ask("loglikelihood", *PAIRS), disable_tqdm=True)
    for (context, continuation), (score, greedy) in zip(PAIRS, result, strict=True):
        whole = run.tokenizer.encode(context + continuation)
        n = len(whole) - len(run.tokenizer.encode(context.rstrip()))
        expected, most_likely = alone(run, whole, n)
        assert score == pytest.approx(expected, abs=1e-4)
        assert greedy == most_likely
    assert {greedy for _, greedy in result} == {True, False}, "both answers must occur"


def test_is_greedy_equals_greedy_decoding(run: gptkit.Run) -> None:
    lm = GptkitLM(run)
    written = run.generate("the cat", sampler=["greedy"], max_new_tokens=5)
    ((_, greedy),) = lm._loglikelihood_tokens(
        [(("", ""), run.tokenizer.encode("the cat"), run.tokenizer.encode(written))], disable_tqdm=True
    )
    assert greedy


def test_text_without_context_follows_the_end_token(run: gptkit.Run) -> None:
    lm = GptkitLM(run)
    end = run.tokenizer.end_id
    assert end is not None
    ids = [end, *run.tokenizer.encode("the cat")]
    expected, _ = alone(run, ids, len(ids) - 1)
    ((score, _),) = lm.loglikelihood(ask("loglikelihood", ("", "the cat")), disable_tqdm=True)
    assert score == pytest.approx(expected, abs=1e-4)
    (rolled,) = lm.loglikelihood_rolling(ask("loglikelihood_rolling", ("the cat",)), disable_tqdm=True)
    assert rolled == pytest.approx(expected, abs=1e-4)


def test_long_texts_are_scored_in_windows(run: gptkit.Run) -> None:
    lm = GptkitLM(run)
    text = TEXT + TEXT.upper()
    ids = [run.tokenizer.end_id, *run.tokenizer.encode(text)]
    assert len(ids) > 3 * CONTEXT
    expected, at = 0.0, 1
    while at < len(ids):
        end = min(at + CONTEXT, len(ids))
        expected += alone(run, ids[max(0, end - CONTEXT - 1) : end], end - at)[0]
        at = end
    (score,) = lm.loglikelihood_rolling(ask("loglikelihood_rolling", (text,)), disable_tqdm=True)
    assert score == pytest.approx(expected, rel=1e-5)
    ((whole, _),) = lm.loglikelihood(ask("loglikelihood", ("", text)), disable_tqdm=True)
    assert whole == pytest.approx(expected, rel=1e-5)


def test_windows_agree_with_the_harness_and_score_every_token_once() -> None:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    for length in (0, 1, 5, 6, 7, 23):
        tokens = list(range(100, 100 + length))
        expected = [make_disjoint_window(pair) for pair in get_rolling_token_windows(tokens, 7, 6, 1)]
        assert list(rolling(tokens, 7, 6)) == expected
    assert list(windows([1, 2, 3, 4], [5, 6], 3)) == [([3, 4], [5, 6])]
    assert list(windows([1], [2, 3, 4, 5, 6], 2)) == [([1], [2, 3]), ([3], [4, 5]), ([4, 5], [6])]


def test_positions_that_depend_on_the_length_are_not_padded(tmp_path: Path) -> None:
    scaling = {"name": "dynamic", "original_context_length": 4}
    run = train(tmp_path, position={"name": "rotary", "scaling": scaling})
    result = GptkitLM(run).loglikelihood(ask("loglikelihood", *PAIRS), disable_tqdm=True)
    for (context, continuation), (score, _) in zip(PAIRS, result, strict=True):
        whole = run.tokenizer.encode(context + continuation)
        n = len(whole) - len(run.tokenizer.encode(context.rstrip()))
        assert score == pytest.approx(alone(run, whole, n)[0], abs=1e-4)


def test_every_text_begins_with_the_start_token(tmp_path: Path) -> None:
    run = train(tmp_path, tokenizer='{name: byte, start_token: "<|start|>"}')
    lm, start = GptkitLM(run), run.tokenizer.start_id
    assert start is not None
    ids = [start, *b"the cat"]
    expected, _ = alone(run, ids, 4)
    ((score, _),) = lm.loglikelihood(ask("loglikelihood", ("the", " cat")), disable_tqdm=True)
    assert score == pytest.approx(expected, abs=1e-4)
    (rolled,) = lm.loglikelihood_rolling(ask("loglikelihood_rolling", ("the cat",)), disable_tqdm=True)
    assert rolled == pytest.approx(alone(run, ids, 7)[0], abs=1e-4)


def test_texts_are_generated_greedily_to_their_stop(run: gptkit.Run) -> None:
    lm = GptkitLM(run, batch_size=2)
    prompts = ["the cat sat on the mat and", "one two", "the dog lay on", "the cat"]
    hows = [
        {"until": ["."], "max_gen_toks": 9},
        {"until": " f", "max_gen_toks": 9},
        {"max_gen_toks": 2},
        {"until": ["."], "max_gen_toks": 9},
    ]
    result = lm.generate_until(ask("generate_until", *zip(prompts, hows, strict=True)), disable_tqdm=True)
    for prompt, how, text in zip(prompts, hows, result, strict=True):
        stop = how.get("until", [])
        expected = run.generate(prompt, sampler=["greedy"], max_new_tokens=how["max_gen_toks"], stop=stop)  # type: ignore[arg-type]
        assert text == expected


def test_sampling_follows_the_options_of_the_harness(run: gptkit.Run) -> None:
    lm = GptkitLM(run)

    def write(prompt: str, **how: Any) -> str:
        (text,) = lm.generate_until(ask("generate_until", (prompt, {"max_gen_toks": 8, **how})), disable_tqdm=True)
        return text

    greedy = write("one")
    assert write("one", do_sample=False, temperature=2.0) == greedy
    assert write("one", do_sample=True, temperature=0.0) == greedy
    assert write("one", do_sample=True, temperature=5.0, top_k=1) == greedy
    hot = write("one", do_sample=True, temperature=50.0)
    assert hot != greedy
    assert write("one", temperature=50.0) == hot, "the same seed gives the same text"


def test_prompt_longer_than_the_context_keeps_its_end(run: gptkit.Run) -> None:
    (text,) = GptkitLM(run).generate_until(ask("generate_until", (TEXT * 3, {"max_gen_toks": 4})), disable_tqdm=True)
    ids = run.tokenizer.encode(TEXT * 3)[-(CONTEXT - 4) :]
    (expected,) = gptkit.generate(run.model, run.tokenizer, [ids], sampler=[_greedy()], max_new_tokens=4)
    assert text == expected.text


def _greedy() -> Any:
    return gptkit.default_registry().component("sampler", "greedy").model_validate({"name": "greedy"})


def test_tokenizer_without_special_tokens_requires_a_context(tmp_path: Path) -> None:
    run = train(tmp_path, tokenizer="{name: byte, end_token: null}")
    lm = GptkitLM(run)
    assert lm.loglikelihood(ask("loglikelihood", ("a", " b")), disable_tqdm=True)
    with pytest.raises(GptkitError, match="neither a start nor an end token"):
        lm.loglikelihood(ask("loglikelihood", ("", "a b")), disable_tqdm=True)


def test_harness_evaluates_a_run(run: gptkit.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [
        {"question": "the cat sat on", "choices": [" the mat", " xyzzy"], "answer": 0},
        {"question": "one two three", "choices": [" QQQQ", " four"], "answer": 1},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "target_delimiter": "",
    }
    choose = {
        **shared,
        "task": "choose",
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
    }
    spell = {
        **shared,
        "task": "spell",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "word_perplexity"}],
    }
    model = get_model("gptkit").create_from_arg_string(f"run={run.directory}", {"batch_size": "4", "device": "cpu"})
    assert isinstance(model, GptkitLM)
    assert model.batch_size == 4
    manager = TaskManager(include_defaults=False)
    result = lm_eval.simple_evaluate(model=model, tasks=[choose, spell], task_manager=manager, bootstrap_iters=0)
    assert result is not None
    assert result["results"]["choose"]["acc,none"] == 1.0
    assert 1 < result["results"]["spell"]["word_perplexity,none"] < 1e6
    assert result["config"]["run"] == str(run.directory)
