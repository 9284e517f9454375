"""Every attention backend against the eager one, for each mask and score term that it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch

from gptkit.components.attention.multi_head import MultiHeadSpec
from gptkit.core.component import Component
from gptkit.core.errors import GptkitError, SpecError
from gptkit.kinds.context import LayerParts
from gptkit.model.gpt import GPT
from gptkit.nn.attention.pattern import MaskPattern
from gptkit.nn.forward import Forward

V, T = 31, 40
DOCUMENTS = torch.tensor([[0] * 9 + [1] * 31, [4] * 4 + [2] * 20 + [7] * 16])
PADDING = torch.tensor([0, 5])
CALLS: dict[str, dict[str, Any]] = {
    "rows": {},
    "documents": {"documents_BT": DOCUMENTS},
    "padding": {"left_padding_B": PADDING},
    "prefix": {"prefix_B": torch.tensor([6, 11])},
}
LAYERS: dict[str, dict[str, Any]] = {
    "plain": {"attention": {}},
    "grouped": {"attention": {"name": "grouped-query", "n_kv_heads": 2}},
    "window": {"attention": {"window": 7}},
    "chunk": {"attention": {"chunk": 8}},
    "softcap": {"attention": {"softcap": 2.0}},
    "sinks": {"attention": {"sinks": True, "window": 9}},
    "alibi": {"position": "alibi"},
    "alibi-rounded": {"position": {"name": "alibi", "rounded": True, "scaled": True}},
    "alibi-softcap": {"position": "alibi", "attention": {"softcap": 2.0}},
    "t5-bias": {"position": {"name": "t5-bias", "n_buckets": 8, "max_distance": 20}},
    "latent": {"attention": {"name": "latent", "kv_rank": 8, "d_nope": 8, "d_rotary": 8, "d_value": 8}},
    "narrow-values": {"attention": {"d_value": 4}},
    "wide-values": {"attention": {"name": "grouped-query", "n_kv_heads": 2, "d_value": 24}, "position": "alibi"},
    "simple": {"attention": {"name": "simple", "scaled": True}},
}


@dataclass(frozen=True)
class FirstAndRecent(MaskPattern):
    """Pattern of the first two tokens of a text and a sliding window."""

    recent: int

    def allows(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key < 2) | (query - key < self.recent)


class StreamingSpec(MultiHeadSpec):
    """Attention with a mask pattern that is not built in."""

    name: Literal["streaming"] = "streaming"  # type: ignore[assignment]

    def mask_pattern(self) -> MaskPattern:
        return FirstAndRecent(5)


LAYERS["pattern"] = {"attention": StreamingSpec(n_heads=4)}


def make(layer: str, backend: str) -> GPT:
    fields = dict(LAYERS[layer])
    if isinstance(fields.get("attention"), Component):
        return built(fields, backend)
    attention = {"name": "multi-head", "n_heads": 4, **fields.pop("attention", {})}
    if attention["name"] == "simple":
        del attention["n_heads"]
    return built({"attention": attention, **fields}, backend)


def built(fields: dict[str, Any], backend: str) -> GPT:
    spec = {"d_model": 32, "n_layers": 2, "context_length": 64, **fields}
    model = GPT({**spec, "attention_backend": backend}, V)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def ids() -> torch.Tensor:
    return torch.randint(V, (2, T), generator=torch.Generator().manual_seed(0))


def same(one: torch.Tensor, other: torch.Tensor, call: str) -> None:
    keep = torch.arange(T) >= PADDING[:, None] if call == "padding" else torch.ones(2, T, dtype=torch.bool)
    torch.testing.assert_close(one[keep], other[keep], atol=3e-5, rtol=3e-5)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize("backend", ["flex", "sdpa", "varlen"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("call", CALLS)
def test_backend_equals_eager(call: str, layer: str, backend: str) -> None:
    try:
        model = make(layer, backend)
    except SpecError as error:
        pytest.skip(error.message.partition(" which ")[0])
    if call == "prefix" and model.attentions()[0].prefix_problem is not None:
        pytest.skip("declared: the position's term is defined for keys up to the query only")
    same(model(ids(), **CALLS[call]).logits, make(layer, "eager")(ids(), **CALLS[call]).logits, call)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("layer", ["window", "sinks", "alibi-softcap", "t5-bias"])
def test_flex_decoding_equals_eager(layer: str, static: bool) -> None:
    model, eager = make(layer, "flex"), make(layer, "eager")
    cache = model.new_cache(2, static=static)
    steps = [model(piece, cache=cache).logits for piece in torch.split(ids(), [30, 1, 1, 8], dim=1)]
    same(torch.cat(steps, dim=1), eager(ids()).logits, "rows")


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("backend", ["eager", "sdpa", "flex"])
def test_mask_pattern_applies_in_decoding(backend: str, static: bool) -> None:
    model = make("pattern", backend)
    cache = model.new_cache(2, static=static)
    steps = [model(piece, cache=cache).logits for piece in torch.split(ids(), [30, 1, 1, 8], dim=1)]
    same(torch.cat(steps, dim=1), make("pattern", "eager")(ids()).logits, "rows")


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("layer", ["window", "alibi-softcap"])
def test_flex_in_a_compiled_model_equals_eager(layer: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(make(layer, "flex"), fullgraph=True)
    for call in ("rows", "documents"):
        same(compiled(ids(), **CALLS[call]).logits, make(layer, "eager")(ids(), **CALLS[call]).logits, call)


def test_flex_rejects_training_on_the_cpu() -> None:
    with pytest.raises(GptkitError, match="cannot be trained on the CPU"):
        make("plain", "flex")(ids(), ids())


@pytest.mark.parametrize("call", ["rows", "documents"])
def test_varlen_gradients_equal_eager(call: str) -> None:
    gradients = []
    for backend in ("varlen", "eager"):
        model = make("window", backend).train()
        model(ids(), ids(), **CALLS[call]).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_auto_selects_fused_attention_where_it_can_express_the_layer() -> None:
    plain, capped = make("plain", "auto").attentions()[0], make("softcap", "auto").attentions()[0]
    assert (plain.backend_name, capped.backend_name) == ("sdpa", "eager")
    assert capped.backend_reason == "fused attention cannot compute a softcap"


@pytest.mark.parametrize(
    ("fields", "backend", "reason"),
    [
        ({"attention": {"name": "multi-head", "n_heads": 4, "softcap": 2.0}}, "sdpa", "a softcap"),
        ({"position": "shaw"}, "sdpa", "term on the values"),
        ({"position": {"name": "shaw", "values": False}}, "flex", "content"),
        ({"position": "alibi"}, "varlen", "terms of the scores"),
        ({"attention": {"name": "multi-head", "n_heads": 4, "chunk": 8}}, "varlen", "mask pattern"),
        ({"attention": {"name": "multi-head", "n_heads": 4, "dropout": 0.1}}, "flex", "dropout"),
    ],
)
def test_backend_that_cannot_compute_a_layer_is_rejected_when_the_spec_is_loaded(
    fields: dict[str, Any], backend: str, reason: str
) -> None:
    with pytest.raises(SpecError, match=f"'{backend}' cannot compute .*{reason}"):
        GPT({"d_model": 32, "n_layers": 1, **fields, "attention_backend": backend}, V)


@pytest.mark.parametrize("layer", LAYERS)
def test_specs_state_the_features_that_their_modules_have(layer: str) -> None:
    model = make(layer, "auto")
    for index, (part, attention) in enumerate(zip(model.spec.layer_specs(), model.attentions(), strict=True)):
        parts = LayerParts(index, part.position, part.attention, part.norm, part.feedforward)
        assert part.attention.score_features(model.spec.context(layer=parts)) == attention.features  # type: ignore[attr-defined]


@torch.no_grad()
def test_content_terms_are_added_before_the_softcap() -> None:
    attention = {"name": "multi-head", "n_heads": 2, "softcap": 1.5}
    model = GPT({"d_model": 8, "n_layers": 1, "attention": attention, "position": {"name": "shaw", "values": False}}, V)
    module: Any = model.double().eval().blocks[0].attention
    x = torch.randn(1, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    q, k, v = (part.view(6, 2, 4) for part in (x[0] @ module.qkv.weight.T).split(8, dim=-1))
    out = torch.zeros(6, 2, 4, dtype=torch.float64)
    for h in range(2):
        for t in range(6):
            raw = torch.stack([q[t, h] @ (k[s, h] + module.position.keys.weight[min(t - s, 16)]) / 2 for s in range(t + 1)])
            out[t, h] = (1.5 * torch.tanh(raw / 1.5)).softmax(0) @ v[: t + 1, h]
    result = module(x, Forward(torch.zeros(1, 6, dtype=torch.long)))
    torch.testing.assert_close(result[0], out.flatten(1) @ module.output.weight.T)
