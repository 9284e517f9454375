"""Export of a model that no family expresses, with configuration and code of its own.

The code is written and parsed, and never executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gptkit.core.errors import ExternalModelError, GptkitError
from gptkit.ejection.hugging_face.head import WRAPPING
from gptkit.ejection.hugging_face.weights import Weight, external_weights
from gptkit.ejection.hugging_face.writing import (
    ARCHITECTURE,
    CONFIGURATION_FILE,
    MODEL_TYPE,
    MODELING_FILE,
    Code,
    write_code,
)
from gptkit.interop.generated import SPEC_KEY, compared_code
from gptkit.kinds.format import NativeModel, TensorEntry
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec

__all__ = ["Generated", "generate_code"]


@dataclass(frozen=True)
class Generated:
    """A model's code for transformers, and its tensors under the names of the code.

    Attributes:
        code: the code.
        weights: the tensors, in the order of the files.
        entries: shape and dtype of each.
        model: the model.
        checked: a sentence about the comparison of the code with the tensors.
    """

    code: Code
    weights: list[Weight]
    entries: Mapping[str, TensorEntry]
    model: NativeModel
    checked: str

    @property
    def files(self) -> dict[str, str]:
        """Contents of the files with code, by name."""
        return {CONFIGURATION_FILE: self.code.configuration, MODELING_FILE: self.code.modeling}

    @property
    def config(self) -> dict[str, Any]:
        """The keys of config.json that describe the model and where its code is."""
        configuration, modeling = (file.removesuffix(".py") for file in (CONFIGURATION_FILE, MODELING_FILE))
        return {
            "architectures": [ARCHITECTURE],
            "model_type": MODEL_TYPE,
            "auto_map": {
                "AutoConfig": f"{configuration}.GptkitConfig",
                "AutoModel": f"{modeling}.GptkitModel",
                "AutoModelForCausalLM": f"{modeling}.{ARCHITECTURE}",
            },
            **self.code.values,
            SPEC_KEY: _exported(self.model.spec).model_dump(mode="json"),
        }

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors in the order of `entries`, one at a time."""
        for weight in self.weights:
            tensor = self.model.tensors.get(weight.native)
            yield weight.name, tensor if weight.rows is None else tensor[slice(*weight.rows)]


def generate_code(model: NativeModel, refusal: ExternalModelError) -> Generated:
    """Return a model's code and tensors.

    Args:
        model: the model.
        refusal: why no family can express it.

    Raises:
        ExternalModelError: the model cannot be written out as code either, with both reasons; or the code does not declare
            the model's weights.
    """
    built = GPT(model.spec, device="meta")
    n_parameters = sum(parameter.numel() for parameter in built.parameters())
    try:
        code = write_code(model.spec, built.vocab_size, name=model.name, parameters=n_parameters)
    except NotWrittenError as error:
        raise ExternalModelError(
            f"{refusal.message}; and it cannot be exported with code of its own: {error.message}",
            hint=error.hint or refusal.hint,
        ) from None
    for name, source in ((CONFIGURATION_FILE, code.configuration), (MODELING_FILE, code.modeling)):
        try:
            compile(source, name, "exec", dont_inherit=True)
        except SyntaxError as error:
            raise GptkitError(f"the template of a component is not valid Python: {name}, line {error.lineno}") from None
    native = model.tensors.entries
    # Tensors of wider elements first, so that each is aligned to its elements' size.
    order = sorted(native, key=lambda name: -native[name].dtype.itemsize)
    weights = [weight for name in order for weight in external_weights(name, native[name].shape, code.layers, code.head)]
    entries = {
        weight.name: TensorEntry(_shape(weight, native[weight.native].shape), native[weight.native].dtype)
        for weight in weights
    }
    shapes = {name: entry.shape for name, entry in entries.items()}
    checked = compared_code(code.modeling, code.values, shapes, MODELING_FILE)
    return Generated(code, weights, entries, model, checked)


def _exported(spec: ModelSpec) -> ModelSpec:
    """Return the spec of what an export has: the head without parts that only training uses."""
    head: Any = spec.head
    while head.name in WRAPPING:
        head = head.head
    return spec.model_copy(update={"head": head})


def _shape(weight: Weight, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if weight.rows is None else (weight.rows[1] - weight.rows[0], *shape[1:])
