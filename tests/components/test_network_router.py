"""The router `network`: its formula, what routers of several layers share, and transformers' ZAYA1."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.components.router.network import NetworkSpec
from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.nn.forward import Forward
from tests.support.ejected import source_of
from tests.support.learning import N_TOKENS, alternating, assert_learns

E, X, R, V = 16, 5, 7, 23
LAYOUT: dict[str, Any] = {
    "d_model": E,
    "n_layers": 3,
    "context_length": 32,
    "attention": {"name": "multi-head", "n_heads": 2},
}
READS = {"name": "network", "k": 1, "renormalize": False, "reads_previous": True, "selection_bias": True, "d_hidden": R}
CONTEXT = BuildContext(d_model=E, context_length=16, n_layers=2)


def experts(router: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "experts", "n_experts": X, "router": router, "expert": {"name": "mlp", "d_hidden": 12}, **fields}


def randomized(module: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module.double().eval()


def model(router: dict[str, Any] = READS, **parts: Any) -> GPT:
    made: GPT = randomized(GPT({**LAYOUT, "feedforward": experts(router), **parts}, V, seed=0))
    return made


def ids(length: int = 12) -> Tensor:
    return torch.randint(V, (2, length), generator=torch.Generator().manual_seed(0))


def routed(made: GPT, **call: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return input, experts and weights of each router in a call of the model."""
    result = []
    hooks = [
        block.feedforward.router.register_forward_hook(lambda module, args, out: result.append((args[0], *out)))
        for block in made.blocks
    ]
    with torch.no_grad():
        made(ids(), **call)
    for hook in hooks:
        hook.remove()
    return result


@pytest.mark.parametrize(
    "fields",
    [
        {"k": 2},
        {"k": 3, "score": "sigmoid", "bias": True, "renormalize": False, "scale": 2.5, "selection_bias": True},
        {"k": 1, "score": "sqrt-softplus", "hidden_layers": 1, "hidden_bias": False, "norm": "layer", "score_scale": 0.5},
    ],
)
@torch.no_grad()
def test_equals_its_formula(fields: dict[str, Any]) -> None:
    spec = NetworkSpec.model_validate({"name": "network", "d_hidden": R, "activation": "silu", **fields})
    router = randomized(spec.build(CONTEXT, n_experts=X))
    x = torch.randn(9, E, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    h = router.norm(router.down(x))
    for layer in router.hidden:
        h = torch.nn.functional.silu(layer(h))
    logits = fields.get("score_scale", 1.0) * (h @ router.scores.weight.T)
    if spec.bias:
        logits = logits + router.scores.bias
    functions = {"softmax": lambda z: z.softmax(-1), "sigmoid": torch.sigmoid}
    scores = functions.get(spec.score, lambda z: torch.nn.functional.softplus(z).sqrt())(logits)
    wanted = (scores + (router.selection_bias if spec.selection_bias else 0)).topk(spec.k).indices
    chosen, weights = router(x, Forward(torch.zeros(1, 9, dtype=torch.long)))
    assert torch.equal(chosen, wanted)
    expected = scores.gather(1, wanted)
    if spec.renormalize:
        expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(weights, expected * spec.scale)


def by_hand(made: GPT) -> None:
    """Check experts and weights of all layers, whose vectors add up."""
    previous: Tensor | None = None
    for index, (x, chosen, weights) in enumerate(routed(made)):
        router: Any = made.blocks[index].feedforward.router
        assert (router.previous_scale is None) == (index == 0)
        r = router.down(x)
        if previous is not None:
            r = r + router.previous_scale * previous
        previous = r
        h = router.norm(r)
        for layer in router.hidden:
            h = torch.nn.functional.gelu(layer(h))
        scores = (h @ router.scores.weight.T).softmax(-1)
        wanted = (scores + router.selection_bias).argmax(-1, keepdim=True)
        assert torch.equal(chosen, wanted)
        torch.testing.assert_close(weights, scores.gather(1, wanted))


@torch.no_grad()
def test_vectors_of_the_layers_add_up() -> None:
    by_hand(model())
    by_hand(model(block="sandwich", norm="layer"))


@torch.no_grad()
def test_router_without_a_previous_one_reads_only_its_input() -> None:
    made = model(layers=[{}, {"feedforward": "mlp"}, {}])
    router: Any = made.blocks[2].feedforward.router
    changed = made(ids()).logits
    router.previous_scale.mul_(3)
    assert torch.equal(made(ids()).logits, changed)


@torch.no_grad()
def test_attention_and_feedforward_have_vectors_of_their_own() -> None:
    heads = {"name": "expert-heads", "n_experts": 4, "n_kv_heads": 2, "d_head": 4, "router": READS}
    made = model(attention=heads)
    keys = {getattr(module, "key", None) for module in made.modules() if type(module).__name__ == "NetworkRouter"}
    assert keys == {("network-router", R, 0), ("network-router", R, 1)}
    by_hand(made)


@torch.no_grad()
def test_pieces_and_padding_equal_one_call() -> None:
    made = model()
    full, padded = made(ids()).logits, torch.cat((ids().new_zeros(2, 3), ids()), dim=1)
    cache = made.new_cache(2, left_padding_B=torch.tensor([3, 3]))
    pieces = [made(piece, cache=cache).logits for piece in padded.split([6, 1, 8], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1)[:, 3:], full)


def test_recomputed_blocks_have_the_same_gradients() -> None:
    gradients = []
    for recompute in ("none", "blocks"):
        made = model().train()
        made.recompute = recompute  # type: ignore[assignment]
        loss = made(ids()[:, :-1], ids()[:, 1:]).loss
        assert loss is not None
        loss.backward()
        gradients.append({name: parameter.grad for name, parameter in made.named_parameters()})
    scales = [name for name in gradients[0] if name.endswith("previous_scale")]
    assert len(scales) == 2
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
        assert gradient is not None or "selection_bias" in name or "experts" in name, name
    assert all(gradients[0][name].any() for name in scales)  # type: ignore[union-attr]


def test_experts_of_another_mixture_are_refused() -> None:
    inner = {"name": "experts", "n_experts": 3, "router": READS, "expert": {"name": "mlp", "d_hidden": 12}}
    made = model({"name": "softmax-top-k", "k": 2}, feedforward=experts({"name": "softmax-top-k", "k": 1}, expert=inner))
    with pytest.raises(GptkitError, match="vectors for 24 token ids") as error:
        made(ids())
    assert "reads_previous: false" in str(error.value.hint)


def test_written_layers_require_routers_before_them() -> None:
    assert "shared[" in source_of(model())
    for parts, reason in (
        ({"layers": [{}, {"feedforward": "mlp"}, {}]}, "layer 1 has no such router"),
        ({"block": {"name": "altup", "streams": 2}}, "blocks contain others"),
    ):
        with pytest.raises(NotWrittenError, match=reason):
            source_of(model(**parts))
    heads = {"name": "expert-heads", "n_experts": 4, "n_kv_heads": 2, "d_head": 4, "router": READS}
    with pytest.raises(NotWrittenError, match="reads those of other layers"):
        source_of(model(attention=heads))


@torch.no_grad()
def test_equals_the_router_of_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.zaya.modeling_zaya")
    from transformers import ZayaConfig

    config = ZayaConfig(hidden_size=E, num_experts=X - 1, router_hidden_size=R, num_hidden_layers=2, vocab_size=V)
    config.rms_norm_eps = 0.1
    made = model({**READS, "norm": {"name": "rms", "eps": 0.1}}, n_layers=2)
    names = {
        "down": "down_proj",
        "norm": "router_mlp.norm",
        "hidden.0": "router_mlp.fc1",
        "hidden.1": "router_mlp.fc2",
        "scores": "router_mlp.out_proj",
    }
    states = None
    for index, (x, chosen, weights) in enumerate(routed(made)):
        own: Any = made.blocks[index].feedforward.router
        reference = modeling.ZayaRouter(config, index).double()
        for native, external in names.items():
            reference.get_submodule(external).load_state_dict(own.get_submodule(native).state_dict())
        reference.balancing_biases.copy_(own.selection_bias)
        if index:
            reference.router_states_scale.copy_(own.previous_scale)
        _, shares, indices, states = reference(x[None], states)
        skipped = chosen == X - 1  # transformers' last one has no experts: its choice is the first with the share 0
        assert torch.equal(indices, chosen.masked_fill(skipped, 0))
        torch.testing.assert_close(shares, weights.masked_fill(skipped, 0))


def test_selection_bias_balances_the_load() -> None:
    made = model({**READS, "bias_rate": 0.1, "reads_previous": False}).train()
    router: Any = made.blocks[0].feedforward.router
    before = router.selection_bias.detach().clone()
    made(ids())
    load = router.load_X.double()
    router.after_step()
    torch.testing.assert_close(router.selection_bias - before, 0.1 * (load.mean() - load).sign())


def test_training_learns_with_networks_that_choose() -> None:
    feedforward = experts(READS, zero_experts=1)
    assert_learns(GPT({**LAYOUT, "n_layers": 2, "feedforward": feedforward}, N_TOKENS, seed=0), alternating, steps=150)
