"""The parts of a written file that are the same for every composition: imports, cache, model, weights, generation."""

from __future__ import annotations

__all__ = ["GENERATOR", "HEADER", "MODEL", "RUN"]

GENERATOR = "written by `gptkit eject`"
"""Words in the first line of a file by which it is recognized."""

HEADER = '''
"""$name: a language model in plain PyTorch, $generator.

$parameters parameters. Suffixes of tensors name their dimensions:
B rows, T tokens, S tokens so far (keys), E features of a token, H heads, D features of a head,
$shapes
"""

from __future__ import annotations

import json
#if math
import math
#end
import sys
from pathlib import Path
#if any
from typing import Any
#end

import torch
#if functional
import torch.nn.functional as F
#end
from torch import Tensor, nn
#if functional_call
from torch.func import functional_call
#end
'''

MODEL = '''
class Cache:
    """Decoding cache: what each layer keeps of earlier tokens, so that each is processed once."""

    def __init__(self) -> None:
        self.length = 0  # number of tokens that were processed
        #if context
        self.shared: dict[Any, Any] = {}  # what layers pass to one another in a call
        self.layers = [LayerCache(self.shared) for _ in range(N_LAYERS)]
        #if embedding_cache
        self.embedding = LayerCache(self.shared)
        #end
        #else
        self.layers: list[dict[str, Tensor]] = [{} for _ in range(N_LAYERS)]
        #end
        #if sources
        # A layer that attends to the keys and values of another one has its dictionary.
        $sources
        #end


class GPT(nn.Module):
    """The model: embedding, blocks, $final_words."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = $embedding
        #if modules
        self.shared = nn.ModuleDict({$modules})
        #end
        $blocks
        #if references
        $references
        #end
        #if final_norm
        self.final_norm = $final_norm
        #end
        #if head
        self.head = $head
        #end

    def forward(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        """Continue the tokens in the cache; return the next ones' logits, (B, T) to (B, T, V)."""
        cache = Cache() if cache is None else cache
        n_tokens = ids_BT.shape[1]
        if cache.length + n_tokens > CONTEXT_LENGTH:
            raise ValueError(f"more than {CONTEXT_LENGTH} tokens")
        #if context
        cache.shared.clear()
        #if ids
        cache.shared["ids"] = ids_BT
        #end
        #end
        positions_T = cache.length + torch.arange(n_tokens, device=ids_BT.device)
        x_BTE = $embed
        #if embedded
        cache.shared["embedded"] = x_BTE
        #end
        #if passes
        passed: dict[str, Tensor] = {}  # what a layer leaves for the next ones
        #end
        #if shared
        inputs_BTLP = self.shared["$shared_name"](ids_BT, x_BTE)
        for layer, (block, layer_cache) in enumerate(zip(self.blocks, cache.layers, strict=True)):
            layer_cache["layer_input"] = inputs_BTLP[:, :, layer]
        #else
        for block, layer_cache in zip(self.blocks, cache.layers, strict=True):
        #end
            #if layer_ids
            layer_cache["ids"] = ids_BT
            #end
            #if passes
            layer_cache.update(passed)
            #end
            x_BTE = block(x_BTE, positions_T, layer_cache)
            #if passes_always
            passed = {"chosen": layer_cache.pop("chosen")}
            #elif passes
            if "chosen" in layer_cache:
                passed["chosen"] = layer_cache.pop("chosen")
            #end
        cache.length += n_tokens
        return $logits
'''

RUN = '''
def load_weights(model: GPT, path: str | Path) -> None:
    """Load the weights of a safetensors file: a header in JSON, then the tensors, one by one."""
    #if whole
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
    #else
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    #end
    with Path(path).open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            #if unused
            if name.startswith($unused):
                continue  # used in training only
            #end
            first, last = entry["data_offsets"]
            file.seek(8 + size + first)
            data = bytearray(file.read(last - first))
            tensors[name] = torch.frombuffer(data, dtype=types[entry["dtype"]]).view(entry["shape"])
    model.load_state_dict(tensors)


@torch.no_grad()
def generate(
    model: GPT, ids_BT: Tensor, n_new: int, temperature: float = 1.0, top_k: int | None = None
) -> Tensor:
    """Add n_new tokens to each row of ids, all of the same length, (B, T) to (B, T + n_new).

    The model is in evaluation mode (`model.eval()`). A temperature below 1 is less random, one
    above more; 0 takes the most likely token. With top_k, only the k most likely are sampled.
    """
    cache, new_BT = Cache(), ids_BT
    for _ in range(n_new):
        #if recompute
        if $recompute:
            # The rotary frequencies change with the length, so all tokens are computed again.
            cache, new_BT = Cache(), ids_BT
        #end
        logits_BV = model(new_BT, cache)[:, -1]
        if temperature == 0:
            new_BT = logits_BV.argmax(dim=-1, keepdim=True)
        else:
            logits_BV = logits_BV / temperature
            if top_k is not None:
                least_B1 = logits_BV.topk(min(top_k, VOCAB_SIZE), dim=-1).values[:, -1:]
                logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
            new_BT = torch.multinomial(logits_BV.softmax(dim=-1), num_samples=1)
        ids_BT = torch.cat((ids_BT, new_BT), dim=1)
    return ids_BT


if __name__ == "__main__":
    weights, *prompt = sys.argv[1:] or [""]
    if not Path(weights).is_file():
        sys.exit(f"error: no file {weights!r}; use: python FILE WEIGHTS.safetensors ID ...")
    model = GPT().eval()
    load_weights(model, weights)
    ids = torch.tensor([[int(each) for each in prompt or ["0"]]])
    print(*generate(model, ids, n_new=8, temperature=0)[0].tolist())
'''
