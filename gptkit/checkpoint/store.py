"""Checkpoints: weights, optimizer state and counters in a folder that is either whole or not there.

::

    checkpoints/step-00000100/
      model.safetensors       parameters and persistent buffers; tied ones once
      optimizer.safetensors   the optimizer's tensors
      state.json              step, the optimizer's numbers, the training's own state; sizes and hashes of the above

Nothing is pickled: a checkpoint from a stranger is safe to open.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gptkit.core.errors import CheckpointError

__all__ = ["CheckpointStore", "load_weights", "named_tensors", "read_state", "restore_optimizer", "write_text"]

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})")


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: where they stand; made when the first is saved.
        keep: how many are kept, the newest ones.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` steps stands."""
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """The steps that there are checkpoints of, in order."""
        if not self.folder.is_dir():
            return []
        matches = [_NAME.fullmatch(path.name) for path in self.folder.iterdir() if path.is_dir()]
        return sorted(int(match[1]) for match in matches if match)

    def latest(self) -> Path | None:
        """The newest checkpoint."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, training: Mapping[str, Any]) -> Path:
        """Write a checkpoint, which appears all at once, and drop the oldest ones.

        Raises:
            CheckpointError: it cannot be written (a full disk, say); earlier ones are still there.
        """

        def write(unfinished: Path) -> dict[str, Any]:
            _save_weights(unfinished / MODEL, model)
            packed, tensors = _pack(optimizer.state_dict(), _parameter_names(model, optimizer))
            save_file(tensors, unfinished / OPTIMIZER)
            return {"step": step, "training": dict(training), "optimizer": packed}

        return self._write(step, write)

    def adopt(self, write_weights: Callable[[Path], None]) -> Path:
        """Make a checkpoint of step 0 from weights that were not trained here, without an optimizer's state.

        Args:
            write_weights: writes the file of weights that it is given the path of.

        Raises:
            CheckpointError: it cannot be written.
        """

        def write(unfinished: Path) -> dict[str, Any]:
            write_weights(unfinished / MODEL)
            return {"step": 0, "training": {}, "optimizer": None}

        return self._write(0, write)

    def _write(self, step: int, write: Callable[[Path], dict[str, Any]]) -> Path:
        final = self.path(step)
        unfinished = self.folder / f".{final.name}.unfinished"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.clean()
            unfinished.mkdir()
            said = write(unfinished)
            files = {path.name: _describe(path) for path in sorted(unfinished.iterdir())}
            state = {"format": FORMAT, "files": files, **said}
            (unfinished / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
            for path in (*unfinished.iterdir(), unfinished):
                _sync(path)
            if final.exists():
                # A rename cannot replace a folder that holds files.
                final.rename(self.folder / f".{final.name}.replaced")
            unfinished.rename(final)
            _sync(self.folder)
            for old in self.steps()[: -self.keep]:
                # Renamed first, so that one that is half removed never looks like a checkpoint.
                self.path(old).rename(self.folder / f".{self.path(old).name}.unfinished")
            self.clean()
        except (OSError, safetensors.SafetensorError) as error:
            why = getattr(error, "strerror", None) or error
            raise CheckpointError(
                f"{final}: the checkpoint cannot be written: {why}",
                hint="Make room or choose another folder, then resume the run; earlier checkpoints are still whole.",
            ) from error
        return final

    def clean(self) -> None:
        """Remove what saving left behind when it was killed."""
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob(".step-*")):
            whole = self.folder / path.name[1:].removesuffix(".replaced")
            if path.name.endswith(".replaced") and not whole.exists():
                # Killed between the two renames: the old checkpoint still counts.
                path.rename(whole)
            else:
                shutil.rmtree(path)


def read_state(checkpoint: Path, *, verify: bool = False) -> dict[str, Any]:
    """A checkpoint's state.json.

    Args:
        verify: also compare the hashes of the other files, which reads them whole.

    Raises:
        CheckpointError: a file is missing or damaged; says which.
    """
    file = checkpoint / STATE
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        found, files = state["format"], dict(state["files"])
        state["step"], state["optimizer"], state["training"]
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing", hint=_remedy(checkpoint)) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(file, f"{type(error).__name__}: {error}") from None
    if found != FORMAT:
        raise CheckpointError(
            f"{file} has format {found!r}, and this gptkit reads format {FORMAT}", hint="Install a newer gptkit."
        )
    for name, expected in files.items():
        path = checkpoint / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing", hint=_remedy(checkpoint))
        if path.stat().st_size != expected["bytes"]:
            raise _damaged(path, f"it has {path.stat().st_size} bytes in place of {expected['bytes']}")
        if verify and _describe(path) != expected:
            raise _damaged(path, "its content is not what was saved")
    assert isinstance(state, dict)
    return state


def load_weights(model: nn.Module, checkpoint: Path, *, assign: bool = False) -> None:
    """Fill a model with a checkpoint's weights.

    Args:
        assign: let the model's tensors be those of the file, mapped and not read: for a model on the meta device.
            Otherwise they are copied into the tensors that the model has.

    Raises:
        CheckpointError: the file is missing, damaged, or of another model.
    """
    file = checkpoint / MODEL
    loaded = _read(file)
    own = named_tensors(model)
    saved = {id(own[name]): tensor for name, tensor in loaded.items() if name in own}
    for name, tensor in own.items():
        if name not in loaded and id(tensor) in saved:
            loaded[name] = saved[id(tensor)]
    _require_same(file, own, loaded)
    if not assign:
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(loaded[name])
        return
    # By identity, so that what was one tensor in the model stays one.
    fresh: dict[int, Tensor] = {}
    for name, tensor in own.items():
        if id(tensor) not in fresh:
            value = loaded[name].to(tensor.dtype)
            is_parameter = isinstance(tensor, nn.Parameter)
            fresh[id(tensor)] = nn.Parameter(value, tensor.requires_grad) if is_parameter else value
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for key, old in held.items():
                if old is not None and id(old) in fresh:
                    held[key] = fresh[id(old)]  # type: ignore[assignment]


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, checkpoint: Path, state: Mapping[str, Any]
) -> None:
    """Bring an optimizer to a checkpoint's state, `state` being what `read_state` gave.

    Raises:
        CheckpointError: the file is missing, damaged, or of another optimizer.
    """
    file = checkpoint / OPTIMIZER
    tensors = _read(file)
    try:
        unpacked = _unpack(state["optimizer"], tensors, _parameter_names(model, optimizer))
        optimizer.load_state_dict(unpacked)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{file} does not fit the optimizer: {error}", hint="Resume with the spec that the run was started with."
        ) from error


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, the model's own tensors; tied ones under each of their names."""
    return dict(model.state_dict(keep_vars=True))


def write_text(path: Path, text: str) -> None:
    """Write a file that is either the old one or the new one, whatever happens in between."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    _sync(unfinished)
    unfinished.replace(path)


def _save_weights(file: Path, model: nn.Module) -> None:
    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    memory: set[int] = set()
    for name, tensor in named_tensors(model).items():
        if id(tensor) in seen:
            # Tied: the model knows its other name, and so finds it again when it loads.
            continue
        seen.add(id(tensor))
        own = _own(tensor)
        kept[name] = own.clone() if own.data_ptr() in memory else own
        memory.add(own.data_ptr())
    # No more metadata than this: the library writes several entries in any order, and equal weights are equal files.
    save_file(kept, file, metadata={"format": "pt"})


def _own(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own, in order, as the file format wants it."""
    tensor = tensor.detach().contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing", hint=_remedy(file.parent)) from None
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _damaged(file, str(error)) from None


def _require_same(file: Path, own: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> None:
    missing = [name for name in own if name not in loaded]
    foreign = [name for name in loaded if name not in own]
    resized = [n for n in own if n in loaded and own[n].shape != loaded[n].shape]
    if not (missing or foreign or resized):
        return
    parts = []
    if missing:
        parts.append(f"it lacks {_some(missing)}")
    if foreign:
        parts.append(f"it has {_some(foreign)} too many")
    if resized:
        name = resized[0]
        parts.append(f"{name} is {tuple(loaded[name].shape)} there and {tuple(own[name].shape)} in the model")
    raise CheckpointError(
        f"{file} is of another model: {'; '.join(parts)}", hint="Load it with the spec.yaml that belongs to it."
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# -- optimizer state: any nesting of dicts, lists, numbers and tensors, with parameters known by name ------------


def _parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The name of each parameter at its index in the optimizer's state_dict."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _pack(state: Mapping[str, Any], names: list[str]) -> tuple[Any, dict[str, Tensor]]:
    tensors: dict[str, Tensor] = {}

    def pack(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = _own(value)
            return {"tensor": path}
        if isinstance(value, Mapping):
            return {"dict": [[key, pack(item, f"{path}.{key}")] for key, item in value.items()]}
        if isinstance(value, (list, tuple)):
            return {type(value).__name__: [pack(item, f"{path}.{index}") for index, item in enumerate(value)]}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise CheckpointError(
            f"the optimizer's {path} is of type {type(value).__name__}, which cannot be saved",
            hint="An optimizer's state may hold tensors, numbers, texts, lists and mappings only.",
        )

    by_name = {names[index]: value for index, value in state["state"].items()}
    groups = [{**group, "params": [names[index] for index in group["params"]]} for group in state["param_groups"]]
    return {"state": pack(by_name, "state"), "param_groups": pack(groups, "group")}, tensors


def _unpack(packed: Mapping[str, Any], tensors: Mapping[str, Tensor], names: list[str]) -> dict[str, Any]:
    def unpack(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "tensor":
            # Copied: the file is mapped, and may be pruned while the training goes on.
            return tensors[content].clone()
        if kind == "dict":
            return {key: unpack(item) for key, item in content}
        items = [unpack(item) for item in content]
        return tuple(items) if kind == "tuple" else items

    index = {name: position for position, name in enumerate(names)}
    groups = [{**group, "params": [index[name] for name in group["params"]]} for group in unpack(packed["param_groups"])]
    order = [position for group in groups for position in group["params"]]
    if order != list(range(len(names))):
        raise ValueError("its parameter groups are others")
    return {"state": {index[name]: value for name, value in unpack(packed["state"]).items()}, "param_groups": groups}


# -- files ----------------------------------------------------------------------------------------------------


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _sync(path: Path) -> None:
    """Make sure that a file or folder is on the disk, where the system can (Windows cannot sync folders)."""
    with contextlib.suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _damaged(file: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{file} is damaged: {why}", hint=_remedy(file.parent))


def _remedy(checkpoint: Path) -> str:
    return f"Restore the file, or remove {checkpoint} to go back to the checkpoint before it."
