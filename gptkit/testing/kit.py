"""Checks of kinds, and their execution."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from gptkit.core.component import Component
from gptkit.core.registry import Registry, default_registry
from gptkit.core.suggestions import did_you_mean
from gptkit.testing import (
    attention,
    attention_backend,
    attributes,
    callback,
    common,
    data,
    decoding,
    device,
    division,
    drafter,
    ends,
    engine,
    family,
    family_reference,
    formats,
    initial,
    initialization,
    inputs,
    linear,
    methods,
    module,
    outputs,
    position,
    precision,
    sampler,
    states,
    tokenizer,
    tokens,
    tracker,
    training,
    vectors,
    while_training,
    written,
)
from gptkit.testing.check import Check, Checks, ContractError, NotApplicableError, Result, in_order
from gptkit.testing.subject import Subject

__all__ = ["KNOWN_FAILURES", "checks_for", "instances", "require_known", "run_checks"]

_MODULE = (outputs.checks, attributes.checks, module.checks, device.checks, while_training.checks, initialization.checks)
"""Checks of all parts of a model."""

_KINDS: Mapping[str, tuple[Checks, ...]] = {
    "attention": (
        *_MODULE,
        tokens.checks,
        inputs.checks,
        states.checks,
        attention.checks,
        linear.user_checks,
        division.checks,
        written.checks,
    ),
    "attention-backend": (attention_backend.checks,),
    "position": (*_MODULE, tokens.checks, inputs.checks, states.checks, position.checks, written.checks),
    "rotary-scaling": (tokens.checks, states.checks, position.scaling_checks, written.checks),
    "block": (*_MODULE, tokens.checks, inputs.checks, states.checks, written.checks),
    "norm": (*_MODULE, vectors.checks, vectors.norm_checks, written.checks),
    "linear": (*_MODULE, inputs.checks, linear.checks, written.checks),
    "activation": (*_MODULE, vectors.checks, vectors.activation_checks, written.checks),
    "feedforward": (*_MODULE, vectors.checks, linear.user_checks, division.checks, written.checks),
    "router": (*_MODULE, inputs.checks, vectors.router_checks, written.checks),
    "embedding": (
        *_MODULE,
        ends.embedding_checks,
        tokens.checks,
        inputs.checks,
        states.checks,
        division.vocabulary_checks,
        written.checks,
    ),
    "head": (*_MODULE, inputs.checks, ends.head_checks, states.checks, division.vocabulary_checks, written.checks),
    "initializer": (initial.checks,),
    "sampler": (sampler.checks,),
    "precision": (precision.checks,),
    "decoding": (decoding.checks,),
    "drafter": (drafter.checks,),
    "engine": (engine.checks,),
    "tokenizer": (tokenizer.checks,),
    "data": (data.checks,),
    "optimizer": (training.optimizer_checks,),
    "schedule": (training.schedule_checks,),
    "callback": (callback.checks,),
    "tracker": (tracker.tracker_checks,),
    "family": (family.checks, family_reference.checks),
    "format": (formats.checks,),
}


KNOWN_FAILURES: Mapping[str, Mapping[str, str]] = {
    "tokenizer hugging-face": {"constructible": "the path of a file that only the user has"},
    "data prepared": {"constructible": "the path of tokens that only the user has"},
}
"""Checks that built-in components are known to fail, by kind and name, each with the reason."""


def checks_for(kind: str, registry: Registry | None = None) -> list[Check]:
    """Return the checks of a kind: those of every component, then its own.

    A plugin's kind may define its own by a class method ``conformance_checks() -> list[Check]``.

    Args:
        kind: the kind's name.
        registry: where the kind is looked up; by default what is installed.
    """
    groups: list[Iterable[Check]] = [common.checks, methods.checks, *_KINDS.get(kind, ())]
    registered = (registry or default_registry()).kinds().get(kind)
    own = None if registered is None else getattr(registered.cls, "conformance_checks", None)
    if own is not None:
        groups.append(own())
    return in_order(check for group in groups for check in group)


def instances(cls: type[Component], registry: Registry | None = None) -> list[Component]:
    """A component as it is checked: with its defaults, where it has them for all fields, and with each of its examples.

    Args:
        cls: the component.
        registry: where the components inside it are looked up; by default what is installed.

    Raises:
        ValidationError: an example is not valid.
    """
    name = cls.component_name()
    needed = [field for field, info in cls.model_fields.items() if info.is_required() and field != "name"]
    specs: list[Component] = []
    fields: Mapping[str, Any]
    for fields in (*(() if needed else ({},)), *cls.examples):
        spec = cls.model_validate({"name": name, **fields}, context={"registry": registry} if registry else None)
        if spec not in specs:
            specs.append(spec)
    return specs


def run_checks(
    spec: Component,
    *,
    slow: bool = False,
    only: Collection[str] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> list[Result]:
    """Run the checks of a component's kind on it as it is configured. Nothing is raised: failures are results.

    Args:
        spec: the component.
        slow: also run checks that take seconds, such as torch.compile.
        only: names of the checks to run; all by default.
        expected_failures: names of checks that are known to fail, each with the reason.
        registry: where the component and those around it are looked up; by default what is installed.

    Raises:
        ValueError: `expected_failures` has the name of no check.
    """
    checks = checks_for(spec.kind, registry)
    expected = expected_failures or {}
    require_known(expected, checks)
    subject = Subject.of(spec, registry)
    chosen = [check for check in checks if (slow or not check.slow) and (only is None or check.name in only)]
    return [_result(check, subject, expected.get(check.name)) for check in chosen]


def require_known(expected_failures: Mapping[str, str], checks: Iterable[Check]) -> None:
    """Refuse an expected failure of a check that does not exist: it would excuse nothing, and mislead.

    Raises:
        ValueError: names it, with the closest match.
    """
    known = [check.name for check in checks]
    for name in expected_failures:
        if name not in known:
            raise ValueError(f"no check is called {name!r}; {did_you_mean(name, known, label='checks')}")


def _result(check: Check, subject: Subject, reason: str | None) -> Result:
    label = subject.label
    try:
        check(subject)
    except NotApplicableError as skipped:
        return Result(label, check, "skipped", str(skipped))
    except (Exception, SystemExit) as error:  # a component must not end the program that uses it
        if reason is not None:
            return Result(label, check, "expected", reason, error)
        seen = str(error) if isinstance(error, ContractError) else f"it raised {type(error).__name__}: {error}"
        seen += "" if isinstance(error, ContractError) else _location(error, type(subject.spec).__module__)
        return Result(label, check, "failed", seen, error)
    if reason is None:
        return Result(label, check, "passed")
    return Result(label, check, "unexpected", f"it passes, but was expected to fail ({reason}); remove the expectation")


def _location(error: BaseException, module: str) -> str:
    """Where in the component's package an exception was raised: the innermost line, as a parenthesis; "" if in none."""
    package = "gptkit.components" if module.startswith("gptkit.") else module.partition(".")[0]
    result = ""
    traceback = error.__traceback__
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if name == package or name.startswith(f"{package}."):
            result = f" ({name}, line {traceback.tb_lineno})"
        traceback = traceback.tb_next
    return result
