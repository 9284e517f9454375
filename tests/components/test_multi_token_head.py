"""Multi-token prediction against an independent computation, in training and in decoding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.forward import Forward
from tests.support.pairs import V, ids
from tests.support.recomputation import assert_recomputes

PARTS: dict[str, Any] = {
    "d_model": 32,
    "n_layers": 2,
    "context_length": 24,
    "attention": {"name": "multi-head", "n_heads": 2},
    "feedforward": {"name": "mlp", "d_hidden": 24},
    "initializer": "xavier",
}


def make(depth: int = 2, **fields: Any) -> GPT:
    return GPT({**PARTS, "head": {"name": "multi-token", "depth": depth, **fields}}, V).double()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_loss_equals_that_of_the_paper(packed: bool, tied: bool) -> None:
    model = make(depth=2, weight=0.4, head={"name": "linear", "tied": tied}).train()
    tokens = ids(2, 13)
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    documents = torch.tensor([[0] * 5 + [1] * 7, [0] * 12]) if packed else None
    out = model(inputs, targets, documents_BT=documents)

    hidden: list[Tensor] = []
    model.final_norm.register_forward_hook(lambda module, args, output: hidden.append(output))
    model(inputs, targets, documents_BT=documents)
    h = hidden[0]
    head: Any = model.head
    weight = model.embedding.table_VE if tied else head.head.weight
    main = F.cross_entropy((h @ weight.T).flatten(0, 1), targets.flatten())
    extra = torch.zeros((), dtype=torch.float64)
    for k, module in enumerate(head.modules_after, 1):
        # Computed position by position.
        n = 12
        following = torch.zeros(2, n, 32, dtype=torch.float64)
        for t in range(n - k):
            following[:, t] = model.embedding.table_VE[inputs[:, t + k]]
        joined = torch.cat((F.rms_norm(h, (32,), eps=1e-5), F.rms_norm(following, (32,), eps=1e-5)), dim=-1)
        h = module.block(joined @ module.join.weight.T, Forward(inputs, documents_BT=documents))
        logits = F.rms_norm(h, (32,), eps=1e-5) @ weight.T
        losses = []
        for row in range(2):
            for t in range(n - k):
                if documents is None or documents[row, t] == documents[row, t + k]:
                    losses.append(F.cross_entropy(logits[row, t], targets[row, t + k]))
        extra = extra + torch.stack(losses).mean()
    torch.testing.assert_close(out.losses["multi_token"], 0.4 / 2 * extra)
    torch.testing.assert_close(out.loss, main + 0.4 / 2 * extra)


@torch.no_grad()
def test_evaluation_and_decoding_use_the_inner_head() -> None:
    model = make().eval()
    plain = GPT({**PARTS, "head": "linear"}, V).double().eval()
    weights = {name.replace("head.head.", "head."): tensor for name, tensor in model.state_dict().items()}
    plain.load_state_dict({name: tensor for name, tensor in weights.items() if "modules_after" not in name})
    tokens, targets = ids(2, 12), ids(2, 12, seed=1)
    torch.testing.assert_close(model(tokens, targets).loss, plain(tokens, targets).loss)
    cache = model.new_cache(2)
    assert cache.bytes == plain.new_cache(2).bytes
    model(tokens[:, :8], cache=cache)
    cache.truncate(5)
    step = model(tokens[:, 5:6], cache=cache, last_only=True).logits
    torch.testing.assert_close(step[:, -1], plain(tokens[:, :6]).logits[:, -1])


def test_no_prediction_sees_its_target() -> None:
    model = make().train()
    inputs, targets = ids(1, 12), ids(1, 12, seed=1)
    ignored = torch.full_like(targets, -100)
    for t in range(9):
        one = ignored.clone()
        one[0, t + 2] = targets[0, t + 2]
        changed = inputs.clone()
        changed[0, t + 3 :] = (changed[0, t + 3 :] + 1) % V
        assert torch.equal(model(inputs, one).losses["multi_token"], model(changed, one).losses["multi_token"])


def test_activation_checkpointing_gives_equal_gradients() -> None:
    assert_recomputes(make())


def test_parts_that_only_the_head_uses_are_checked() -> None:
    data = {
        "d_model": 8,
        "n_layers": 1,
        "attention": {"name": "multi-head", "d_head": 3},
        "layers": [{"attention": {"name": "grouped-query", "d_head": 4}}],
    }
    validate_data(data, ModelSpec)
    with pytest.raises(SpecError) as raised:
        validate_data({**data, "head": "multi-token"}, ModelSpec)
    [problem] = raised.value.problems
    assert problem.path == ("attention",)
    assert "head size 3" in problem.message
    assert "head 'multi-token'" in problem.message


@pytest.mark.parametrize(
    "head", [{"name": "multi-token"}, {"name": "distillation", "teacher": "runs/teacher", "head": {"name": "multi-token"}}]
)
def test_head_within_another_of_its_kind_is_refused(head: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"head\.head: predicts further tokens itself; choose another head"):
        validate_data({**PARTS, "head": {"name": "multi-token", "head": head}}, ModelSpec)


def test_texts_may_be_shorter_than_the_number_of_modules() -> None:
    model = make(depth=3).train()
    tokens = ids(2, 3)
    for length in (1, 2):
        documents = torch.zeros(2, length, dtype=torch.long)
        loss = model(tokens[:, :length], tokens[:, 1 : length + 1]).loss
        packed = model(tokens[:, :length], tokens[:, 1 : length + 1], documents_BT=documents).loss
        assert loss is not None
        assert loss.isfinite()
        assert torch.equal(loss, packed)
    alone = model.eval()(tokens[:, :1], tokens[:, 1:2]).loss
    one = model.train()(tokens[:, :1], tokens[:, 1:2]).loss
    torch.testing.assert_close(one, alone)  # no module has a target
