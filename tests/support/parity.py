"""Models of transformers with random weights, and the distance of logits."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from gptkit.interop.conversion import find_family
from tests.support.tiny_models import MODELS

N_TOKENS = 40


def kernel(name: str) -> str:
    # Falcon's eager path adds the ALiBi bias twice; for other families, only the eager path supports all features.
    return "sdpa" if name == "falcon-rw" else "eager"


def model_class(config: Any) -> Any:
    """Return the class of transformers for a configuration; AutoModelForCausalLM does not list all."""
    import transformers

    known = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) in known:
        return transformers.AutoModelForCausalLM
    own = type(config).__name__.removesuffix("Config")
    return next(
        getattr(transformers, f"{name}ForCausalLM")
        for name in (own, own.removesuffix("Text"))
        if hasattr(transformers, f"{name}ForCausalLM")
    )


def make(name: str, directory: Path) -> Any:
    """Save a tiny model of transformers in which all weights are random, including norms and biases."""
    import transformers

    torch.manual_seed(0)
    family, options = MODELS[name]
    kind = getattr(transformers, f"{family}Config")
    config = kind(**deepcopy(options))  # which some classes change
    auto = model_class(config)
    from_config = auto.from_config if auto is transformers.AutoModelForCausalLM else auto._from_config
    model = from_config(config, attn_implementation=kernel(name))
    with torch.no_grad():
        # Buffers that are saved are imported as parameters are: the selection bias of experts, bounds of an activation.
        # Those that follow from the configuration are ignored.
        ignored = find_family({"model_type": config.model_type}, name).ignored
        saved = {
            name
            for name, tensor in model.state_dict().items()
            if tensor.is_floating_point() and not any(re.fullmatch(pattern, name) for pattern in ignored)
        }
        buffers = [buffer for name, buffer in model.named_buffers() if name in saved]
        for tensor in [*model.parameters(), *buffers]:
            tensor.add_(torch.randn_like(tensor) * 0.15)
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("tid2eid"):  # distinct experts for each token id
                buffer.copy_(torch.rand(len(buffer), config.n_routed_experts).argsort(dim=-1)[:, : buffer.shape[1]])
    model.eval().save_pretrained(directory)
    return model


def random_ids() -> torch.Tensor:
    return torch.randint(3, 200, (2, N_TOKENS), generator=torch.Generator().manual_seed(1))


def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, use_cache=False).logits


def distance(native: torch.Tensor, external: torch.Tensor) -> float:
    return float((native - external).abs().max() / external.abs().max())
