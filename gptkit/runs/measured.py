"""Comparison of an export with the exported run: the same tokens through both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError, TokenizerError
from gptkit.core.registry import Registry
from gptkit.interop.checking import check_tensors
from gptkit.interop.conversion import family_of, pair, read_model
from gptkit.kinds.format import FormatSpec, NativeModel
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.runs.external import NativeTensors

__all__ = ["MOST", "measured"]

MOST = 500_000_000
"""The largest number of parameters of a model that is compared; both models are held in fp32."""
_N_TOKENS = 128
_TEXT = """Once upon a time there was a miller who had three sons. When he died, the eldest got the mill, the second the
donkey, and the youngest nothing but the cat. "What shall I do with a cat?" he said. "I can have a pair of gloves from its
fur, and that is all." The cat had understood every word, and answered: "You need not kill me. Give me a bag and a pair of
boots, so that I can walk among people, and in 12 days you will see that things are not as bad as you think." """


def measured(model: NativeModel, chosen: FormatSpec, path: Path, registry: Registry | None = None) -> list[str]:
    """Return the report of an export as sentences: what was checked, and how much the logits differ.

    The export is read back as an import would read it, and both models compute the same tokens in fp32.

    Args:
        model: the run's model.
        chosen: the format.
        path: the export.
        registry: where families and components are looked up; by default what is installed.

    Raises:
        ExternalModelError: the export cannot be read back.
    """
    external = chosen.read(path, registry)
    family, config = family_of(external, registry)
    spec = read_model(family, config, external.config_location, registry)
    shell = GPT(spec, device="meta")
    moves, stored = pair(family, shell), external.tensors()
    names = check_tensors(family, shell, moves, stored.entries, external.location)
    tensors = NativeTensors(moves, stored, names)
    checked = f"checked: the export has the {len(names)} tensors of family {family.component_name()!r}, in their shapes"
    size = sum(math.prod(entry.shape) for entry in tensors.entries.values())
    if size > MOST:
        return [f"{checked}; its logits were not compared, since it has more than {MOST:,} parameters: use gptkit drift"]
    ids_BT = _ids(model.tokenizer, min(_N_TOKENS, spec.context_length), shell.vocab_size)
    own = _logits(model.spec, model.tensors.entries, model.tensors.get, ids_BT)
    other = _logits(spec, tensors.entries, tensors.get, ids_BT)
    return [checked, _difference(own, other)]


def _ids(tokenizer: Tokenizer, n_tokens: int, n_rows: int) -> Tensor:
    """Return the ids of a text, or of all tokens in turn where the tokenizer does not encode it."""
    try:
        ids = tokenizer.encode(_TEXT)[:n_tokens]
    except TokenizerError:
        ids = []
    if len(ids) < 2 or max(ids) >= n_rows:
        ids = [index % n_rows for index in range(n_tokens)]
    return torch.tensor([ids])


@torch.no_grad()
def _logits(spec: ModelSpec, names: Mapping[str, object], get: Callable[[str], Tensor], ids_BT: Tensor) -> Tensor:
    """Return the logits (T, V) of a model in fp32."""
    model = GPT(spec).eval()
    parameters = {**dict(model.named_parameters()), **model.state_dict(keep_vars=True)}
    for name in names:
        if name not in parameters:
            raise ExternalModelError(f"the model has no tensor {name!r}")
        parameters[name].copy_(get(name))
    logits_TV: Tensor = model(ids_BT).logits[0].float()
    return logits_TV


def _difference(own_TV: Tensor, other_TV: Tensor) -> str:
    largest = float((own_TV - other_TV).abs().max())
    own, other = own_TV.log_softmax(-1), other_TV.log_softmax(-1)
    divergence = float((own.exp() * (own - other)).sum(-1).mean())
    n_equal, n_tokens = int((own.argmax(-1) == other.argmax(-1)).sum()), len(own)
    return (
        f"compared on {n_tokens} tokens: largest logit difference {largest:.2g} (largest logit "
        f"{float(own_TV.abs().max()):.3g}), KL divergence {max(0.0, divergence):.2g} nats per token, same most likely token "
        f"at {n_equal} of {n_tokens} positions"
    )
