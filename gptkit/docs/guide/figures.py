"""The figures of the guided path by name, computed with the components that the pages describe."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from gptkit.core.registry import default_registry
from gptkit.docs.guide.drawing import Step, bars, chips, column, figure, flow, heat, windows

__all__ = ["FIGURES", "HOME", "filled"]

_PLACE = re.compile(r'<figure data-figure="([\w-]+)"></figure>')
_TEXT = "the cat sat on the mat and the cat sat on the log "
_WORDS = ("the", "cat", "sat", "on", "the", "mat")
_X = ((0.6, 0.1, 0.2), (0.2, 0.9, 0.1), (0.1, 0.5, 0.8), (0.7, 0.2, 0.6), (0.6, 0.1, 0.3), (0.3, 0.8, 0.2))


def filled(markdown: str) -> str:
    """Return a page with its figures in place of ``<figure data-figure="NAME"></figure>``."""
    return _PLACE.sub(lambda match: _drawn(match[1]), markdown)


@cache
def _drawn(name: str) -> str:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return FIGURES[name]()


@cache
def _tokenizer() -> Any:
    bpe: Any = default_registry().component("tokenizer", "bpe")
    return bpe(vocab_size=270).fit(iter([_TEXT * 20]))


def _path() -> str:
    steps = [
        ("text", "string"),
        ("tokens", "T ids"),
        ("data windows", "(B, T)"),
        ("embeddings", "(B, T, E)"),
        ("attention", "(B, T, E)"),
        ("block", "(B, T, E)"),
        ("GPT", "(B, T, V)"),
        ("text", "string"),
    ]
    return figure("The steps, and the shape of what each of them returns.", flow(steps))


def _tokens() -> str:
    tokenizer = _tokenizer()
    ids = tokenizer.encode("the cat sat on the flat log")
    pieces = [(tokenizer.decode([token]), str(token)) for token in ids]
    return figure("The tokens of a sentence with their ids; a dot is a space.", chips(pieces))


def _windows() -> str:
    tokenizer = _tokenizer()
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode(_TEXT)[:11]]
    caption = "Two data windows of six tokens with stride 3. Each target is one token after its input."
    return figure(caption, windows(pieces, 6, (0, 3)))


def _embeddings() -> str:
    import torch

    tokenizer = _tokenizer()
    ids = tokenizer.encode(_TEXT)[:6]
    names = [tokenizer.decode([token]).strip() for token in ids]
    vectors = torch.randn(tokenizer.vocab_size, 8)[torch.tensor(ids)]
    positions = torch.randn(6, 8)
    return figure(
        "Six tokens of eight features. Equal tokens (the) have equal vectors until positions are added.",
        heat("vectors of the tokens (T, E)", vectors.tolist(), names, cell=20),
        heat("+ vectors of the positions (T, E)", positions.tolist(), [str(index) for index in range(6)], cell=20),
        heat("= input of the first block (T, E)", (vectors + positions).tolist(), names, cell=20),
    )


def _simple() -> str:
    import torch

    x = torch.tensor(_X)
    scores = x @ x.T
    return figure(
        "Rows: the token that looks. Columns: the token that it looks at. Each row of weights has the sum 1.",
        heat("scores x @ x.T (T, T)", scores.tolist(), _WORDS, _WORDS, numbers=True),
        heat("weights softmax(scores) (T, T)", scores.softmax(-1).tolist(), _WORDS, _WORDS, numbers=True),
    )


def _projected() -> tuple[Any, Any, Any]:
    import torch

    x = torch.tensor(_X)
    matrices = torch.randn(3, 2), torch.randn(3, 2), torch.randn(3, 2)
    return x @ matrices[0], x @ matrices[1], x @ matrices[2]


def _queries() -> str:
    queries, keys, values = _projected()
    weights = (queries @ keys.T / 2**0.5).softmax(-1)
    return figure(
        "Three projections of the same six vectors. Queries and keys decide the weights, values are what is summed.",
        heat("queries (T, D)", queries.tolist(), _WORDS, cell=24),
        heat("keys (T, D)", keys.tolist(), _WORDS, cell=24),
        heat("values (T, D)", values.tolist(), _WORDS, cell=24),
        heat("weights (T, T)", weights.tolist(), _WORDS, _WORDS, numbers=True),
        heat("context vectors (T, D)", (weights @ values).tolist(), _WORDS, cell=24),
    )


def _causal() -> str:
    import torch

    queries, keys, _ = _projected()
    scores = queries @ keys.T / 2**0.5
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
    return figure(
        "Without the mask the first token looks at the last. With it, the weights above the diagonal are 0.",
        heat("weights without the mask", scores.softmax(-1).tolist(), _WORDS, _WORDS, numbers=True),
        heat(
            "weights with the mask",
            scores.masked_fill(mask, -torch.inf).softmax(-1).tolist(),
            _WORDS,
            _WORDS,
            numbers=True,
        ),
    )


def _heads() -> str:
    import torch

    from gptkit.model.gpt import GPT
    from gptkit.nn.forward import Forward

    sizes = {"d_model": 4, "n_layers": 1, "context_length": 6, "position": "none"}
    start = {"name": "normal", "std": 1.0}  # the usual 0.02 is too small to see differences at this size
    model: Any = GPT(
        {**sizes, "attention": {"name": "multi-head", "n_heads": 2}, "initializer": start}, vocab_size=10, seed=3
    )
    x = torch.tensor(_X)
    x = torch.cat([x, x[:, :1] - x[:, 1:2]], dim=1)
    forward = Forward(torch.zeros(1, 6, dtype=torch.long), keep_weights=True)
    with torch.no_grad():
        model.blocks[0].attention(x[None], forward)
    weights = (forward.weights or {})[0, 0][0]
    return figure(
        "Two heads of one multi-head attention: the same tokens, other weights.",
        *(heat(f"head {index}", head.tolist(), _WORDS, _WORDS, numbers=True) for index, head in enumerate(weights)),
    )


def _block() -> str:
    shape = "(B, T, E)"
    steps = [
        Step("x", shape, soft=True),
        Step("norm", shape),
        Step("attention", shape, note="moves information between tokens"),
        Step("+", shape, skip_from=0),
        Step("norm", shape),
        Step("up-projection", "(B, T, 4 · E)"),
        Step("GELU", "(B, T, 4 · E)"),
        Step("down-projection", shape),
        Step("+", shape, skip_from=3),
        Step("output", soft=True),
    ]
    return figure("The block pre-norm, with the shape at every arrow; the shortcuts run at the left.", column("", steps))


def _gpt() -> str:
    shape = "(B, T, E)"
    steps = [
        Step("token ids", "(B, T)", soft=True),
        Step("embedding + position", shape, note="tables (V, E) and (T, E)"),
        Step("block 1", shape, note="attention, feed-forward"),
        Step("… block n", shape),
        Step("final norm", shape),
        Step("head", "(B, T, V)", note="matrix (E, V)"),
        Step("logits", "last position: (B, V)", soft=True),
        Step("sampler", "(B, 1)", note="greedy: the largest logit"),
        Step("next token id", soft=True),
    ]
    return figure("A GPT, from token ids to the next token id.", column("", steps))


def _generation() -> str:
    import torch

    from gptkit.model.gpt import GPT

    tokenizer = _tokenizer()
    ids = torch.tensor(tokenizer.encode(_TEXT * 3))
    sizes = {"d_model": 32, "n_layers": 2, "context_length": 16, "attention": {"n_heads": 4}}
    model = GPT(sizes, vocab_size=tokenizer.vocab_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(40):
        window = ids[step % 12 :][:17]
        optimizer.zero_grad()
        loss = model(window[None, :-1], window[None, 1:]).loss
        loss.backward()
        optimizer.step()
    row = tokenizer.encode("the cat")
    panels = []
    with torch.inference_mode():
        for _ in range(3):
            last = model.eval()(torch.tensor([row]), last_only=True).logits[0, -1].softmax(-1)
            best = last.topk(4)
            shown = [(tokenizer.decode([int(token)]), float(p)) for token, p in zip(best.indices, best.values, strict=True)]
            panels.append(bars(f"{tokenizer.decode(row)} …", shown))
            row.append(int(best.indices[0]))
    caption = "A tiny model after 40 steps on one sentence: the most likely next tokens; greedy takes the first."
    return figure(caption, *panels)


def _home() -> str:
    """Draw the model of the first spec of docs/index.md, which the tests compare with `HOME`."""
    from gptkit.diagrams.drawing import svg
    from gptkit.model.gpt import GPT
    from gptkit.model.parts import count_parts
    from gptkit.runs.opening import open_spec
    from gptkit.runs.spec import spec_outline

    spec = open_spec(HOME).spec
    counts = count_parts(GPT(spec.model, vocab_size=2048, device="meta"))
    drawing = svg(spec_outline(spec, 2048, counts))
    return f'<figure class="guide home-diagram" markdown="0">{drawing}</figure>'


HOME: dict[str, Any] = {
    "name": "small",
    "tokenizer": {"name": "bpe", "vocab_size": 2048},
    "model": {
        "context_length": 256,
        "d_model": 256,
        "n_layers": 6,
        "position": "rotary",
        "attention": {"name": "grouped-query", "n_heads": 8, "n_kv_heads": 2},
        "norm": "rms",
        "feedforward": {"name": "gated", "activation": "silu"},
        "layers": [{"repeat": 5, "attention": {"window": 64}}, {"repeat": 1, "position": "none"}],
    },
    "sampler": [{"name": "temperature", "value": 0.8}, {"name": "top-k", "k": 40}],
    "data": "builtin",
    "training": {"steps": 600, "batch_size": 16, "optimizer": {"name": "adamw", "learning_rate": 1e-3}},
}

FIGURES: dict[str, Callable[[], str]] = {
    "path": _path,
    "tokens": _tokens,
    "windows": _windows,
    "embeddings": _embeddings,
    "simple": _simple,
    "queries": _queries,
    "causal": _causal,
    "heads": _heads,
    "block": _block,
    "gpt": _gpt,
    "generation": _generation,
    "home": _home,
}
