"""The linear head: its logits, its loss, and tying."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.components.embedding.token import TokenEmbeddingSpec
from gptkit.components.head.linear import LinearHeadSpec
from gptkit.components.head.modules.linear import LinearHead
from gptkit.core.errors import SpecError
from gptkit.kinds.context import BuildContext
from gptkit.model.gpt import GPT
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.head import IGNORED

B, T, E, V = 2, 7, 12, 40
CONTEXT = BuildContext(d_model=E, context_length=8, n_layers=2, vocab_size=V)


def built(d_embedding: int | None = None, **fields: Any) -> tuple[LinearHead, Embedding]:
    embedding = TokenEmbeddingSpec(d_embedding=d_embedding).build(CONTEXT)
    head = LinearHeadSpec(**fields).build(CONTEXT, embedding=embedding)
    assert isinstance(head, LinearHead)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in [*embedding.parameters(), *head.parameters()]:
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return head, embedding


def inputs() -> Tensor:
    return torch.randn(B, T, E, generator=torch.Generator().manual_seed(0))


def context() -> Forward:
    return Forward(torch.zeros(B, T, dtype=torch.long))


def targets() -> Tensor:
    chosen = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(2))
    chosen[0, 3] = chosen[1, :2] = IGNORED
    return chosen


FIELDS: list[dict[str, Any]] = [
    {},
    {"tied": True},
    {"bias": True},
    {"scale": 0.25},
    {"softcap": 3.0},
    {"tied": True, "bias": True, "scale": 2.0, "softcap": 5.0, "d_embedding": 6},
    {"softcap": 5.0, "softcap_form": "sigmoid", "softcap_shift": 1.0, "softcap_width": 0.9, "scale": 0.5},
    {"softcap": 5.0, "softcap_form": "rational", "bias": True},
]


def softcapped(logits: Tensor, fields: dict[str, Any]) -> Tensor:
    if "softcap" not in fields:
        return logits
    cap, form = fields["softcap"], fields.get("softcap_form", "tanh")
    u = (logits + fields.get("softcap_shift", 0.0)) / fields.get("softcap_width", cap)
    return cap * {"tanh": u.tanh(), "sigmoid": 1 / (1 + (-u).exp()), "rational": u / (1 + u * u).sqrt()}[form]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_logits_and_loss_equal_the_formula(fields: dict[str, Any]) -> None:
    head, embedding = built(**fields)
    x = inputs()
    weight = embedding.table_VE if fields.get("tied") else head.weight
    narrow = x @ head.project.weight.T if "d_embedding" in fields else x
    wanted = torch.einsum("bte,ve->btv", narrow, weight)
    if fields.get("bias"):
        assert head.bias is not None
        wanted = wanted + head.bias
    wanted = wanted * fields.get("scale", 1.0)
    wanted = softcapped(wanted, fields)
    logits = head(x, context())
    assert logits.shape == (B, T, V)
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-5)
    loss = head.loss(x, targets(), context())
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(wanted.view(-1, V), targets().view(-1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_gradients_of_the_loss_equal_those_through_the_logits(fields: dict[str, Any]) -> None:
    head, embedding = built(**fields)
    parameters = [parameter for parameter in [*head.parameters(), embedding.table_VE] if parameter is not None]
    x = inputs().requires_grad_()
    fused = torch.autograd.grad(head.loss(x, targets(), context()), [x, *parameters], allow_unused=True)
    plain_loss = F.cross_entropy(head(x, context()).view(-1, V), targets().view(-1))
    plain = torch.autograd.grad(plain_loss, [x, *parameters], allow_unused=True)
    for got, wanted in zip(fused, plain, strict=True):
        if wanted is None:
            assert got is None
        else:
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_z_loss_is_added_in_training_only() -> None:
    head, _ = built(z_loss=0.1)
    logits = head(inputs(), context()).view(-1, V)
    valid = targets().view(-1) != IGNORED
    plain = F.cross_entropy(logits, targets().view(-1))
    extra = 0.1 * torch.logsumexp(logits, 1)[valid].square().mean()
    torch.testing.assert_close(head.loss(inputs(), targets(), context()), plain + extra, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head.eval().loss(inputs(), targets(), context()), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_label_smoothing_acts_in_training_only(fields: dict[str, Any]) -> None:
    head, embedding = built(label_smoothing=0.2, z_loss=0.01, **fields)
    parameters = [*head.parameters(), embedding.table_VE]
    x = inputs().requires_grad_()
    logits = head(x, context()).view(-1, V)
    valid = targets().view(-1) != IGNORED
    wanted = F.cross_entropy(logits, targets().view(-1), label_smoothing=0.2)
    wanted = wanted + 0.01 * torch.logsumexp(logits, 1)[valid].square().mean()
    loss = head.loss(x, targets(), context())
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-5)
    actual = torch.autograd.grad(loss, [x, *parameters], allow_unused=True)
    plain = torch.autograd.grad(wanted, [x, *parameters], allow_unused=True)
    for got, expected in zip(actual, plain, strict=True):
        if expected is not None:
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    evaluated = head.eval().loss(inputs(), targets(), context())
    torch.testing.assert_close(evaluated, F.cross_entropy(logits, targets().view(-1)), rtol=1e-5, atol=1e-5)


class Model(nn.Module):
    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self.head, self.embedding = built(**fields)


def test_tied_head_has_no_parameters_and_uses_the_embedding() -> None:
    model = Model(tied=True)
    assert list(model.state_dict()) == ["embedding.table.weight"]
    assert list(model.head.parameters()) == []
    twin = copy.deepcopy(model)
    before = twin.head(inputs(), context())
    with torch.no_grad():
        model.embedding.table_VE.zero_()
    assert torch.equal(model.head(inputs(), context()), torch.zeros(B, T, V))
    assert torch.equal(twin.head(inputs(), context()), before)
    # A table that is replaced, not only changed, is followed too.
    twin.embedding.table.weight = nn.Parameter(torch.ones(V, E))
    torch.testing.assert_close(
        twin.head(inputs(), context()), inputs().sum(-1, keepdim=True).expand(B, T, V), rtol=0, atol=1e-5
    )


def test_untied_head_has_a_weight() -> None:
    model = Model(bias=True)
    assert set(model.state_dict()) == {"embedding.table.weight", "head.weight", "head.bias"}
    assert model.head.initial() == {"weight": "weight"}
    assert Model(tied=True).head.initial() == {}


def test_initial_loss_is_that_of_uniform_guessing() -> None:
    head, _ = built(tied=True)
    with torch.no_grad():
        head.matrix_VE.mul_(1e-6)
    assert head.loss(inputs(), targets(), context()).item() == pytest.approx(math.log(V), abs=1e-3)


def test_loss_is_zero_if_all_targets_are_ignored() -> None:
    head, _ = built(bias=True)
    x = inputs().requires_grad_()
    loss = head.loss(x, torch.full((B, T), IGNORED), context())
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None
    for tensor in (x, *head.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().max() == 0


def test_head_builds_on_meta_and_casts() -> None:
    with torch.device("meta"):
        embedding = TokenEmbeddingSpec().build(CONTEXT)
        head = LinearHeadSpec(tied=True, bias=True).build(CONTEXT, embedding=embedding)
        assert head(torch.empty(B, T, E), context()).shape == (B, T, V)
        assert head.loss(torch.empty(B, T, E), torch.zeros(B, T, dtype=torch.long), context()).is_meta
    model = Model(bias=True)
    exact = model.head.loss(inputs(), targets(), context())
    model.bfloat16()
    assert model.head(inputs().bfloat16(), context()).dtype == torch.bfloat16
    narrow = model.head.loss(inputs().bfloat16(), targets(), context())
    narrow.backward()
    assert narrow.dtype == torch.float32
    assert narrow.item() == pytest.approx(exact.item(), rel=0.02)
    assert {parameter.grad.dtype for parameter in model.head.parameters()} == {torch.bfloat16}  # type: ignore[union-attr]


@pytest.mark.parametrize("fields", [{"softcap_form": "sigmoid"}, {"softcap_shift": 1.0}, {"softcap_width": 2.0}])
def test_options_of_a_bound_that_is_not_set_are_rejected(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="has no effect without a soft bound; set softcap, or remove it"):
        GPT({"d_model": 16, "n_layers": 1, "head": {"name": "linear", **fields}}, V)
