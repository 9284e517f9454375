"""The engine of a command: parsed, adapted to the command's options, and built for a run."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from gptkit.core.errors import GptkitError, RequirementError
from gptkit.core.spec import Spec
from gptkit.files.options import parse_option
from gptkit.kinds.decoding import DecodingSpec
from gptkit.kinds.drafter import DrafterSpec
from gptkit.kinds.engine import EngineContext, EngineSpec
from gptkit.runs.directory import RunDirectory
from gptkit.runs.exporting import native_model
from gptkit.runs.run import Run

__all__ = ["engine_context", "engine_spec", "engine_with", "require_sampling"]


_PLUGINS = {"llama.cpp": "gptkit-llamacpp", "vllm": "gptkit-vllm"}
"""The plugins of gptkit's repository that have engines."""


class _Holder(Spec):
    engine: EngineSpec


def engine_spec(text: str) -> EngineSpec:
    """Parse an engine given on the command line: its name, or a YAML mapping with its options.

    Raises:
        SpecError: the engine is unknown, or an option is invalid.
    """
    try:
        return parse_option(_Holder, "engine", text, f"--engine {text}").engine
    except GptkitError as error:
        plugin = next((own for name, own in _PLUGINS.items() if f"unknown engine {name!r}" in str(error)), None)
        if plugin is None or find_spec(plugin.replace("-", "_")) is not None:
            raise
        hint = f"Run: pip install {plugin}, or from the repository of gptkit: pip install plugins/{plugin}."
        raise RequirementError(f"--engine {text} requires the plugin {plugin}, which is not installed", hint=hint) from None


def engine_with(
    engine: EngineSpec,
    *,
    precision: bool = False,
    trace: bool = False,
    drafter: DrafterSpec | None = None,
    compile: bool = False,
) -> EngineSpec:
    """Return an engine with the options of a command. An engine takes a drafter and `compile` in fields of these names.

    Args:
        engine: the engine.
        precision: whether weights are converted while loading.
        trace: whether what each sampler left is recorded.
        drafter: drafter of speculative decoding.
        compile: decode with a compiled step.

    Raises:
        GptkitError: the engine has no such option; names it.
    """
    if precision and not engine.applies_precision:
        raise GptkitError(
            f"the engine {engine.name!r} does not apply a precision of gptkit",
            hint="Omit --precision, and choose a format in the engine's options; or use --engine native.",
        )
    if trace and not engine.traces:
        hint = "Omit --trace, or use --engine native."
        raise GptkitError(f"the engine {engine.name!r} does not report what each sampler left", hint=hint)
    update: dict[str, Any] = {}
    for field, option, value, what in (
        ("drafter", "--speculate", drafter, "decode with a drafter of gptkit"),
        ("compile", "--compile", compile or None, "compile decode steps"),
    ):
        if value is not None:
            if field not in type(engine).model_fields:
                hint = f"Omit {option}, or use --engine native."
                raise GptkitError(f"the engine {engine.name!r} does not {what}", hint=hint)
            update[field] = value
    return engine.model_copy(update=update)


def require_sampling(engine: EngineSpec, decoding: DecodingSpec) -> None:
    """Check that a decoding samples, which is all that an engine does.

    Raises:
        GptkitError: the decoding searches.
    """
    if not decoding.samples:
        raise GptkitError(
            f"the engine {engine.name!r} samples, and cannot search with the decoding {decoding.name!r}",
            hint="Use --decoding sample, or omit --engine.",
        )


def engine_context(run: Run, max_batch: int) -> EngineContext:
    """Return the context of an engine for a run that was loaded."""
    return EngineContext(
        run.directory,
        run.tokenizer,
        lambda: run.model,
        max_batch,
        native_model=lambda: native_model(RunDirectory(run.directory), step=run.step, verify=False),
    )
