"""`ComparisonSpec`: what an experiment compares, on the command line or as a file `experiment.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from gptkit.core.errors import GptkitError, Problem, SpecError
from gptkit.core.spec import Spec
from gptkit.files import read, validate
from gptkit.files.nodes import lift
from gptkit.files.overrides import apply_override
from gptkit.reflect.snippets import flow

__all__ = [
    "LEARNING_RATE",
    "ComparisonSpec",
    "Match",
    "changes_text",
    "is_request",
    "parse_axis",
    "parse_numbers",
    "parse_part",
    "parse_seeds",
    "parse_size",
    "parse_value",
    "parse_values",
    "read_request",
]

Match = Literal["parameters", "flops", "cache", "time"]

LEARNING_RATE = "training.optimizer.learning_rate"

_SIZE = re.compile(r"(\d+)x(\d+)")


class ComparisonSpec(Spec):
    """Experiment: variants of one spec file (`base` and `vary`), or several spec files (`specs`), and how they are compared.

    ::

        question: Do positions matter, and which encoding is best?
        base: tiny.yaml
        vary:
          model.position: [none, learned, rotary]
        seeds: 3
    """

    name: str = Field("", max_length=200, description="Name of the experiment; that of the base by default.")
    question: str = Field("", description="The question that the experiment answers; the head of its report.")
    base: str | None = Field(None, min_length=1, description="The spec file, or the name of a shipped spec.")
    specs: tuple[str, ...] = Field((), description="Compared spec files, in place of base and vary; the first is the base.")
    vary: dict[str, tuple[Any, ...]] = Field(
        {},
        description="The compared values by dotted path: numbers, texts, names of components, or mappings. Each combination "
        "is a variant.",
    )
    points: tuple[dict[str, Any], ...] = Field(
        (),
        description="Compared settings of base, each with values by dotted path, in place of the combinations of vary; the "
        "first is the base.",
    )
    set: dict[str, Any] = Field({}, description="Values by dotted path that all variants have.")
    seeds: int | tuple[int, ...] = Field(3, description="Number of seeds (0, 1, …), or the seeds.")
    match: Match | None = Field(
        None,
        description="Make all variants equal the base within 1 % in the number of parameters, the operations of a forward "
        "pass, the bytes of the decoding cache per token, or the time of a training step, by the widths of the feed-forward "
        "and of the model.",
    )
    learning_rates: tuple[float, ...] = Field(
        (), description="Train each variant with each of these rates; the report compares the best rate of each variant."
    )
    sizes: dict[str, dict[str, Any]] = Field(
        {}, description="Sizes at which everything is compared: for each label, values by dotted path."
    )
    skip_invalid: bool = Field(False, description="Skip combinations that are invalid, instead of refusing all.")

    @model_validator(mode="after")
    def _check(self) -> ComparisonSpec:
        if (self.base is None) == (not self.specs):
            raise ValueError("give base, the spec file whose fields are varied, or specs, a list of spec files")
        if len(self.specs) == 1:
            raise ValueError("specs lists one file, so nothing is compared; add another one, or use base and vary")
        if self.specs and self.vary:
            raise ValueError("vary changes fields of base; with several specs, remove it")
        if self.points and (self.specs or self.vary):
            raise ValueError("points are settings of base, in place of vary and specs; remove the others")
        if self.base is not None and not (self.vary or self.points or self.learning_rates or self.sizes):
            raise ValueError("nothing is compared; add vary, such as --vary model.position=learned,rotary, or another spec")
        for path, values in self.vary.items():
            if len(values) < 2:
                raise ValueError(f"vary: {path} has {len(values)} value; give at least two, or use --set {path}=VALUE")
            if any(value in values[:index] for index, value in enumerate(values)):
                raise ValueError(f"vary: {path} has a value twice; remove one")
        compared = {"vary": [*self.vary], "sizes": [path for size in self.sizes.values() for path in size]}
        compared["learning_rates"] = [LEARNING_RATE] if self.learning_rates else []
        for option, paths in compared.items():
            for path in self.set:
                if path in paths:
                    raise ValueError(f"set: {path} is replaced by the values of {option}; remove it from one of the two")
        if not self.seed_list or len(set(self.seed_list)) < len(self.seed_list) or min(self.seed_list) < 0:
            raise ValueError("seeds: give a number of seeds from 1, or different seeds from 0")
        if min(self.learning_rates, default=1) <= 0 or len(set(self.learning_rates)) < len(self.learning_rates):
            raise ValueError("learning_rates: give different rates above 0")
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


def is_request(path: str | Path) -> bool:
    """Return whether a file describes an experiment, not a spec: it has `base` or `specs`."""
    if not Path(path).is_file():
        return False
    return bool({"base", "specs"} & set(read(path).data))


def read_request(path: str | Path) -> ComparisonSpec:
    """Read an experiment file; relative paths of specs are relative to its directory.

    Raises:
        SpecError: the file is invalid.
    """
    request = validate(read(path), ComparisonSpec)
    directory = Path(path).parent

    def located(name: str) -> str:
        beside = directory / name
        return str(beside) if beside.exists() else name

    base = None if request.base is None else located(request.base)
    name = request.name or Path(path).stem
    changed: ComparisonSpec = request.replace(name=name, base=base, specs=tuple(map(located, request.specs)))
    return changed


def parse_axis(text: str, option: str = "--vary") -> tuple[str, tuple[Any, ...]]:
    """Parse ``model.position=learned,rotary``: values in YAML, separated by commas outside of brackets.

    Args:
        text: the value of the option.
        option: the name of the option, for messages.

    Raises:
        GptkitError: the text is not of this form.
    """
    path, equals, values = text.partition("=")
    hint = f"Write {option} PATH=VALUE,VALUE such as {option} model.position=learned,rotary; quote mappings for the shell."
    if not equals or not path.strip() or not values.strip():
        raise GptkitError(f"{option} {text}: expected a dotted path, = and values separated by commas", hint=hint)
    return path.strip(), tuple(_items(values, f"{option} {text}", hint))


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    """Parse numbers separated by commas.

    Raises:
        GptkitError: an item is not a number.
    """
    items = _items(text, f"{option} {text}", f"Write numbers separated by commas: {option} 1e-3,3e-3.")
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            raise GptkitError(f"{option} {text}: {item} is not a number", hint=f"Write {option} 1e-3,3e-3.")
    return tuple(items)


def parse_seeds(text: str) -> int | tuple[int, ...]:
    """Parse a number of seeds, ``3``, or the seeds, ``0,1,5``.

    Raises:
        GptkitError: the text is not of this form.
    """
    hint = "Write the number of seeds, --seeds 3, or several seeds, --seeds 0,1,5."
    items = [item.strip() for item in text.removesuffix(",").split(",")]
    if not all(item.isascii() and item.isdecimal() for item in items):
        raise GptkitError(f"--seeds {text}: expected whole numbers", hint=hint)
    numbers = tuple(int(item) for item in items)
    return numbers if "," in text else numbers[0]


def parse_value(text: str) -> tuple[str, Any]:
    """Parse ``training.steps=100``; the value is YAML.

    Raises:
        GptkitError: the text is not of this form.
    """
    path, equals, value = text.partition("=")
    hint = "Write --set PATH=VALUE, such as --set training.steps=100."
    if not equals or not path.strip():
        raise GptkitError(f"--set {text}: expected a dotted path, = and a value", hint=hint)
    values = _items(value, f"--set {text}", hint)
    if len(values) != 1:
        raise GptkitError(f"--set {text}: more than one value", hint="Use --vary to compare several values.")
    return path.strip(), values[0]


def parse_values(texts: Sequence[str]) -> dict[str, Any]:
    """Parse several of ``training.steps=100``; the values by path.

    Raises:
        GptkitError: a text is not of this form, or a path has two values.
    """
    result: dict[str, Any] = {}
    for text in texts:
        path, value = parse_value(text)
        if path in result and result[path] != value:
            raise GptkitError(f"--set {path} is given twice, with different values", hint="Remove one of them.")
        result[path] = value
    return result


def parse_part(text: str) -> tuple[int, int]:
    """Parse ``2/8``: the second of eight parts.

    Raises:
        GptkitError: the text is not of this form.
    """
    part, _, number = text.partition("/")
    if not (part.isdecimal() and number.isdecimal() and 1 <= int(part) <= int(number)):
        raise GptkitError(f"--only {text}: expected k/n with k from 1 to n", hint="As in --only 2/8, in a job array.")
    return int(part), int(number)


def parse_size(text: str) -> dict[str, Any]:
    """Parse a size, ``128x4``: width and number of layers.

    Raises:
        GptkitError: the text is not of this form.
    """
    parts = _SIZE.fullmatch(text.strip())
    if parts is None:
        raise GptkitError(
            f"--sizes {text}: expected WIDTHxLAYERS", hint="Write --sizes 128x4,256x6; other sizes go into experiment.yaml."
        )
    return {"model.d_model": int(parts[1]), "model.n_layers": int(parts[2])}


def _items(text: str, source: str, hint: str) -> Sequence[Any]:
    try:
        values = apply_override(lift({}), f"values=[{text}]").plain()["values"]
    except SpecError as error:
        problems = [Problem((), problem.message, source) for problem in error.problems]
        raise SpecError(problems, hint=hint) from None
    assert isinstance(values, list)
    return values


def changes_text(changes: Mapping[str, Any]) -> str:
    """Return changes by dotted path as text, ``model.d_model = 64, model.n_layers = 2``; without null values."""
    return ", ".join(f"{path} = {flow(value)}" for path, value in changes.items() if value is not None)
