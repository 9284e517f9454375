"""Write a run that computes the same function as another one with other weights, to measure what a precision costs.

The only weights of SmolLM2-135M that a package contains were rounded to 4 bits in groups before. With other weights,
equivalent in fp32, the groups are as in a model that was never rounded. For the architecture of Llama with a tied head::

    gptkit import SmolLM2-135M-Instruct.Q4_1.gguf runs/smollm2
    python -m benchmarks.equivalent_weights runs/smollm2 permuted runs/permuted
    gptkit quantize runs/permuted --precision int4 --calibration second.txt --report --text first.txt --tokens 8192
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import gptkit
from gptkit.model.gpt import GPT


@torch.no_grad()
def permute(model: GPT) -> None:
    """Put the features of the residual stream, of the feed-forwards and of the values into another order, in place."""
    generator = torch.Generator().manual_seed(1)

    def reorder(weight: Tensor, dim: int, order: Tensor) -> None:
        weight.copy_(weight.index_select(dim, order))

    width, heads_of = model.spec.d_model, model.spec.attention
    stream = torch.randperm(width, generator=generator)
    reorder(model.embedding.table.weight, 1, stream)
    reorder(model.final_norm.weight, 0, stream)
    for block in model.blocks:
        attention, feedforward = block.attention, block.feedforward
        for norm in (block.attention_norm, block.feedforward_norm):
            reorder(norm.weight, 0, stream)
        for reading in (attention.qkv, feedforward.gate_up):
            reorder(reading.weight, 1, stream)
        for writing in (attention.output, feedforward.down):
            reorder(writing.weight, 0, stream)
        n_hidden = feedforward.down.weight.shape[1]
        hidden = torch.randperm(n_hidden, generator=generator)
        reorder(feedforward.gate_up.weight, 0, torch.cat((hidden, n_hidden + hidden)))
        reorder(feedforward.down.weight, 1, hidden)
        d_head, n_kv = heads_of.d_head, heads_of.n_kv_heads
        n_shared = heads_of.n_heads // n_kv
        values = torch.stack([torch.randperm(d_head, generator=generator) for _ in range(n_kv)])
        first = len(attention.qkv.weight) - n_kv * d_head
        heads = torch.arange(n_kv)[:, None] * d_head
        reorder(attention.qkv.weight, 0, torch.cat((torch.arange(first), first + (heads + values).flatten())))
        columns = torch.arange(n_kv * n_shared)[:, None] * d_head + values.repeat_interleave(n_shared, 0)
        reorder(attention.output.weight, 1, columns.flatten())


@torch.no_grad()
def rotate(model: GPT) -> GPT:
    """Return a model whose residual stream is multiplied with a random orthogonal matrix; its head is not tied."""
    generator = torch.Generator().manual_seed(1)
    width = model.spec.d_model
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]
    head = model.spec.head.model_copy(update={"tied": False})
    rotated = GPT(model.spec.model_copy(update={"head": head}), model.vocab_size, seed=None)
    table = model.embedding.table.weight.double()
    weights = {
        **model.state_dict(),
        "embedding.table.weight": table @ rotation,
        "head.weight": table * model.final_norm.weight @ rotation,
        "final_norm.weight": torch.ones(width),
    }
    for number, block in enumerate(model.blocks):
        for norm, reading in (("attention_norm", "attention.qkv"), ("feedforward_norm", "feedforward.gate_up")):
            scale = block.get_submodule(norm).weight
            weights[f"blocks.{number}.{norm}.weight"] = torch.ones(width)
            weights[f"blocks.{number}.{reading}.weight"] = block.get_submodule(reading).weight.double() * scale @ rotation
        for writing in ("attention.output", "feedforward.down"):
            weights[f"blocks.{number}.{writing}.weight"] = rotation.T @ block.get_submodule(writing).weight.double()
    rotated.load_state_dict(weights)
    return rotated.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("form", choices=["permuted", "rotated"])
    parser.add_argument("output")
    arguments = parser.parse_args()
    run = gptkit.load(arguments.run, device="cpu")
    ids = torch.arange(64)[None] % run.model.vocab_size
    with torch.no_grad():
        wanted = run.model(ids).logits
        if arguments.form == "permuted":
            permute(run.model)
        else:
            model = rotate(run.model)
            spec = run.spec.model_copy(update={"model": model.spec})
            run = gptkit.Run(run.directory, spec, model, run.tokenizer, run.step, run.provenance)
        difference = float((run.model(ids).logits - wanted).abs().max())
    print(f"logits differ by at most {difference:.1e}; saved in {run.save(arguments.output)}")


if __name__ == "__main__":
    main()
