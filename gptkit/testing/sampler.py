"""Checks of samplers.

Shapes: B batch, V vocabulary, N draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from gptkit.core.registry import Registry
from gptkit.inference.chain import Chain, row_streams
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec
from gptkit.testing.check import Checks, expect, same, skip
from gptkit.testing.subject import Subject

__all__ = ["checks"]

checks = Checks()

N_DRAWS = 4000


@cache
def _tokenizer(registry: Registry) -> Tokenizer:
    """Return a byte tokenizer with an end token, for samplers that depend on text."""
    spec = registry.component("tokenizer", "byte").model_validate({"name": "byte"}, context={"registry": registry})
    assert isinstance(spec, TokenizerSpec)
    return spec.fit(iter(()))


def _build(subject: Subject, *rows: int) -> Sampler:
    """The sampler of a batch; each row has the random stream of its number."""
    tokenizer = _tokenizer(subject.registry)
    spec: SamplerSpec = subject.spec
    return spec.build(_context(tokenizer, tuple(f"row {row}" for row in rows)))


def _context(tokenizer: Tokenizer, streams: tuple[str, ...]) -> SamplerContext:
    """A context with all that a generation provides."""
    n_rows, size = len(streams), tokenizer.vocab_size
    return SamplerContext(size, n_rows, tokenizer, streams, limits=(20,) * n_rows, reader=lambda: _Reader(size))


class _Reader:
    """Logits that depend on the last token of each text."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        ids_V = torch.arange(self._vocab_size)
        return torch.stack([torch.sin(ids_V * (1.0 + text[-1])) * 3 for text in texts])

    def reorder(self, rows: Sequence[int]) -> None:
        """Nothing to do without a cache."""


def _case(subject: Subject, batch: int = 4, seed: int = 0) -> tuple[Tensor, list[list[int]]]:
    """Return logits of which a third is excluded, and histories of different lengths with repeated tokens."""
    tokenizer, generator = _tokenizer(subject.registry), torch.Generator().manual_seed(seed)
    logits_BV = torch.randn(batch, tokenizer.vocab_size, generator=generator) * 4
    logits_BV[:, 1::3] = -torch.inf
    logits_BV[:, tokenizer.end_id] = 2.0
    history = [torch.randint(0, 40, (12 + 2 * row,), generator=generator).tolist() for row in range(batch)]
    return logits_BV, history


@checks.add("keeps-shape", "The next sampler of the chain requires logits of the same shape, in fp32.")
def keeps_shape(subject: Subject) -> None:
    logits_BV, history = _case(subject)
    out = _build(subject, 0, 1, 2, 3)(logits_BV.clone(), history)
    expect(out.shape == logits_BV.shape, f"{tuple(logits_BV.shape)} became {tuple(out.shape)}")
    expect(out.dtype == torch.float32, f"fp32 became {out.dtype}")
    expect(not out.isnan().any() and bool((out < torch.inf).all()), "the logits that come out hold NaN or +∞")


@checks.add("never-revives", "An excluded token (-∞) must stay excluded, as other samplers rely on it.")
def never_revives(subject: Subject) -> None:
    logits_BV, history = _case(subject)
    out = _build(subject, 0, 1, 2, 3)(logits_BV.clone(), history)
    back = ((logits_BV == -torch.inf) & (out != -torch.inf)).nonzero().tolist()
    expect(
        not back, f"a logit of -∞ came back as {float(out[tuple(back[0])]):.4g} at (row, token) {back[0]}" if back else ""
    )


@checks.add("leaves-a-token", "If every token is excluded, sampling fails with an error.")
def leaves_a_token(subject: Subject) -> None:
    logits_BV, history = _case(subject)
    logits_BV[1] = -torch.inf
    logits_BV[1, 2] = -5.0
    logits_BV[2] = 1.25  # all alike
    logits_BV[3] *= 20  # one token has it all
    sampler = _build(subject, 0, 1, 2, 3)
    # Samplers that follow how likely the chosen tokens were are driven to either end.
    for step, log_probability in enumerate([-1.0] * 3 + [-20.0] * 12 + [0.0] * 12):
        out = sampler(logits_BV.clone(), history)
        empty = (out == -torch.inf).all(-1).nonzero().flatten().tolist()
        cases = ["logits of all sizes", "a single token left", "all tokens alike", "one token far above the others"]
        expect(not empty, f"no token is left at step {step} in the row with {cases[empty[0]]}" if empty else "")
        tokens = out.argmax(-1).tolist()
        sampler.chosen(tokens, [log_probability] * 4)
        history = [[*row, token] for row, token in zip(history, tokens, strict=True)]


@checks.add("changes-nothing-in-place", "The generator uses the logits and the history again, so they must not be changed.")
def changes_nothing_in_place(subject: Subject) -> None:
    logits_BV, history = _case(subject)
    before, copied = logits_BV.clone(), [list(row) for row in history]
    _build(subject, 0, 1, 2, 3)(logits_BV, history)
    expect(torch.equal(logits_BV, before), "the logits that were given have been changed in place")
    expect(history == copied, "the given history was modified in place")


@checks.add("same-input-same-output", "Equal seeds must give equal texts, so a sampler must be deterministic.")
def same_input_same_output(subject: Subject) -> None:
    logits_BV, history = _case(subject)
    torch.manual_seed(1)
    once = _build(subject, 0, 1, 2, 3)(logits_BV.clone(), history)
    torch.manual_seed(2)
    same(
        _build(subject, 0, 1, 2, 3)(logits_BV.clone(), history),
        once,
        "a second sampler returns other logits for the same input",
    )


@checks.add("rows-are-independent", "Texts are generated in batches, and must not depend on each other.")
def rows_are_independent(subject: Subject) -> None:
    logits_BV, history = _case(subject)
    together = _build(subject, 0, 1, 2, 3)(logits_BV.clone(), history)
    for row in range(4):
        alone = _build(subject, row)(logits_BV[row : row + 1].clone(), history[row : row + 1])
        same(together[row : row + 1], alone, f"row {row} of four gives other logits than by itself")


@checks.add("follows-its-rows", "Finished rows are removed from the batch; the state of a row must be moved with it.")
def follows_its_rows(subject: Subject) -> None:
    logits_BV, history = _case(subject, 3)
    together, alone = _build(subject, 0, 1, 2), [_build(subject, row) for row in range(3)]
    rows = [0, 1, 2]
    for step in range(6):
        out = together(logits_BV[rows] + step, [history[row] for row in rows])
        for index, row in enumerate(rows):
            own = alone[row](logits_BV[row : row + 1] + step, [history[row]])
            same(
                out[index : index + 1],
                own,
                f"at step {step}, row {row} (now at place {index}) gives other logits than alone",
            )
        tokens = out.argmax(-1).tolist()
        logs = out.log_softmax(-1).amax(-1).tolist()
        together.chosen(tokens, logs)
        for index, row in enumerate(rows):
            alone[row].chosen([tokens[index]], [logs[index]])
            history[row] = [*history[row], tokens[index]]
        if step == 2:
            rows = [2, 0]
            together.reorder([2, 0])


@checks.add("copies-its-rows", "Beam search continues a row several times; copies that share a state change each other.")
def copies_its_rows(subject: Subject) -> None:
    logits_BV, history = _case(subject, 2)
    allowed = (logits_BV[0] > -torch.inf).nonzero().flatten().tolist()
    sources, first = [1, 0, 1], [allowed[3], allowed[4]]
    together = _build(subject, 0, 1)
    together(logits_BV, history)
    together.chosen(first, [-1.0, -2.0])
    together.reorder(sources)
    alone = [_build(subject, row) for row in sources]
    for row, sampler in zip(sources, alone, strict=True):
        sampler(logits_BV[row : row + 1], history[row : row + 1])
        sampler.chosen([first[row]], [-1.0 - row])
    texts = [[*history[row], first[row]] for row in sources]
    for step in range(3):
        out = together(logits_BV[sources] + step, texts)
        for place, (row, sampler) in enumerate(zip(sources, alone, strict=True)):
            own = sampler(logits_BV[row : row + 1] + step, [texts[place]])
            what = f"at step {step} after the rows became {sources}, the row at place {place} gives other logits than alone"
            same(out[place : place + 1], own, what)
        tokens, logs = [allowed[5 + place] for place in range(3)], [-0.5, -4.0, -9.0]
        together.chosen(tokens, logs)
        for place, sampler in enumerate(alone):
            sampler.chosen([tokens[place]], [logs[place]])
            texts[place] = [*texts[place], tokens[place]]


@checks.add("draws-follow-the-logits", "Tokens must be sampled from the softmax of the returned logits.")
def draws_follow_the_logits(subject: Subject) -> None:
    logits_1V, history = _case(subject, 1)
    logits_1V[0, 12:] = -torch.inf
    logits_1V[0, :12] = torch.linspace(-1, 1, 12)[torch.randperm(12, generator=torch.Generator().manual_seed(1))]
    p_V = _build(subject, 0)(logits_1V.clone(), history)[0].double().softmax(-1)
    others_NV = [_build(subject, row)(logits_1V.clone(), history)[0].double().softmax(-1) for row in range(9)]
    if torch.equal(others_NV[0], p_V) and not all(torch.equal(other_V, p_V) for other_V in others_NV):
        skip("it draws random numbers of its own")
    tokenizer = _tokenizer(subject.registry)
    context = _context(tokenizer, ("",) * N_DRAWS)
    picked_N = Chain([subject.spec], context, row_streams(0, N_DRAWS)).pick(
        logits_1V.expand(N_DRAWS, -1).clone(), history * N_DRAWS
    )
    counts_V = picked_N.bincount(minlength=p_V.numel()).double()
    never = ((counts_V > 0) & (p_V == 0)).nonzero().flatten().tolist()
    expect(not never, f"token {never[0] if never else ''} was drawn, which the sampler rules out")
    seen = p_V > 0
    expected = p_V[seen] * N_DRAWS
    statistic = float(((counts_V[seen] - expected) ** 2 / expected.clamp_min(1e-12)).sum())
    freedom = max(int(seen.sum()) - 1, 1)
    # The statistic is above this once in some ten million times, if the draws follow p.
    limit = freedom + 6 * math.sqrt(2 * freedom) + 12
    worst = int((counts_V - p_V * N_DRAWS).abs().argmax())
    share = f"token {worst} was drawn {counts_V[worst] / N_DRAWS:.1%} of the time, and its probability is {p_V[worst]:.1%}"
    expect(
        statistic < limit,
        f"{N_DRAWS} draws do not follow the logits: {share} (chi-square {statistic:.0f}, at most {limit:.0f})",
    )


@checks.add("anonymous-samplers-ignore-ids", "A chain calls samplers that declare anonymous without excluded tokens.")
def anonymous_samplers_ignore_ids(subject: Subject) -> None:
    if not type(subject.spec).anonymous:
        skip("it does not declare anonymous")
    logits_BV, history = _case(subject)
    logits_BV[:, ::5] = -torch.inf
    whole_BV = _build(subject, 0, 1, 2, 3)(logits_BV.clone(), history)
    for row in range(4):
        left = (logits_BV[row] > -torch.inf).nonzero().flatten()
        order = left[torch.randperm(len(left), generator=torch.Generator().manual_seed(row))]
        part_1K = _build(subject, row)(logits_BV[row, order][None], [[0]])
        same(
            part_1K[0],
            whole_BV[row, order],
            "without excluded tokens and text, in another order, the logits differ",
        )


@checks.add("reduces-to-the-same", "A chain continues with the reduced logits in place of the others.")
def reduces_to_the_same(subject: Subject) -> None:
    for seed in range(4):
        logits_BV, history = _case(subject, seed=seed)
        # A large vocabulary, in which few tokens are likely.
        logits_BV = torch.cat((logits_BV * 3, torch.linspace(-60, -50, 4000).expand(4, -1)), dim=-1)
        sampler = _build(subject, 0, 1, 2, 3)
        reduced = sampler.reduced(logits_BV.clone())
        if reduced is None:
            continue
        part_BK, ids_BK = reduced
        expect(bool((ids_BK.diff(dim=-1) > 0).all()), "the ids are not in ascending order")
        spread_BV = torch.full_like(logits_BV, -torch.inf).scatter(-1, ids_BK, part_BK)
        same(
            spread_BV,
            _build(subject, 0, 1, 2, 3)(logits_BV.clone(), history),
            "the reduced logits differ from the whole ones",
        )
