"""GPT-2 written by hand in one file, as the reference for the assembled model.

Shapes: B batch, T tokens, E model width, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layer(nn.Module):
    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_1 = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.proj = nn.Linear(d_model, d_model)
        self.norm_2 = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, 4 * d_model)
        self.down = nn.Linear(4 * d_model, d_model)

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor] | None, past: int) -> Tensor:
        n_batch, n_tokens, d_model = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(n_batch, n_tokens, 3 * self.n_heads, -1).transpose(1, 2).chunk(3, dim=1)
        if memory is not None:
            memory[0][:, :, past : past + n_tokens] = k
            memory[1][:, :, past : past + n_tokens] = v
            k, v = (stored[:, :, : past + n_tokens] for stored in memory)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=n_tokens > 1)
        x = x + self.proj(y.transpose(1, 2).reshape(n_batch, n_tokens, d_model))
        return x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))


class HandwrittenGPT2(nn.Module):
    def __init__(self, vocab: int, context: int, d_model: int, n_layers: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads, self.d_head = n_heads, d_model // n_heads
        self.tokens = nn.Embedding(vocab, d_model)
        self.positions = nn.Embedding(context, d_model)
        self.layers = nn.ModuleList(Layer(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def hidden(self, ids: Tensor, memory: list[tuple[Tensor, Tensor]] | None = None, past: int = 0) -> Tensor:
        at = torch.arange(past, past + ids.shape[1], device=ids.device)
        x = self.tokens(ids) + self.positions(at)
        for index, layer in enumerate(self.layers):
            x = layer(x, None if memory is None else memory[index], past)
        return self.norm(x)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        logits = F.linear(self.hidden(ids), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @torch.inference_mode()
    def generate(self, ids: Tensor, count: int) -> Tensor:
        """Return the greedy continuation, with a preallocated cache."""
        weight = self.tokens.weight
        shape = (ids.shape[0], self.n_heads, ids.shape[1] + count, self.d_head)
        memory = [(weight.new_empty(shape), weight.new_empty(shape)) for _ in self.layers]
        written, past = [ids], 0
        step = ids
        for _ in range(count):
            x = self.hidden(step, memory, past)
            past += step.shape[1]
            step = F.linear(x[:, -1], weight).argmax(-1, keepdim=True)
            written.append(step)
        return torch.cat(written, dim=1)
