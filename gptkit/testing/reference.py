"""Tiny models as their reference classes compute them, and as gptkit does.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry
from gptkit.interop.checking import check_tensors
from gptkit.interop.conversion import pair, read_model, write_config
from gptkit.interop.formats.hugging_face.parts import JoinedParts
from gptkit.interop.tensor_files import SINGLE, TensorFiles, write_tensors
from gptkit.kinds.family import FamilySpec
from gptkit.kinds.format import TensorEntry
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.testing.check import ContractError, skip

__all__ = ["ReferencePair", "export", "known_to_reference", "load_reference", "native_model", "reference_classes"]

N_TOKENS, FIRST = 24, 5
"""Length of the texts, more than the tiny configurations' attention window, and of the prompt of cached decoding."""

_TOKENS: Mapping[str, None] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
"""Written even where they are null, as exports have them: families have default ids, which a tiny vocabulary lacks."""
# The eager path of Falcon with ALiBi adds the bias twice.
_KERNELS = {"falcon": "sdpa"}
_INVALID = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def reference_classes(family: FamilySpec) -> tuple[Any, Any]:
    """Return the classes of the configuration and of the model; the check is skipped where there are none.

    Raises:
        NotApplicableError: transformers is not installed, or has no model of the type.
    """
    try:
        own = family.reference()
        if own is not None:
            return own
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        skip(f"the reference is not installed; install {error.name or 'its package'} to check what the family computes")
    if family.model_type not in transformers.CONFIG_MAPPING:
        skip(f"transformers has no model_type {family.model_type!r}; name the classes in `reference` if another package has")
    config_class = transformers.CONFIG_MAPPING[family.model_type]
    if config_class not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        skip(f"transformers has no language model of the type {family.model_type!r}")
    return config_class, transformers.MODEL_FOR_CAUSAL_LM_MAPPING[config_class]


def known_to_reference(family: FamilySpec, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration as the reference class reads and writes it, with its own defaults.

    Raises:
        ContractError: the reference class refuses the configuration.
    """
    config_class, _ = reference_classes(family)
    with quiet():
        try:
            data: dict[str, Any] = config_class(**config).to_dict()
        except Exception as error:  # classes of other packages may raise anything
            raise ContractError(f"{config_class.__name__} refuses the configuration: {_first_line(error)}") from error
    return data


def native_model(
    family: FamilySpec, model: ModelSpec, tensors: Mapping[str, Tensor], place: str = "the reference's weights"
) -> GPT:
    """Return a native model with the numbers of external tensors, as an import has it.

    Raises:
        ExternalModelError: tensors are missing, unexpected, or of another shape.
    """
    native = GPT(model, seed=0)
    moves = pair(family, native)
    entries = {name: TensorEntry(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    names = check_tensors(family, native, moves, entries, place)
    own = native.state_dict()
    for move in moves:
        joined = move.join([tensors[names[name]] for name in move.external])
        if joined.shape != own[move.native].shape:
            raise ExternalModelError(
                f"{move.native}: the layout joins {list(joined.shape)}, not {list(own[move.native].shape)}"
            )
        own[move.native].copy_(joined)
    return native.eval()


def external_state(family: FamilySpec, native: GPT) -> dict[str, Tensor]:
    """Return the external tensors of a native model."""
    own = native.state_dict()
    tensors = {
        name: part.contiguous()
        for move in pair(family, native)
        for name, part in zip(move.external, move.split(own[move.native]), strict=True)
    }
    return {**tensors, **{name: constant.make() for name, constant in family.constants(native.spec).items()}}


def export(family: FamilySpec, native: GPT, directory: Path, registry: Registry | None = None) -> Path:
    """Write a native model as an export has it: config.json with all keys explicit, and the tensors."""
    tensors = external_state(family, native)
    entries = {name: TensorEntry(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    head = {"model_type": family.model_type, "architectures": [family.architecture], "torch_dtype": "float32"}
    config = {**head, **_TOKENS, **write_config(family, native.spec, registry)}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_tensors(directory / SINGLE, entries, iter(tensors.items()))
    return directory


def load_reference(family: FamilySpec, directory: Path) -> Any:
    """Return the model of a directory as its reference class loads it.

    Raises:
        ContractError: the class cannot load it, or tensors are missing, unexpected, or of another shape.
    """
    _, model_class = reference_classes(family)
    options = {"attn_implementation": _kernel(family), "output_loading_info": True, "local_files_only": True}
    with quiet():
        try:
            model, report = model_class.from_pretrained(directory, **options)
        except Exception as error:  # classes of other packages may raise anything
            raise ContractError(f"{model_class.__name__} cannot load the export: {_first_line(error)}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[what]:
            raise ContractError(f"{model_class.__name__} loads the export with {what}: {sorted(report[what])[:5]}")
    return model.eval()


@dataclass(frozen=True)
class ReferencePair:
    """A tiny model with random weights, as its reference class computes it and as gptkit imports it.

    Attributes:
        family: the family.
        config: the configuration, as the reference class writes it.
        tensors: the external tensors, as the reference class saves them.
        external: the model of the reference class.
        native: the imported model.
        ids_BT: texts longer than the attention window.
        expected_BTV: the reference's logits.
    """

    family: FamilySpec
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    external: Any
    native: GPT
    ids_BT: Tensor
    expected_BTV: Tensor

    @classmethod
    def of(cls, family: FamilySpec, config: Mapping[str, Any], registry: Registry | None = None) -> ReferencePair:
        """Build the reference model of a configuration, and import it.

        Raises:
            NotApplicableError: the reference is not installed, or cannot compute the configuration.
            ExternalModelError: the family refuses the configuration or the tensors.
        """
        external = _external(family, config)
        # Saved before the first call, at which a class may change its weights (RWKV halves some).
        with TemporaryDirectory(prefix="gptkit-check-") as directory, quiet():
            external.save_pretrained(directory)
            files = JoinedParts(TensorFiles(Path(directory)))
            tensors = {name: files.get(name).clone() for name in files.entries}
            written = json.loads(Path(directory, "config.json").read_text(encoding="utf-8"))
        ids_BT = _ids(external)
        try:
            expected_BTV = _logits(external, ids_BT)
        except _INVALID as error:
            skip(f"{type(external).__name__} cannot be computed ({_first_line(error)}) with {dict(config)}")
        data = {key: value for key, value in written.items() if key != "architectures"}
        native = native_model(family, read_model(family, data, registry=registry), tensors)
        return cls(family, data, tensors, external, native, ids_BT, expected_BTV)

    @torch.no_grad()
    def native_logits(self) -> Tensor:
        """Return the native logits of all tokens at once, (B, T, V)."""
        logits: Tensor = self.native(self.ids_BT).logits
        return logits

    @torch.no_grad()
    def cached_logits(self) -> Tensor:
        """Return the native logits of a prompt and then token by token with a cache, (B, T, V)."""
        cache = self.native.new_cache(self.ids_BT.shape[0])
        steps = [self.ids_BT[:, :FIRST], *torch.split(self.ids_BT[:, FIRST:], 1, dim=1)]
        return torch.cat([self.native(step_BT, cache=cache).logits for step_BT in steps], dim=1)

    @torch.no_grad()
    def padded_logits(self, n_padding: int = 3) -> Tensor:
        """Return the native logits, (B, T, V), where each text has padding tokens before it in a longer row."""
        n_rows = self.ids_BT.shape[0]
        padding_BT = torch.zeros(n_rows, n_padding, dtype=self.ids_BT.dtype)
        padded_BT = torch.cat((padding_BT, self.ids_BT), dim=1)
        logits: Tensor = self.native(padded_BT, left_padding_B=torch.full((n_rows,), n_padding)).logits
        return logits[:, n_padding:]

    def exported_tensors(self) -> dict[str, Tensor]:
        """Return the external tensors of the native model."""
        return external_state(self.family, self.native)

    def export(self, directory: Path, registry: Registry | None = None) -> Path:
        """Write the native model as an export has it; return the directory."""
        return export(self.family, self.native, directory, registry)

    def exported_logits(self, directory: Path) -> Tensor:
        """Return the logits of an export as the reference class loads it, (B, T, V)."""
        return _logits(load_reference(self.family, directory), self.ids_BT)


def _external(family: FamilySpec, config: Mapping[str, Any]) -> Any:
    """Return a reference model with every weight random, norms and biases too: ones and zeros hide errors."""
    config_class, model_class = reference_classes(family)
    with quiet():
        try:
            made = config_class(**{**_TOKENS, **config})
            made._attn_implementation = _kernel(family)
            external = model_class(made).float().eval()
        except _INVALID as error:
            skip(f"{model_class.__name__} cannot be built ({_first_line(error)}) from {dict(config)}")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        # Buffers that are saved are moved as parameters are: what selects experts, the bounds of an activation. Those that
        # follow from the configuration are not.
        ignored = re.compile("|".join(f"(?:{pattern})" for pattern in family.ignored) or r"(?!)")
        saved = external.state_dict()
        for name, tensor in saved.items():
            if tensor.is_floating_point() and not ignored.fullmatch(name):
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.15)
    return external


def _ids(external: Any) -> Tensor:
    longest = getattr(external.config, "max_position_embeddings", N_TOKENS) or N_TOKENS
    n_tokens = min(N_TOKENS, int(longest) - 4)
    return torch.randint(3, external.config.vocab_size, (2, n_tokens), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def _logits(external: Any, ids_BT: Tensor) -> Tensor:
    with quiet():
        logits: Tensor = external(input_ids=ids_BT, use_cache=False).logits
    return logits.float()


def _kernel(family: FamilySpec) -> str:
    return _KERNELS.get(family.model_type, "eager")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Switch off the messages and progress bars of transformers."""
    try:
        logging = importlib.import_module("transformers").utils.logging
    except ImportError:
        yield
        return
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
