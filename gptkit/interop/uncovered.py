"""Language models of transformers that no family reads, and why."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["reason", "reasons"]

FILE = Path(__file__).with_name("uncovered.toml")
_NOT_DECODERS = ("an encoder", "the decoder of an encoder-decoder")
_OTHER_TASKS = (
    "ForMaskedLM",
    "ForPreTraining",
    "ForQuestionAnswering",
    "Classification",
    "EncoderModel",
    "SentenceTransformer",
)
_ENCODERS = frozenset(
    {"albert", "deberta", "deberta-v2", "distilbert", "funnel", "longformer", "luke", "modernbert", "mpnet", "squeezebert"}
)


def reasons() -> Mapping[str, str]:
    """Return the reason for each model type with a causal language model in transformers, as the file lists them."""
    groups = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {model_type: reason for group in groups.values() for model_type, reason in group.items()}


def reason(config: Mapping[str, Any]) -> str | None:
    """Return why no family reads a configuration, as a clause; None if it is not known."""
    model_type = config.get("model_type")
    listed = reasons().get(model_type) if isinstance(model_type, str) else None
    if listed is not None:
        return f"it is not a causal decoder but {listed}" if listed.startswith(_NOT_DECODERS) else f"the model {listed}"
    if config.get("is_encoder_decoder") is True:
        return "it is not a causal decoder but an encoder-decoder model"
    named = config.get("architectures")
    classes = [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
    if model_type in _ENCODERS or any(task in each for each in classes for task in _OTHER_TASKS):
        return f"{classes[0] if classes else 'it'} is not a causal decoder"
    if config.get("auto_map"):
        return "its code is in files beside the weights (auto_map), which gptkit does not run; a plugin can add a family"
    return None
