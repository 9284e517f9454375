"""Training step and decoding of GPT-2 assembled from components, compared with a handwritten model of the same shape.

    python -m benchmarks.assembled_vs_handwritten [--layers 12] [--batch 2] [--context 256] [--precision fp32|bf16]

Both have the same weights; their losses and greedy tokens are compared before the measurement.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext

import torch
from torch import nn

from benchmarks.handwritten import HandwrittenGPT2
from benchmarks.interleave import Comparison, compare, environment
from gptkit.model.gpt import GPT

VOCAB = 50257


def assembled(layers: int, context: int, d_model: int = 768, n_heads: int = 12, vocab: int = VOCAB) -> GPT:
    """Return GPT-2 assembled from components."""
    spec = {
        "context_length": context,
        "d_model": d_model,
        "n_layers": layers,
        "position": "learned",
        "attention": {"name": "multi-head", "n_heads": n_heads, "qkv_bias": True, "output_bias": True},
        "norm": "layer",
        "feedforward": {"name": "mlp", "activation": "gelu-tanh", "bias": True},
        "head": {"name": "linear", "tied": True},
    }
    return GPT(spec, vocab)


def copy_weights(source: GPT, target: HandwrittenGPT2) -> None:
    """Copy the weights of the assembled model to the handwritten one."""
    parameters, copies = dict(source.named_parameters()), dict(target.named_parameters())
    with torch.no_grad():
        for name, copy_name in zip(sorted_names(source), sorted_names(target), strict=True):
            assert copies[copy_name].shape == parameters[name].shape, (name, copy_name)
            copies[copy_name].copy_(parameters[name])


def sorted_names(model: nn.Module) -> list[str]:
    """Sort parameter names in model order: embeddings, per layer norm 1, attention, norm 2, feed-forward, then the norm."""

    def key(name: str) -> tuple[object, ...]:
        parts = name.split(".")
        number = int(next((part for part in parts if part.isdigit()), -1))
        if "position" in name:
            return (0, 1)
        if number < 0:
            return (2, 0, name.endswith("bias")) if "norm" in name else (0, 0)
        stages = (
            ("norm_1", "attention_norm"),
            ("qkv",),
            ("proj", "output"),
            ("norm_2", "feedforward_norm"),
            ("up",),
            ("down",),
        )
        stage = next(i for i, words in enumerate(stages) if any(f"{word}." in f"{name}." for word in words))
        return (1, number, stage, name.endswith("bias"))

    return sorted((name for name, _ in model.named_parameters()), key=key)


def line(label: str, result: Comparison, unit: float, rate: str) -> str:
    spread = f"{result.low:.3f}-{result.high:.3f}"
    return (
        f"| {label} | {unit / result.seconds_a:,.0f} {rate} | {unit / result.seconds_b:,.0f} {rate} "
        f"| {result.ratio:.3f} ({spread}) | {result.rounds} ({result.discarded} discarded) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=48, help="tokens to decode")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()

    model = assembled(options.layers, options.context)
    handwritten = HandwrittenGPT2(VOCAB, options.context, 768, options.layers, 12)
    copy_weights(model, handwritten)
    ids = torch.randint(VOCAB, (options.batch, options.context))
    targets = ids.roll(-1, 1)

    def precision() -> torch.autocast | nullcontext[None]:
        return torch.autocast("cpu", torch.bfloat16) if options.precision == "bf16" else nullcontext()

    optimizers = [
        torch.optim.AdamW(parameters, lr=1e-5, fused=True) for parameters in (model.parameters(), handwritten.parameters())
    ]

    def assembled_loss() -> torch.Tensor:
        loss = model(ids, targets).loss
        assert loss is not None
        return loss

    def step(index: int) -> None:
        with precision():
            loss = assembled_loss() if index == 0 else handwritten.loss(ids, targets)
        loss.backward()
        optimizers[index].step()
        optimizers[index].zero_grad()

    prompt = ids[:1, :16]

    @torch.inference_mode()
    def generate() -> torch.Tensor:
        cache = model.new_cache(1, 16 + options.tokens)
        pieces, piece = [prompt], prompt
        for _ in range(options.tokens):
            logits = model(piece, cache=cache, last_only=True).logits
            assert logits is not None
            piece = logits[:, -1].argmax(-1, keepdim=True)
            pieces.append(piece)
        return torch.cat(pieces, dim=1)

    torch.testing.assert_close(assembled_loss(), handwritten.loss(ids, targets), atol=1e-4, rtol=1e-4)
    assert torch.equal(generate(), handwritten.generate(prompt, options.tokens))

    parameters = sum(p.numel() for p in model.parameters())
    print(environment())
    print(f"{parameters:,} parameters; training {options.batch} x {options.context}, {options.precision}\n")
    print(
        "| | assembled | handwritten | ratio of times, handwritten / assembled (quartiles) | rounds |\n|---|---|---|---|---|"
    )
    training = compare(lambda: step(0), lambda: step(1), rounds=options.rounds, warmup=1)
    print(line("training step", training, options.batch * options.context, "tokens/s"))
    decoding = compare(generate, lambda: handwritten.generate(prompt, options.tokens), rounds=options.rounds, warmup=1)
    print(line("decoding, one row", decoding, options.tokens, "tokens/s"))


if __name__ == "__main__":
    main()
