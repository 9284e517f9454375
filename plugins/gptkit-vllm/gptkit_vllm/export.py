"""The Hugging Face directory of a run: written once into a cache directory."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import gptkit
from gptkit.core.atomic import writing
from gptkit.core.errors import ExternalModelError, FileError
from gptkit.core.paths import cache_directory, expand_home, is_own
from gptkit.engines.exports import export_key, keep_newest, with_token_rows
from gptkit.interop.formats.hugging_face.generated import generate_code
from gptkit.interop.formats.hugging_face.writing import write_directory
from gptkit.interop.selection import choose_family
from gptkit.kinds.engine import EngineContext
from gptkit.kinds.format import NativeModel

if TYPE_CHECKING:
    from gptkit_vllm.spec import VllmEngineSpec

__all__ = ["Export", "exported"]

_VERSION = 1
"""Increased when the content of directories for the same run changes."""
_NAME = re.compile(r"gptkit-[0-9a-f]{32}")


@dataclass(frozen=True)
class Export:
    """An exported run.

    Attributes:
        directory: the directory, as transformers saves a model.
        context_length: maximum number of tokens of the model.
        has_code: whether the directory has the model's code, written by gptkit.
    """

    directory: Path
    context_length: int
    has_code: bool


def exported(spec: VllmEngineSpec, context: EngineContext) -> Export:
    """Return the export of a run, which is written if the cache directory does not have it.

    Raises:
        ExternalModelError: no family expresses the model, and vLLM cannot run its generated code; gives the reason, and the
            hint names the native engine.
        FileError: the directory cannot be written, or may have been changed by other users.
    """
    model = with_token_rows(context.native_model(), context.tokenizer.vocab_size)
    parent = cache_directory() / "vllm" if spec.directory is None else expand_home(spec.directory, "directory")
    target = parent / f"gptkit-{export_key(model, _VERSION, gptkit.__version__)}"
    with writing(parent):
        if target.exists():
            _require_own(target)
        else:
            _require_contract(model, context.directory)
            parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".gptkit-", dir=parent) as temporary:
                made = Path(temporary) / target.name
                write_directory(model, made)
                made.chmod(0o700)
                _place(made, target)
        os.utime(target)
        keep_newest((path for path in parent.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()), spec.keep)
    return Export(target, model.spec.context_length, any(target.glob("*.py")))


def _place(made: Path, target: Path) -> None:
    """Move the directory to its name, unless another process has written the same one meanwhile."""
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _require_own(target: Path) -> None:
    """Raise if an earlier export, whose code vLLM executes, is another user's or may be changed by others."""
    if not is_own(target):
        raise FileError(
            f"{target} belongs to another user, or others may write to it, and vLLM would execute code in it",
            hint="Set the engine's directory to one of your own.",
        )


def _require_contract(model: NativeModel, run: Path) -> None:
    """Raise if a model needs code of its own, and the code does not meet the contract of vLLM's Transformers backend."""
    try:
        choose_family(model.spec, model.family)
        return
    except ExternalModelError as error:
        refusal = error
    try:
        unmet = generate_code(model, refusal).code.contract.unmet
        reason = f"{refusal.message}; and vLLM cannot run it with generated code: {unmet}"
    except ExternalModelError as error:
        unmet, reason = error.message, error.message
    if unmet:
        raise ExternalModelError(f"vLLM cannot compute {run}: {reason}", hint="Use --engine native.")
