"""Reading of an external model's configuration: every key is read, listed as harmless, or refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, cast

from gptkit.core.errors import ExternalModelError
from gptkit.core.spec import describe

if TYPE_CHECKING:
    from gptkit.core.registry import Registry

__all__ = ["HARMLESS", "ExternalConfig"]

_WORDS = """
    _num_labels attention_probs_dropout_prob custom_pipelines hidden_dropout_prob max_sequence_length model_max_length
    output_past
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path architectures auto_map bos_token_id
    chunk_size_feed_forward classifier_dropout dtype embd_pdrop eos_token_id finetuning_task id2label ignore_index
    initializer_range label2id model_type num_labels output_attentions output_hidden_states pad_token_id
    problem_type return_dict return_dict_in_generate sep_token_id task_specific_params tokenizer_class torch_dtype
    torchscript transformers_version unk_token_id use_bfloat16 use_cache unsloth_fixed unsloth_version
    attention_dropout attn_pdrop hidden_dropout resid_pdrop embedding_dropout resid_dropout residual_dropout dropout
    bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length max_new_tokens
    min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores prefix
    remove_invalid_values repetition_penalty suppress_tokens temperature top_k top_p typical_p
"""
HARMLESS = frozenset(_WORDS.split())
"""Keys that do not affect logits: names, training-only rates, decoding options, versions of programs."""

_INERT: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "dual_chunk_attention_config": (None,),
    "decoder_start_token_id": (None,),
    "is_decoder": (False, True),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "tf_legacy_loss": (False,),
    "tie_encoder_decoder": (False,),
}
"""Keys of every model, with the values that do not change the computation."""
_REASONS: Mapping[str, str] = {
    "dual_chunk_attention_config": "gptkit has no chunks, which change nothing up to chunk_size - local_size tokens; "
    "remove the key, and set max_position_embeddings to that number",
    "quantization_config": "the weights are quantized, which gptkit does not read; import an unquantized copy of the model",
}
"""Why another value of a key is refused, where there is more to say than that it is not supported."""


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


_REQUIRED: Any = _Required()
MAX_NUMBER, MAX_LAYERS = 2**32, 10_000


class ExternalConfig:
    """An untrusted mapping that is read key by key; `close` refuses the keys that were not read.

    Args:
        data: the mapping.
        place: its location, for messages.
        harmless: keys that may have any value.
        registry: where components that values name are looked up; by default what is installed.

    Attributes:
        defaults: for each key that was read and is missing or null, the value that was used in its place.
        names: names of settings in the mapping by those that the family reads; see `use_names`.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        place: str = "config.json",
        harmless: Collection[str] = HARMLESS,
        registry: Registry | None = None,
    ) -> None:
        self.data = data
        self.place = place
        self.harmless = harmless
        self.registry = registry
        self.defaults: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self._read: set[str] = set()
        self._sections: dict[str, ExternalConfig] = {}

    def use_names(self, names: Mapping[str, str]) -> None:
        """Read settings by other names, as transformers does with an `attribute_map`.

        Args:
            names: names in the mapping by those that are read from now on. A setting may have either name, not both.
        """
        for key, external in names.items():
            if external in self.data or key not in self.data:
                self.names[key] = external

    def __contains__(self, key: str) -> bool:
        return self.data.get(self.names.get(key, key)) is not None

    def is_null(self, key: str) -> bool:
        """Return whether the key is present with the value null, which classes may treat otherwise than a missing key."""
        key = self.names.get(key, key)
        return key in self.data and self.data[key] is None

    def was_read(self, key: str) -> bool:
        """Return whether the key was read."""
        return key in self._read

    def value(self, key: str, default: Any = None) -> Any:
        """Return the key's value; `default` where it is missing or null. The key counts as read."""
        key = self.names.get(key, key)
        self._read.add(key)
        result = self.data.get(key)
        if result is None and default is _REQUIRED:
            raise ExternalModelError(f"{self.place} has no {key!r}", hint="Get the model's files again, or add the key.")
        if result is None and default is not None:
            self.defaults.setdefault(key, default)
        return default if result is None else result

    def integer(self, key: str, default: int | None = _REQUIRED) -> int:
        """Return an integer; required without a default."""
        result = cast("int", self._typed(key, default, int, "a whole number"))
        if result is not None and abs(result) > MAX_NUMBER:
            self.refuse(key, "no model is that large")
        return result

    def layers(self, key: str, default: int | None = _REQUIRED) -> int:
        """Return the number of layers, an integer small enough to build lists of."""
        result = self.integer(key, default)
        if not 1 <= result <= MAX_LAYERS:
            self.refuse(key, f"a model has 1 to {MAX_LAYERS:,} layers")
        return result

    def nullable(self, key: str, absent: int | None = None) -> int | None:
        """Return an integer or None; null differs from a missing key."""
        return self.value(key) if self.is_null(key) else self.integer(key, absent)

    def maybe(self, key: str) -> float | None:
        """Return a number, or None where the key is missing or null."""
        return None if self.value(key) is None else self.number(key)

    def number(self, key: str, default: float = _REQUIRED) -> float:
        """Return a number."""
        return cast("float", self._typed(key, default, (int, float), "a number"))

    def flag(self, key: str, default: bool = _REQUIRED) -> bool:
        """Return a truth value; null is false, as for the classes of transformers, and not the default of a missing key."""
        default = False if self.is_null(key) else default
        return cast("bool", self._typed(key, default, bool, "true or false"))

    def text(self, key: str, default: str = _REQUIRED) -> str:
        """Return a string."""
        return cast("str", self._typed(key, default, str, "a text"))

    def items(self, key: str, default: list[Any] = _REQUIRED) -> list[Any]:
        """Return a list."""
        return cast("list[Any]", self._typed(key, default, list, "a list"))

    def section(self, key: str, harmless: Collection[str] = ()) -> ExternalConfig:
        """Return the mapping below a key, read and checked in the same way; empty where the key is missing."""
        if key not in self._sections:
            data = self._typed(key, {}, dict, "a mapping")
            self._sections[key] = ExternalConfig(data, f"{self.place}: {key}", harmless, self.registry)
        return self._sections[key]

    def only(self, key: str, *allowed: Any, why: str) -> None:
        """Refuse any value but the allowed ones, since gptkit does not support what the model would compute.

        The first of the allowed values is the default of a missing key.
        """
        result = self.value(key, allowed[0] if allowed else None)
        if result is not None and not any(result == value and type(result) is type(value) for value in allowed):
            self.refuse(key, why)

    def agree(self, *keys: str) -> None:
        """Refuse different values of keys that are names of one setting; each of them counts as read.

        Raises:
            ExternalModelError: two values differ; names both.
        """
        present = [(key, self.value(key)) for key in keys if self.value(key) is not None]
        for key, result in present[1:]:
            first, value = present[0]
            if result != value:
                raise ExternalModelError(
                    f"{self.place}: {first} is {describe(value)} and {key} is {describe(result)}, two names of one setting",
                    hint="Remove the one that does not belong to the model.",
                )

    def confirm(self, redundant: Mapping[str, tuple[Any, ...]], synonyms: Mapping[str, str]) -> None:
        """Read keys that repeat what is known, where they are present and were not read.

        Args:
            redundant: by key, the values that describe what the model computes in any case.
            synonyms: by key, another key that was read, with the same value.

        Raises:
            ExternalModelError: a key has another value; names it.
        """
        for key, allowed in redundant.items():
            if key in self and key not in self._read:
                self.only(key, *allowed, why="transformers does not read it in this family")
        for key, name in synonyms.items():
            if key in self and key not in self._read:
                used = self.value(name, self.defaults.get(name))
                self.only(key, used, why=f"transformers reads {name} in this family, which is {describe(used)}")

    def alias(self, *keys: str) -> str:
        """Return the name of a setting that is present, or else the first one; each of them counts as read.

        Raises:
            ExternalModelError: two are present, with different values.
        """
        self.agree(*keys)
        return next((key for key in keys if key in self), keys[0])

    def refuse(self, key: str, why: str) -> NoReturn:
        """Raise an error that names the key, its value and the reason.

        Raises:
            ExternalModelError: always.
        """
        key = self.names.get(key, key)
        raise ExternalModelError(f"{self.place}: {key} is {describe(self.data.get(key))}: {why}")

    def completed(self) -> dict[str, Any]:
        """Return the mapping with the defaults of missing keys that were read.

        Such a configuration does not depend on the defaults of the class that reads it.
        """
        sections = {key: section.completed() for key, section in self._sections.items()}
        filled = {**self.data, **{key: value for key, value in self.defaults.items() if key not in sections}}
        return {**filled, **{key: section for key, section in sections.items() if section}}

    def close(self) -> None:
        """Refuse keys that were not read.

        Raises:
            ExternalModelError: there are such keys; names them.
        """
        for key, allowed in _INERT.items():
            if key in self.data and key not in self._read:
                self.only(key, *allowed, why=_REASONS.get(key, "gptkit does not support this"))
        unread = sorted(self._unread())
        if unread:
            raise ExternalModelError(
                f"{self.place} has unknown keys: {', '.join(unread)}",
                hint="They may change the computation of the model. If they do not, remove them from the file.",
            )
        for section in self._sections.values():
            section.close()

    def _unread(self) -> Iterator[str]:
        for key, result in self.data.items():
            if key not in self._read and key not in self.harmless and result is not None:
                yield repr(key)

    def _typed(self, key: str, default: Any, kind: Any, what: str) -> Any:
        result = self.value(key, default)
        if result is default:
            return result
        if not isinstance(result, kind) or (isinstance(result, bool) and kind is not bool):
            own = self.names.get(key, key)
            raise ExternalModelError(f"{self.place}: {own} should be {what}, not {describe(result)}")
        return result
