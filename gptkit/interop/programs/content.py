"""What the formats of programs have in common: the loaded model, metadata, and the check of a written program.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError, TokenizerError
from gptkit.interop.logits import difference
from gptkit.kinds.format import NativeModel, Note
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT

__all__ = ["common_metadata", "compared", "loaded", "through", "tokenizer_data"]


def loaded(model: NativeModel, dtype: torch.dtype | None = None) -> GPT:
    """Return the model with its weights, in `dtype`, or in that of all its weights, or in fp32."""
    dtypes = {entry.dtype for entry in model.tensors.entries.values() if entry.dtype.is_floating_point}
    dtype = dtype or (dtypes.pop() if len(dtypes) == 1 else torch.float32)
    native = GPT(model.spec, seed=None, dtype=dtype).eval().requires_grad_(False)
    own = {**dict(native.named_parameters()), **native.state_dict(keep_vars=True)}
    for name in model.tensors.entries:
        if name not in own:
            raise ExternalModelError(f"the model has no tensor {name!r}")
        own[name].copy_(model.tensors.get(name))
    return native


def tokenizer_data(tokenizer: Tokenizer) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the tokenizer as the data of a tokenizer.json, and a warning if it has no such form."""
    try:
        result: dict[str, Any] = json.loads(tokenizer.to_tokenizer_json())
    except TokenizerError as error:
        return None, [f"the tokenizer cannot be exported: {error.message}"]
    return result, []


def common_metadata(model: NativeModel, native: GPT, signature: str, tokenizer: dict[str, Any] | None) -> dict[str, Any]:
    """Return the metadata of a program, as plain data; `tokenizer` is that of `tokenizer_data`."""
    import gptkit

    return {
        "gptkit": gptkit.__version__,
        "torch": torch.__version__,
        "name": model.name,
        "signature": signature,
        "vocab_size": native.vocab_size,
        "dtype": str(native.dtype).removeprefix("torch."),
        "start_id": model.tokenizer.start_id,
        "end_id": model.tokenizer.end_id,
        "tokenizer": tokenizer,
    }


def through(program: Callable[[Tensor, int], Tensor], ids_BT: Tensor, tokens: int) -> Tensor:
    """Return the logits of a text, (1, T, V): its first half in calls of at most `tokens`, then one token a call.

    Args:
        program: returns the logits of a call, for its ids and the number of earlier tokens.
        ids_BT: the text, (1, T).
        tokens: largest number of tokens of a call.
    """
    n_tokens, position, parts = ids_BT.shape[1], 0, []
    while position < n_tokens:
        n_now = min(tokens, max(1, (n_tokens + 1) // 2 - position))
        parts.append(program(ids_BT[:, position : position + n_now], position))
        position += n_now
    return torch.cat(parts, dim=1)


def compared(model: GPT, expected_TV: Tensor, logits_TV: Tensor, *, how: str) -> list[str]:
    """Return the report of a program: how it was checked, and how much its logits differ from the model's.

    Args:
        model: the model.
        expected_TV: its logits of a text.
        logits_TV: those of the written program.
        how: what was checked, as a sentence.

    Raises:
        ExternalModelError: the logits differ.
    """
    largest, scale = float((logits_TV - expected_TV).abs().max()), max(1.0, float(expected_TV.abs().max()))
    whole = model.dtype in (torch.float32, torch.float64)
    sentences: list[str] = [Note(how), Note(difference(expected_TV, logits_TV))]
    if not largest <= (1e-3 if whole else 5e-2) * scale:
        problem = f"the logits of the written program differ from the model's by up to {largest:.2g}"
        if whole:
            raise ExternalModelError(f"{problem}, so it was discarded", hint="Report this with the spec of the model.")
        sentences.append(f"{problem}; rounding to {str(model.dtype).removeprefix('torch.')} may cause this")
    return sentences
