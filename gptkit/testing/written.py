"""Checks of components that can be written out: the file that `gptkit eject` writes computes what the built model computes.

The source is executed here, in a module of its own, as the code of the component under test is. `gptkit eject` never
executes it.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from types import ModuleType

import torch

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError
from gptkit.ejection.bundling import KINDS
from gptkit.ejection.writing import unused_weights, write_source
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.testing.check import Checks, ContractError, same, skip
from gptkit.testing.composites import composites
from gptkit.testing.options import changed_fields
from gptkit.testing.subject import VOCAB, Subject, stirred, token_ids

__all__ = ["checks"]

checks = Checks()

PIECES = (7, 1, 4, 1, 1)

_FILE = "<written>"
_DIFFERENCES = (
    "the context and the states in a written file have fewer methods and values: "
    "the tensors of a recurrent state, for example, are None before the first update"
)


@checks.add("written-equals-built", "A model written out by gptkit eject must compute what the composed one computes.")
@torch.no_grad()
def written_equals_built(subject: Subject) -> None:
    refusals = []
    any_written = False
    for named, model in subject.models():
        try:
            source = write_source(model.spec, model.vocab_size, name="written", parameters=0)
        except NotWrittenError as refusal:
            refusals.append(refusal.message)
            continue
        any_written = True
        _compare(named, model, source)
    if not any_written:
        skip(refusals[0])
    for named, model in composites(subject):
        try:
            source = write_source(model.spec, model.vocab_size, name="written", parameters=0)
        except NotWrittenError:
            continue
        _compare(named, model, source, cached=False)


@checks.add(
    "written-options-equal-built",
    "An option that the written model ignores would silently change what it computes.",
    slow=True,
)
@torch.no_grad()
def written_options_equal_built(subject: Subject) -> None:
    if not _has_template(subject.spec):
        skip("it has no template")
    any_written = False
    for named, model in _option_models(subject):
        try:
            source = write_source(model.spec, model.vocab_size, name="written", parameters=0)
        except NotWrittenError:
            continue
        any_written = True
        _compare(f"with {named}", stirred(model).double().eval(), source, cached=False)
    if not any_written:
        skip("no option of it is written out")


def _has_template(spec: Component) -> bool:
    if spec.kind in KINDS:  # its module is copied
        return True
    writer = next((cls for cls in type(spec).__mro__ if "written" in vars(cls)), Component)
    return issubclass(writer, Component) and not (writer is Component or writer.is_kind())


def _option_models(subject: Subject) -> Iterator[tuple[str, GPT]]:
    """Yield models with each other value of a field, first of the component, then of it with as many changes as possible."""
    together: Component = subject.spec
    names: list[str] = []
    for base in ("alone", "together"):
        spec = subject.spec if base == "alone" else together
        label = "" if base == "alone" else f", beside {', '.join(names)}"
        seen: set[str] = set()
        for change, changed in changed_fields(spec, subject.registry):
            try:
                model = Subject(changed, subject.registry).make(n_layers=1)
            except (ContractError, GptkitError):  # other fields do not allow it
                continue
            yield f"{change}{label}", model
            field = change.partition("=")[0]
            if base == "alone" and field not in seen:
                merged = _merged(together, field, changed, subject)
                if merged is not None:
                    together = merged
                    names.append(change)
                    seen.add(field)


def _merged(together: Component, field: str, changed: Component, subject: Subject) -> Component | None:
    """Return a spec with one more changed field, if a model with it can be built."""
    try:
        merged: Component = together.replace(**{field: getattr(changed, field)})
        Subject(merged, subject.registry).make(n_layers=1, device="meta")
    except (ContractError, GptkitError, ValueError):
        return None
    return merged


def _compare(named: str, model: GPT, source: str, *, cached: bool = True) -> None:
    # In fp64 as the model: norms of few features, one after the other, would turn rounding in fp32 into other logits.
    source = source.replace(".float()", ".double()")
    ids_BT = token_ids(2, sum(PIECES))
    expected = model(ids_BT).logits
    try:
        _compare_executed(named, model, source, ids_BT, expected, cached=cached)
    except ContractError:
        raise
    except Exception as error:
        seen = f"{named}: the written file fails: {type(error).__name__}: {error}"
        raise ContractError(f"{seen}{_written_line(error, model, source)}") from error


def _compare_executed(
    named: str, model: GPT, source: str, ids_BT: torch.Tensor, expected: torch.Tensor, *, cached: bool
) -> None:
    module = ModuleType("written")
    unused = unused_weights(model.spec, VOCAB)
    weights = {name: weight for name, weight in model.state_dict().items() if not name.startswith(unused)}
    exec(compile(source, _FILE, "exec"), vars(module))
    written = module.GPT().double().eval()
    written.load_state_dict(weights)
    same(written(ids_BT), expected, f"{named}: the written model gives other logits")
    if not cached:
        return
    if any(layer.position.depends_on_length for layer in model.spec.layer_specs()):
        _compare_generated(named, model, module, written, ids_BT[:, : PIECES[0]])
        return
    cache, first = module.Cache(), 0
    for piece in PIECES:
        step = written(ids_BT[:, first : first + piece], cache)
        same(step, expected[:, first : first + piece], f"{named}: the written model with a cache gives other logits")
        first += piece


def _compare_generated(
    named: str, model: GPT, module: ModuleType, written: torch.nn.Module, prompt_BT: torch.Tensor
) -> None:
    """Compare greedy texts: where the length changes all frequencies, generation computes the cache again, not a step."""
    ids_BT = prompt_BT
    for _ in range(sum(PIECES[1:]) + 1):
        ids_BT = torch.cat((ids_BT, model(ids_BT).logits[:, -1:].argmax(-1)), dim=1)
    if not torch.equal(module.generate(written, prompt_BT, ids_BT.shape[1] - prompt_BT.shape[1], temperature=0), ids_BT):
        raise ContractError(f"{named}: the written model generates another text")


def _written_line(error: Exception, model: GPT, source: str) -> str:
    """Return where a written file raised an error, and the line that this was copied from; "" if not in the file."""
    frames = [frame for frame in traceback.walk_tb(error.__traceback__) if frame[0].f_code.co_filename == _FILE]
    if not frames:
        return ""
    frame, number = frames[-1]
    line, name = source.splitlines()[number - 1].strip(), frame.f_code.co_qualname
    where = f", in {name}, line {number} of the written file: `{line}`. The built model computes it"
    cls = next((type(module) for module in model.modules() if type(module).__name__ == name.partition(".")[0]), None)
    copied = None if cls is None else _copied_line(cls, line)
    return where if copied is None else f"{where} ({copied}), but {_DIFFERENCES}"


def _copied_line(cls: type, line: str) -> str | None:
    """Return module and number of a line of a class or its bases; None if it is in none of them, or in several places."""
    places = []
    for each in cls.__mro__:
        if each.__module__.partition(".")[0] not in ("builtins", "abc", "torch"):
            try:
                lines, first = inspect.getsourcelines(each)
            except (OSError, TypeError):
                continue
            places += [f"{each.__module__}, line {first + at}" for at, other in enumerate(lines) if other.strip() == line]
    return places[0] if len(places) == 1 else None
