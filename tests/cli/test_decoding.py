"""`--decoding`, `--sampler` with presets, and errors in both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptkit.core.errors import SpecError
from gptkit.files import read, validate
from gptkit.runs.run import load
from gptkit.runs.spec import ExperimentSpec
from tests.support.command_line import Call


def generated(call: Call, run: Path, *options: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = json.loads(call("generate", run, "the cat", "-n", "6", "--json", *options).stdout)
    return result


def test_decoding_searches_and_returns_alternatives(call: Call, run: Path) -> None:
    (one,) = generated(call, run, "--decoding", "beam=3")
    assert len(one["alternatives"]) == 3
    assert one["alternatives"][0]["text"] == one["text"]
    scores = [each["score"] for each in one["alternatives"]]
    assert scores == sorted(scores, reverse=True)
    (greedy,) = generated(call, run, "--sampler", "greedy")
    assert "alternatives" not in greedy
    assert generated(call, run, "--decoding", "beam=1")[0]["text"] == greedy["text"]
    assert generated(call, run, "--decoding", "{name: contrastive, k: 1}")[0]["text"] == greedy["text"]
    assert load(run).generate("the cat", max_new_tokens=6, decoding={"name": "beam", "width": 3}) == one["text"]


def test_a_search_is_printed_at_its_end_and_needs_no_seed(call: Call, run: Path) -> None:
    shown = call("generate", run, "the cat", "-n", "6", "--decoding", "diverse-beam")
    assert shown.stdout.startswith("the cat")
    assert "seed" not in shown.stderr
    assert "seed" in call("generate", run, "the cat", "-n", "6", "--decoding", "best-of=2").stderr


def test_count_of_a_search_is_of_its_best_texts(call: Call, run: Path) -> None:
    (one,) = generated(call, run, "--decoding", "beam=3", "--count", "2")
    shown = call("generate", run, "the cat", "-n", "6", "--no-echo", "--decoding", "beam=3", "--count", "2")
    assert shown.stdout == "\n".join(f"{each['text']}\n" for each in one["alternatives"][:2])
    assert len({each["text"] for each in one["alternatives"]}) == 3
    fewer = call("generate", run, "the cat", "-n", "6", "--decoding", "beam=2", "--count", "5")
    assert "beam found 2 of 5 texts" in fewer.stderr
    assert len(generated(call, run, "--decoding", "best-of=2", "--count", "2")) == 2


def test_a_search_that_does_not_fit_in_memory_is_refused(call: Call, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptkit.model import plan

    sizes: list[tuple[int, str]] = []
    monkeypatch.setattr(plan, "refuse_unless_fits", lambda n, what, *_, **__: sizes.append((n, what)))
    call("generate", run, "a", "b", "-n", "1", "--decoding", "beam=3", "--quiet")
    call("generate", run, "a", "-n", "1", "--decoding", "{name: diverse-beam, groups: 3, width: 2}", "--quiet")
    assert ["the key/value cache of 3 texts" in sizes[0][1], "of 6 texts" in sizes[1][1]] == [True, True]
    assert sizes[1][0] == 2 * sizes[0][0] > 0


def test_preset_is_a_sampler_of_the_command_line(call: Call, run: Path) -> None:
    one, two = (
        generated(call, run, "--seed", "3", "--sampler", sampler)[0]["text"]
        for sampler in ("llama.cpp", "{name: llama.cpp, top_k: 40}")
    )
    assert one == two
    assert "seed" not in call("generate", run, "a", "-n", "1", "--sampler", "{name: llama.cpp, temperature: 0}").stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--decoding", "beem"], "did you mean 'beam'"),
        (["--decoding", "beam=0"], "--decoding beam=0: width: must be at least 1, got 0"),
        (["--decoding", "{name: beam, widht: 3}"], "widht"),
        (["--decoding", "beam=3, length_penalty=2"], "Use a mapping"),
        (["--decoding", "sample=2"], "takes no value"),
        (["--decoding", "beam", "--trace", "x.html"], "cannot be recorded"),
        (["--sampler", "{name: llama.cpp, temp: 0.8}"], "temperature"),
        (["--sampler", "{name: dry, breakers: ['']}"], "breakers"),
        (["--sampler", "{name: sequence-bias, sequences: [{bias: 1.0}]}"], "either a text or tokens"),
        (["--sampler", "{name: sequence-bias, sequences: [{text: a, tokens: [1], bias: 1.0}]}"], "either a text or tokens"),
        (["--sampler", "xtc=2"], "threshold"),
        (["--sampler", "mirostat=0"], "tau"),
        (["--sampler", "{name: forced-tokens, tokens: {'-1': 3}}"], "tokens"),
        (["--sampler", "{name: forced-tokens, tokens: {'0': 99999}}"], "but the vocabulary has"),
        (["--sampler", "{name: watermark, ratio: 1}"], "ratio"),
        (["--sampler", "{name: watermark, scheme: other}"], "scheme"),
        (["--sampler", "{name: expiring-bias, decay: slow}"], "decay"),
        (["--sampler", "reasoning-budget=-1"], "budget"),
        (["--sampler", "guidance=high"], "scale"),
        (["--sampler", "{name: banned-strings, strings: abc}"], "strings"),
    ],
)
def test_errors_name_the_option_and_the_field(call: Call, run: Path, tmp_path: Path, options: list[str], words: str) -> None:
    message = call("generate", run, "the cat", "-n", "2", *options, code=2).stderr
    assert words in " ".join(message.split())
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("decoding: {name: beam, width: none}", "decoding.width"),
        ("decoding: {name: beam, early_stopping: sometimes}", "decoding.early_stopping"),
        ("decoding: [beam]", "decoding"),
        ("decoding: {name: contrastive, alpha: 2}", "decoding.alpha"),
        ("sampler: [{name: xtc, threshold: 0}]", "sampler.0.threshold"),
        ("sampler: [{name: dry, base: 0.5}]", "sampler.0.base"),
        ("sampler: [greedy, {name: llama.cpp, mirostat: 3}]", "sampler.1.mirostat"),
        ("sampler: [{name: reasoning-budget, start: ''}]", "sampler.0.start"),
        ("sampler: [{name: adaptive-p, decay: 1}]", "sampler.0.decay"),
        ("sampler: [{name: tail-free, z: 1.5}]", "sampler.0.z"),
    ],
)
def test_errors_in_a_spec_file_name_line_and_field(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"model: {{d_model: 16, n_layers: 1, context_length: 8}}\n{text}\n")
    with pytest.raises(SpecError) as error:
        validate(read(path), ExperimentSpec)
    assert words in str(error.value)
    assert "spec.yaml:2:" in str(error.value)
