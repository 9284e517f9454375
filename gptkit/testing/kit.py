"""Which checks a kind has, and running them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from gptkit.core.component import Component
from gptkit.core.registry import default_registry
from gptkit.testing import (
    attention,
    attention_backend,
    callback,
    common,
    data,
    ends,
    family,
    formats,
    initial,
    linear,
    module,
    position,
    sampler,
    states,
    tokenizer,
    tokens,
    training,
    vectors,
)
from gptkit.testing.check import Check, Checks, ContractError, NotApplicableError, Result
from gptkit.testing.subject import Subject

__all__ = ["checks_for", "instances", "run_checks"]

_KINDS: Mapping[str, tuple[Checks, ...]] = {
    "attention": (module.checks, tokens.checks, states.checks, attention.checks),
    "attention-backend": (attention_backend.checks,),
    "position": (module.checks, tokens.checks, states.checks, position.checks),
    "rotary-scaling": (tokens.checks, states.checks, position.scaling_checks),
    "block": (module.checks, tokens.checks, states.checks),
    "norm": (module.checks, vectors.checks, vectors.norm_checks),
    "linear": (module.checks, linear.checks),
    "activation": (module.checks, vectors.checks, vectors.activation_checks),
    "feedforward": (module.checks, vectors.checks),
    "router": (module.checks, vectors.router_checks),
    "embedding": (module.checks, ends.embedding_checks, states.checks),
    "head": (module.checks, ends.head_checks, states.checks),
    "initializer": (initial.checks,),
    "sampler": (sampler.checks,),
    "tokenizer": (tokenizer.checks,),
    "data": (data.checks,),
    "optimizer": (training.optimizer_checks,),
    "schedule": (training.schedule_checks,),
    "callback": (callback.checks,),
    "tracker": (training.tracker_checks,),
    "family": (family.checks,),
    "format": (formats.checks,),
}


def checks_for(kind: str) -> list[Check]:
    """The checks of a kind: those of every component, then its own.

    A plugin's kind may bring its own by a class method ``conformance_checks() -> list[Check]``.
    """
    groups: list[Iterable[Check]] = [common.checks, *_KINDS.get(kind, ())]
    registered = default_registry().kinds().get(kind)
    own = None if registered is None else getattr(registered.cls, "conformance_checks", None)
    if own is not None:
        groups.append(own())
    return [check for group in groups for check in group]


def instances(cls: type[Component]) -> list[Component]:
    """A component as it is checked: with its defaults, where it has them for all fields, and with each of its examples.

    Raises:
        ValidationError: an example is not valid.
    """
    name = cls.component_name()
    needed = [field for field, info in cls.model_fields.items() if info.is_required() and field != "name"]
    found: list[Component] = []
    fields: Mapping[str, Any]
    for fields in (*(() if needed else ({},)), *cls.examples):
        spec = cls.model_validate({"name": name, **fields})
        if spec not in found:
            found.append(spec)
    return found


def run_checks(spec: Component, *, slow: bool = False, only: Collection[str] | None = None) -> list[Result]:
    """Run the checks of a component's kind on it as it is configured. Nothing is raised: failures are results.

    Args:
        slow: those too that take seconds, such as torch.compile.
        only: names of the checks to run; all by default.
    """
    chosen = [check for check in checks_for(spec.kind) if (slow or not check.slow) and (only is None or check.name in only)]
    return list(_run(spec, chosen))


def _run(spec: Component, chosen: list[Check]) -> Iterator[Result]:
    label, declared = Subject(spec).label, type(spec).expected_failures
    for check in chosen:
        reason = declared.get(check.name)
        try:
            check(spec)
        except NotApplicableError as skipped:
            yield Result(label, check, "skipped", str(skipped))
        except Exception as error:
            seen = str(error) if isinstance(error, ContractError) else f"it raised {type(error).__name__}: {error}"
            yield Result(label, check, "failed" if reason is None else "expected", seen if reason is None else reason, error)
        else:
            if reason is None:
                yield Result(label, check, "passed")
            else:
                yield Result(
                    label, check, "unexpected", f"it passes, though declared to fail ({reason}); take the entry out"
                )
