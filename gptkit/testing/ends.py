"""Checks of embeddings and heads.

Shapes: B batch, T tokens, E model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.core.errors import GptkitError
from gptkit.core.resolution import resolve
from gptkit.kinds.context import BuildContext
from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.kinds.position import PositionSpec
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.state import Stateful
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.head import IGNORED, Head
from gptkit.nn.other_run import other_runs
from gptkit.nn.position import Position
from gptkit.testing.check import Checks, differ, expect, same, skip
from gptkit.testing.subject import D_MODEL, VOCAB, Subject, token_ids

__all__ = ["embedding_checks", "head_checks"]

embedding_checks = Checks()
head_checks = Checks()


class _Doubling(Position):
    """Position that doubles the vectors and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Tensor] = []

    def embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor:
        self.calls.append(positions)
        return x_BTE * 2


class _DoublingSpec(PositionSpec):
    """Spec of `_Doubling`."""

    name: Literal["doubling"] = "doubling"
    uses: ClassVar[frozenset[str]] = frozenset({"embed"})

    def build_embedding(self, context: BuildContext) -> Position:
        return _Doubling()


@embedding_checks.add("embeds", "The model requires one vector of d_model features for each token.")
@torch.no_grad()
def embeds(subject: Subject) -> None:
    embedding, ids = cast("Embedding", subject.module()), token_ids(2, 7)
    out = embedding(ids, subject.forward(ids))
    expect(out.shape == (2, 7, D_MODEL), f"ids (2, 7) became {tuple(out.shape)}, not (2, 7, {D_MODEL})")
    last = embedding(torch.tensor([[VOCAB - 1]]), subject.forward(torch.tensor([[VOCAB - 1]])))
    expect(last.isfinite().all(), f"the last id, {VOCAB - 1}, has a vector that is not finite")


@embedding_checks.add("embeds-causally", "A vector that depends on a later token or on another row violates causality.")
@torch.no_grad()
def embeds_causally(subject: Subject) -> None:
    embedding, ids = cast("Embedding", subject.module()), token_ids(2, 7)
    whole = embedding(ids, subject.forward(ids))
    for at in range(7):
        changed = ids.clone()
        changed[0, at] = (changed[0, at] + 1) % VOCAB
        out = differ(embedding(changed, subject.forward(changed)), whole).any(-1)
        others = [(row, token) for row, token in out.nonzero().tolist() if row != 0 or token < at]
        expect(not others, f"changing token {at} of row 0 changed the vector at (row, token) {others[0] if others else ''}")


@embedding_checks.add(
    "position-once", "The embedding applies the absolute position; applied twice or never, the order is spoilt."
)
@torch.no_grad()
def position_once(subject: Subject) -> None:
    context = subject.context.replace(position=_DoublingSpec(), shared={})
    embedding, ids = subject.resolved.build(context).double().eval(), token_ids(1, 6)
    embedding(ids, subject.forward(ids))
    result = [module for module in embedding.modules() if isinstance(module, _Doubling)]
    calls = [positions for module in result for positions in module.calls]
    expect(len(calls) == 1, f"context.position's `embed` was called {len(calls)} times in one forward pass, not once")
    expect(torch.equal(calls[0].flatten(), torch.arange(6)), f"`embed` received the positions {calls[0].tolist()}")


@embedding_checks.add("lends-its-table", "A tied head uses the embedding's table, which must be the one in use.")
@torch.no_grad()
def lends_its_table(subject: Subject) -> None:
    embedding = cast("Embedding", subject.module())
    table = embedding.table_VE
    expect(table.shape[0] == VOCAB, f"table_VE has {table.shape[0]} rows for {VOCAB} token ids")
    expect(any(table is parameter for parameter in embedding.parameters()), "table_VE is not one of its parameters")
    ids = torch.tensor([[5, 3]])  # a vector may depend on earlier tokens
    before = embedding(ids, subject.forward(ids))
    table[3] += torch.linspace(-1, 1, table.shape[1], dtype=table.dtype)
    after = differ(embedding(ids, subject.forward(ids)), before).any(-1)[0]
    expect(after[1] and not after[0], "changing row 3 of table_VE does not change the vector of token 3 alone")


def _head(subject: Subject) -> tuple[Head, Embedding]:
    embedding_spec = cast("EmbeddingSpec", subject.other("embedding", "token"))
    embedding = resolve(embedding_spec, subject.context).build(subject.context)
    module = cast("Any", subject.module(embedding=embedding))
    with torch.no_grad():
        embedding.table_VE.normal_(generator=torch.Generator().manual_seed(3))
    return module, embedding.double()


def _hidden(rows: int = 2, length: int = 7) -> Tensor:
    return torch.randn(rows, length, D_MODEL, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _context(x_BTE: Tensor) -> Forward:
    return Forward(token_ids(*x_BTE.shape[:2]))


@head_checks.add("scores-every-token", "Samplers and losses require one score for each token of the vocabulary.")
@torch.no_grad()
def scores_every_token(subject: Subject) -> None:
    head, _ = _head(subject)
    x_BTE = _hidden()
    logits = head(x_BTE, _context(x_BTE))
    expect(logits.shape == (2, 7, VOCAB), f"(2, 7, {D_MODEL}) became {tuple(logits.shape)}, not (2, 7, {VOCAB})")
    for at in range(0 if head.mixes_tokens else 7):
        same(
            head(x_BTE[:1, at : at + 1], _context(x_BTE[:1, at : at + 1])),
            logits[:1, at : at + 1],
            f"the scores at token {at} depend on other tokens",
        )


@head_checks.add("loss-is-cross-entropy", "Losses are compared between models, so they must be cross-entropies in nats.")
def loss_is_cross_entropy(subject: Subject) -> None:
    head, _ = _head(subject)
    x_BTE, targets = _hidden().requires_grad_(), token_ids(2, 7, seed=4)
    loss = head.loss(x_BTE, targets, _context(x_BTE))
    expect(loss.ndim == 0, f"the loss has shape {tuple(loss.shape)}; it must be a scalar")
    wanted = F.cross_entropy(head(x_BTE, _context(x_BTE)).flatten(0, 1), targets.flatten())
    remedy = "add other terms, such as a penalty, by forward.add_loss in training"
    same(loss.double(), wanted.detach(), f"the loss is not the mean cross-entropy of the logits; {remedy}", 1e-4)
    (gradient,) = torch.autograd.grad(loss, x_BTE)
    (expected,) = torch.autograd.grad(wanted, x_BTE)
    same(gradient, expected, "the gradient of the loss is not that of the cross-entropy of the logits", 1e-4)


@head_checks.add("ignored-targets", "A target of -100 (padding, prompts) is excluded from the loss and its mean.")
@torch.no_grad()
def ignored_targets(subject: Subject) -> None:
    head, _ = _head(subject)
    x_BTE, targets = _hidden(), token_ids(2, 7, seed=4)
    targets[0, :4] = IGNORED
    targets[1, 5:] = IGNORED
    kept = targets != IGNORED
    wanted = F.cross_entropy(head(x_BTE, _context(x_BTE))[kept], targets[kept])
    same(
        head.loss(x_BTE, targets, _context(x_BTE)).double(),
        wanted,
        f"with targets of {IGNORED} the loss is not the mean over the others",
        1e-4,
    )


@head_checks.add("no-targets", "A batch may have no targets (all masked); its loss is 0, as NaN would end the training.")
def no_targets(subject: Subject) -> None:
    head, _ = _head(subject)
    for training in (False, True):
        head.train(training)
        x_BTE = _hidden().requires_grad_()
        context = _context(x_BTE)
        loss = head.loss(x_BTE, torch.full((2, 7), IGNORED), context)
        where = f"in {'training' if training else 'evaluation'}, with all targets {IGNORED},"
        expect(loss.ndim == 0 and float(loss.detach()) == 0, f"{where} the loss is {loss.detach().tolist()}, not 0")
        for name, value in context.losses.items():
            expect(value.isfinite().all(), f"{where} the auxiliary loss {name!r} is {value.detach().tolist()}")
        total = loss + sum(context.losses.values())
        if total.requires_grad:
            (gradient,) = torch.autograd.grad(total, x_BTE, allow_unused=True)
            expect(gradient is None or gradient.isfinite().all(), f"{where} its gradient is not finite")


@head_checks.add("loss-of-large-logits", "The logarithm of a softmax in fp32 is infinite for improbable targets.")
@torch.no_grad()
def loss_of_large_logits(subject: Subject) -> None:
    head, embedding = _head(subject)
    head, _, targets = head.float(), embedding.float(), token_ids(2, 7, seed=4)

    def both(size: float) -> tuple[Tensor, Tensor]:
        x_BTE = size * _hidden().float()
        logits_BTV = head(x_BTE, _context(x_BTE))
        return head.loss(x_BTE, targets, _context(x_BTE)), F.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten())

    if differ(*both(1), 1e-3).any():
        skip("the loss is not the cross-entropy of any logits; another check reports it")
    remedy = "compute it by log_softmax, logsumexp or cross_entropy"
    same(*both(300), f"for improbable targets the loss is not the cross-entropy of the logits; {remedy}", 1e-3)


@head_checks.add("loss-in-fp32", "A loss in bf16 has two or three digits, which hide the differences between models.")
@torch.no_grad()
def loss_in_fp32(subject: Subject) -> None:
    head, embedding = _head(subject)
    head, _, x_BTE = head.bfloat16(), embedding.bfloat16(), _hidden().bfloat16()
    loss = head.loss(x_BTE, token_ids(2, 7, seed=4), _context(x_BTE))
    expect(loss.dtype.itemsize >= 4, f"in a model in bf16 the loss is {loss.dtype}; compute it from logits.float()")


@head_checks.add("losses-ignore-tokens", "Auxiliary losses, too, exclude tokens whose target is -100 (padding, prompts).")
@torch.no_grad()
def losses_ignore_tokens(subject: Subject) -> None:
    head, _ = _head(subject)
    if head.mixes_tokens or any(isinstance(module, Stateful) for module in head.modules()):
        skip("its losses of a token depend on earlier ones, whose targets may be ignored")
    targets = token_ids(2, 7, seed=4)
    targets[0, :4] = IGNORED
    losses = []
    for seed in (7, 8):
        x_BTE = _hidden()
        x_BTE[0, :4] = torch.randn(4, D_MODEL, generator=torch.Generator().manual_seed(seed), dtype=x_BTE.dtype)
        context = _context(x_BTE)
        head.train().loss(x_BTE, targets, context)
        losses.append(context.losses)
    for name, value in losses[0].items():
        same(losses[1][name], value, f"the auxiliary loss {name!r} depends on tokens whose target is {IGNORED}")


@head_checks.add("predictions-continue", "A drafter extends states of prediction modules, which must equal a whole pass.")
@torch.no_grad()
def predictions_continue(subject: Subject) -> None:
    head, _ = _head(subject)
    predictions = head.predictions
    if predictions is None:
        skip("it has no prediction modules")
    n_tokens, depth = 9, predictions.depth
    ids_BT, x_BTE = token_ids(1, n_tokens + depth), _hidden(1, n_tokens)
    states = predictions.new_prediction_states(Allocation(1, n_tokens, x_BTE.dtype, x_BTE.device))

    def chain(first: int, last: int, *, stateful: bool) -> list[Tensor]:
        context = Forward(ids_BT[:, first:last], offset=first, states=states if stateful else None)
        h_BTE, logits = x_BTE[:, first:last], []
        for k in range(1, depth + 1):
            following = Forward(ids_BT[:, first + k : last + k], offset=first + k)
            h_BTE = predictions.predict(k, h_BTE, following, context)
            logits.append(predictions.predicted_logits(k, h_BTE, context))
        return logits

    whole = chain(0, n_tokens, stateful=False)
    parts = [chain(first, last, stateful=True) for first, last in ((0, 5), (5, 6), (6, 8), (8, 9))]
    for k, logits_BTV in enumerate(whole):
        in_parts_BTV = torch.cat([part[k] for part in parts], dim=1)
        same(in_parts_BTV, logits_BTV, f"module {k + 1} predicts otherwise when its states are extended in parts")


@head_checks.add(
    "keeps-runs-outside",
    "Another run that the loss uses is not trained or saved, and evaluation works without it.",
)
def keeps_runs_outside(subject: Subject) -> None:
    model, ids = subject.make().train(), token_ids(2, 8)
    runs = other_runs(model)
    if not runs:
        skip("it uses no other run")
    model(ids, ids).loss.backward()
    own = {id(parameter) for parameter in model.parameters()}
    for run in runs:
        weights = list(run.model.named_parameters())
        inside = [name for name, parameter in weights if id(parameter) in own]
        expect(not inside, f"the weight {inside[0] if inside else ''} of the other run is a parameter of the model")
        trained = [name for name, parameter in weights if parameter.requires_grad or parameter.grad is not None]
        expect(not trained, f"the weight {trained[0] if trained else ''} of the other run receives a gradient")
        run.release()
    try:
        model.eval()(ids, ids)
    except GptkitError as error:
        expect(False, f"evaluation uses the other run: {error.message}")
