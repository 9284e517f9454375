"""Contract of the kind `sampler`, for every registered sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gptkit.core.errors import GptkitError
from gptkit.core.registry import default_registry
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec
from gptkit.kinds.tokenizer import TokenizerSpec
from gptkit.ops.rule_out import rule_out

VOCAB = 131
NAMES = default_registry().names("sampler")


def specs(name: str) -> list[SamplerSpec]:
    cls = default_registry().component("sampler", name)
    result = [cls.model_validate({"name": name, **fields}) for fields in ({}, *cls.examples)]
    return [spec for spec in result if isinstance(spec, SamplerSpec)]


def logits_and_history(batch: int) -> tuple[torch.Tensor, list[list[int]]]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, VOCAB, generator=generator) * 4
    logits[:, ::3] = -torch.inf
    history = [torch.randint(0, VOCAB, (3 + 2 * row,), generator=generator).tolist() for row in range(batch)]
    return logits, history


def build(spec: SamplerSpec, batch: int) -> Sampler:
    byte = default_registry().component("tokenizer", "byte").model_validate({"name": "byte"})
    assert isinstance(byte, TokenizerSpec)
    return spec.build(SamplerContext(VOCAB, batch, byte.fit(iter(())), reader=Reader))


class Reader:
    """Logits of a second forward pass, the same for every text."""

    def __call__(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.linspace(-3, 3, VOCAB).expand(len(texts), -1)

    def reorder(self, rows: Sequence[int]) -> None: ...


def test_documented_samplers_are_registered() -> None:
    assert {"greedy", "temperature", "top-k", "top-p", "min-p", "repetition-penalty"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_shape_and_dtype_are_kept_and_inputs_unchanged(name: str) -> None:
    for spec in specs(name):
        logits, history = logits_and_history(4)
        before, history_before = logits.clone(), [list(row) for row in history]
        out = build(spec, 4)(logits, history)
        assert torch.equal(logits, before)
        assert history == history_before
        assert out.shape == logits.shape
        assert out.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_excluded_tokens_remain_excluded_and_one_token_is_kept(name: str) -> None:
    for spec in specs(name):
        logits, history = logits_and_history(4)
        logits[2] = -torch.inf
        logits[2, 2] = -5.0
        logits[3] = 1.25  # all tokens alike
        out = build(spec, 4)(logits, history)
        assert (out[logits == -torch.inf] == -torch.inf).all()
        assert (out > -torch.inf).any(dim=-1).all()
        assert not out.isnan().any()
        assert (out < torch.inf).all()


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_independent(name: str) -> None:
    for spec in specs(name):
        logits, history = logits_and_history(4)
        together = build(spec, 4)(logits, history)
        for row in range(4):
            alone = build(spec, 1)(logits[row : row + 1], history[row : row + 1])
            torch.testing.assert_close(together[row], alone[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["top-k", "top-p", "min-p", "typical", "epsilon", "eta", "top-n-sigma"])
def test_equal_logits_are_kept_or_excluded_together(name: str) -> None:
    spec = default_registry().component("sampler", name).model_validate({"name": name})
    assert isinstance(spec, SamplerSpec)
    if name == "top-k":
        spec = spec.replace(k=2)
    logits = torch.tensor([[2.0, 2.0, 2.0, -9.0], [5.0, 1.0, 1.0, 1.0]])
    out = spec.build(SamplerContext(4, 2))(logits, [[], []])
    assert len(set(out[0, :3].tolist())) == 1
    assert len(set(out[1, 1:].tolist())) == 1


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("temperature", {"value": 0}, "use the sampler 'greedy'"),
        ("temperature", {"value": -1}, "positive"),
        ("temperature", {"value": float("nan")}, "finite"),
        ("top-k", {"k": 0}, "greater than or equal to 1"),
        ("top-p", {"p": 0}, "greater than 0"),
        ("top-p", {"p": 1.1}, "less than or equal to 1"),
        ("min-p", {"p": -0.1}, "greater than 0"),
        ("repetition-penalty", {"penalty": 0}, "greater than or equal to 0.01"),
        ("repetition-penalty", {"window": 0}, "greater than or equal to 1"),
    ],
)
def test_invalid_fields_are_rejected(name: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        default_registry().component("sampler", name).model_validate({"name": name, **fields})


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("suppress-tokens", {"tokens": [4, 131]}),
        ("logit-bias", {"bias": {"-1": 2}}),
        ("expiring-bias", {"bias": {"131": 2}}),
        ("forced-tokens", {"tokens": {"0": -1}}),
        ("sequence-bias", {"sequences": [{"tokens": [1, 131], "bias": 1.0}]}),
    ],
)
def test_ids_outside_the_vocabulary_are_rejected(name: str, fields: dict[str, Any]) -> None:
    spec = default_registry().component("sampler", name).model_validate({"name": name, **fields})
    assert isinstance(spec, SamplerSpec)
    with pytest.raises(GptkitError, match=f"'{name}' has token (131|-1), but the vocabulary has 131"):
        build(spec, 1)


def test_rule_out_keeps_rows_that_it_would_empty() -> None:
    logits = torch.tensor([[1.0, -torch.inf, 2.0], [1.0, -torch.inf, 2.0]])
    out = rule_out(logits, torch.tensor([[True, False, True], [False, False, True]]))
    assert out.tolist() == [[1.0, -torch.inf, 2.0], [1.0, -torch.inf, -torch.inf]]
