"""Fields of other sections that an unknown key of a spec probably means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from gptkit.core.registry import Registry
from gptkit.core.spec import merge_with_default
from gptkit.files.tracing import alternatives, model_of

__all__ = ["EPOCHS", "STEPS_OF_EPOCHS", "Section", "fields_of", "names_of"]

EPOCHS = frozenset({"epoch", "epochs", "max_epochs", "n_epochs", "num_epochs", "num_train_epochs", "total_epochs"})
"""Names of a number of passes over the corpus; a training of gptkit has a number of steps."""
STEPS_OF_EPOCHS = (
    "set training.steps: an epoch has (tokens of the corpus) / (batch_size · context_length) steps, which `gptkit data "
    "show` prints for a prepared corpus"
)

_NAMES = {
    "activation": ("act", "act_fn", "activation_fn", "activation_function", "hidden_act", "hidden_activation"),
    "base": ("rope_base", "rope_theta", "rotary_base", "rotary_emb_base", "theta"),
    "batch_size": ("batch", "bs", "batchsize", "train_batch_size", "per_device_train_batch_size"),
    "checkpoint_every": ("save_every", "save_interval", "save_steps"),
    "clip": ("clip_norm", "grad_clip", "gradient_clip", "gradient_clipping", "max_grad_norm"),
    "context_length": (
        *("block_size", "ctx_len", "max_length", "max_position_embeddings", "max_seq_len", "max_seq_length", "n_ctx"),
        *("n_positions", "seq_len", "seq_length", "sequence_length"),
    ),
    "cycles": ("n_cycles", "num_cycles"),
    "d_head": ("head_dim", "head_size"),
    "d_hidden": ("d_ff", "d_ffn", "ffn_dim", "intermediate_size", "mlp_dim", "n_inner"),
    "d_model": ("dim", "embed_dim", "embedding_dim", "emb_dim", "hidden_dim", "hidden_size", "n_embd", "n_embed"),
    "dropout": (
        *("attention_dropout", "attn_dropout", "attn_pdrop", "dropout_p", "dropout_rate", "embd_pdrop", "hidden_dropout"),
        *("p_dropout", "resid_pdrop"),
    ),
    "eps": ("layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_eps", "norm_epsilon", "rms_norm_eps"),
    "evaluate_batches": ("eval_batches", "eval_iters"),
    "evaluate_every": ("eval_every", "eval_interval", "eval_steps"),
    "expansion": ("ffn_mult", "mlp_ratio"),
    "final": ("min_lr_rate", "min_lr_ratio"),
    "grad_accumulation": ("accumulation_steps", "grad_accum", "gradient_accumulation", "gradient_accumulation_steps"),
    "init_from": ("init", "initial_weights", "pretrained"),
    "learning_rate": ("lr", "max_lr", "peak_lr"),
    "log_every": ("log_interval", "log_steps", "logging_steps"),
    "n_experts": ("moe_num_experts", "n_routed_experts", "num_experts", "num_local_experts"),
    "n_heads": ("head_count", "heads", "n_head", "nhead", "num_attention_heads", "num_heads"),
    "n_kv_heads": ("kv_heads", "n_head_kv", "n_kv_head", "num_key_value_heads", "num_kv_heads"),
    "n_layers": ("n_layer", "nlayer", "num_hidden_layers", "num_layers"),
    "optimizer": ("optim", "optimizer_name", "optimizer_type"),
    "precision": ("dtype", "mixed_precision"),
    "recompute": ("activation_checkpointing", "gradient_checkpointing"),
    "schedule": ("lr_schedule", "lr_scheduler", "lr_scheduler_type", "scheduler"),
    "seed": ("random_seed",),
    "steps": ("iters", "max_iters", "max_steps", "n_steps", "num_steps", "num_train_steps", "train_steps"),
    "tied": ("tie_embeddings", "tie_weights", "tie_word_embeddings", "weight_tying"),
    "vocab_size": ("n_vocab", "vocab", "vocabulary_size"),
    "warmup_steps": ("num_warmup_steps", "warmup", "warmup_iters"),
    "weight_decay": ("wd",),
    "window": ("sliding_window", "window_size"),
}
"""Fields of gptkit, each with its names in other programs."""
_OWN_NAMES = {other: name for name, others in _NAMES.items() for other in others}
_MAX_DEPTH = 8
_MAX_FIELDS = 4


@dataclass(frozen=True)
class Section:
    """A part of a spec: its path, its class, and its value as data."""

    path: tuple[str | int, ...]
    cls: type[BaseModel]
    data: Any


def names_of(key: str) -> Sequence[str]:
    """Return the names of fields that a key may mean: the key with underscores, and gptkit's name for it."""
    own = key.casefold().replace("-", "_").replace(" ", "_")
    return [own, *([_OWN_NAMES[own]] if own in _OWN_NAMES else [])]


def fields_of(key: str, section: Section, registry: Registry) -> list[str]:
    """Return the dotted paths of the fields below a section that a key may mean, those with the fewest dots.

    The fields are those of nested sections and of the components that are chosen there; items of lists are not searched. The
    fields of the section itself are not returned, and neither are names of components.
    """
    for name in names_of(key):
        level = [section]
        for _ in range(_MAX_DEPTH):
            level = [inner for outer in level for inner in _sections(outer, registry)]
            paths = [(*inner.path, name) for inner in level if name in inner.cls.model_fields and name != "name"]
            if paths:
                return [".".join(map(str, path)) for path in paths[:_MAX_FIELDS]]
    return []


def _sections(section: Section, registry: Registry) -> Iterator[Section]:
    """Yield the sections and components in the fields of a section."""
    data = section.data if isinstance(section.data, Mapping) else {}
    for name, field in section.cls.model_fields.items():
        value = data.get(name)
        value = merge_with_default(field, field.default if value is None else value)
        if isinstance(value, (str, Mapping)):
            cls = model_of(list(alternatives(field.annotation)), value, registry)
            if cls is not None:
                yield Section((*section.path, name), cls, value)
