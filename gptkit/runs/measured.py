"""Comparison of an export with the exported run: the same tokens through both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry
from gptkit.interop.checking import check_tensors
from gptkit.interop.conversion import family_of, pair, read_model
from gptkit.interop.generated import code_report
from gptkit.interop.logits import difference, sample_ids
from gptkit.kinds.format import FormatSpec, NativeModel
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.runs.external import NativeTensors

__all__ = ["MOST", "measured"]

MOST = 500_000_000
"""The largest number of parameters of a model that is compared; both models are held in fp32."""
_N_TOKENS = 128


def measured(model: NativeModel, chosen: FormatSpec, path: Path, registry: Registry | None = None) -> list[str]:
    """Return the report of an export as sentences: what was checked, and how much the logits differ.

    The export is read back as an import would read it, and both models compute the same tokens in fp32.

    Args:
        model: the run's model.
        chosen: the format.
        path: the export.
        registry: where families and components are looked up; by default what is installed.

    Raises:
        ExternalModelError: the export cannot be read back, or its generated code declares other tensors.
    """
    external = chosen.read(path, registry)
    code = code_report(external)
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
    ids_BT = sample_ids(model.tokenizer, min(_N_TOKENS, spec.context_length), shell.vocab_size)
    own = _logits(model.spec, model.tensors.entries, model.tensors.get, ids_BT)
    other = _logits(spec, tensors.entries, tensors.get, ids_BT)
    compared = difference(own, other)
    return [checked, f"{compared}, in the composed model: the generated code was not executed" if code else compared]


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
