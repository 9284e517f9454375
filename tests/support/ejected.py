"""Ejected models, executed in a process of their own that cannot import gptkit."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import save_model
from torch import Tensor

from gptkit.ejection.writing import unused_weights, write_source
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.presets.catalog import presets
from gptkit.runs.opening import open_spec
from tests.support.random_models import CONTEXT, V

__all__ = [
    "COARSE",
    "PRESETS",
    "PROMPT",
    "Ejected",
    "is_written",
    "n_parameters",
    "presets_written_and_refused",
    "randomize",
    "rounding_error",
    "run_ejected",
    "source_of",
]

PROMPT, N_NEW = 5, 4
COARSE = 4.0
"""Where fp32 is too coarse for 1e-5, a difference may be this multiple of gptkit's own error against fp64.

Many layers with random weights amplify rounding, and chunks of gated delta layers are summed in another order than tokens.
The kit's checks `written-equals-built` and `written-options-equal-built` compare each component in fp64.
"""
PRESETS = [name for name, preset in presets().items() if preset.plugin is None and not name.startswith("finetune")]
"""The built-in presets that have a model of their own."""

# Executed by the other process, in a directory with NAME.py, NAME.safetensors and NAME.ids.
CHILD = """
import importlib.util, sys
from pathlib import Path
import torch

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gptkit", "safetensors", "pydantic", "transformers"):
            raise ImportError(f"{name} is imported")

sys.meta_path.insert(0, Refuse())
torch.set_num_threads(1)
prompt, n_new = int(sys.argv[1]), int(sys.argv[2])
for path in sorted(Path(".").glob("*.py")):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.GPT().eval()
    module.load_weights(model, f"{path.stem}.safetensors")
    ids = torch.load(f"{path.stem}.ids", weights_only=True)
    with torch.no_grad():
        logits = model(ids)
        cache, at, steps = module.Cache(), 0, []
        for size in (7, 1, 3, *[1] * (ids.shape[1] - 11)):
            steps.append(model(ids[:, at : at + size], cache))
            at += size
    torch.manual_seed(0)
    results = {
        "logits": logits,
        "cached": torch.cat(steps, dim=1),
        "greedy": module.generate(model, ids[:, :prompt], n_new, temperature=0),
        "sampled": module.generate(model, ids[:, :prompt], n_new, temperature=0.7, top_k=1),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    torch.save(results, f"{path.stem}.results")
"""


@dataclass
class Ejected:
    """What an ejected model computed for ids (2, T), and what gptkit's model computes."""

    source: str
    logits: Tensor
    cached: Tensor
    greedy: Tensor
    sampled: Tensor
    expected: Tensor
    expected_greedy: Tensor
    model: GPT
    ids_BT: Tensor

    def rounding(self) -> float:
        """Return the largest difference between gptkit's own logits in fp32 and in fp64."""
        return rounding_error(self.model, self.ids_BT, self.expected)


@torch.no_grad()
def rounding_error(model: GPT, ids_BT: Tensor, logits: Tensor) -> float:
    """Return the largest difference between a model's logits in fp32 and in fp64."""
    exact = copy.deepcopy(model).double()(ids_BT).logits
    assert exact is not None
    return float((exact - logits).abs().max())


@functools.cache
def presets_written_and_refused(every: int = 1) -> tuple[dict[str, str], dict[str, NotWrittenError]]:
    """Return the sources of the presets that can be written out, and the refusals of the others; of one in `every`."""
    sources, refusals = {}, {}
    for name in PRESETS[::every]:
        model = open_spec(name).spec.model
        try:
            sources[name] = write_source(model, model.vocab_size or 50257, name=name, parameters=1)
        except NotWrittenError as refusal:
            refusals[name] = refusal
    return sources, refusals


def source_of(model: GPT, name: str = "model") -> str:
    """Return the written source of a model."""
    return write_source(model.spec, model.vocab_size, name=name, parameters=n_parameters(model))


def n_parameters(model: GPT) -> int:
    """Return the number of parameters that the written model has."""
    unused = unused_weights(model.spec, model.vocab_size)
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not name.startswith(unused))


@torch.no_grad()
def randomize(model: GPT, seed: int = 5) -> GPT:
    """Replace all weights, those of norms and biases included, by random values of different scales."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(0.8 + 0.3 * noise if parameter.dim() < 2 else noise * parameter.shape[-1] ** -0.5)
    return model.eval()


@torch.no_grad()
def run_ejected(directory: Path, models: Mapping[str, GPT], n_tokens: int = 40) -> dict[str, Ejected]:
    """Eject models, run all files in one other process, and return both results."""
    sources, ids = {}, {}
    for name, model in models.items():
        sources[name] = source_of(model, name)
        (directory / f"{name}.py").write_text(sources[name])
        save_model(model, str(directory / f"{name}.safetensors"))
        ids[name] = torch.randint(model.vocab_size, (2, n_tokens), generator=torch.Generator().manual_seed(1))
        torch.save(ids[name], directory / f"{name}.ids")
    command = [sys.executable, "-I", "-c", CHILD, str(PROMPT), str(N_NEW)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = {}
    for name, model in models.items():
        written = torch.load(directory / f"{name}.results", weights_only=True)
        assert written.pop("parameters") == n_parameters(model)
        greedy = ids[name][:, :PROMPT]
        for _ in range(N_NEW):
            greedy = torch.cat((greedy, model(greedy).logits[:, -1:].argmax(dim=-1)), dim=1)
        results[name] = Ejected(
            sources[name], **written, expected=model(ids[name]).logits, expected_greedy=greedy, model=model, ids_BT=ids[name]
        )
    return results


@torch.no_grad()
def is_written(spec: ModelSpec) -> bool:
    """Compare a model of random weights with its written source; return False if it is refused."""
    model = randomize(GPT(spec, V, seed=1)).double()
    try:
        source = write_source(spec, V, name="random", parameters=0)
    except NotWrittenError as refusal:
        assert refusal.hint
        return False
    assert max(map(len, source.splitlines())) <= 100, max(source.splitlines(), key=len)
    module = ModuleType("written")
    exec(compile(source, "<written>", "exec"), vars(module))
    written = module.GPT().double().eval()
    unused = unused_weights(spec, V)
    written.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith(unused)})
    ids_BT = torch.randint(V, (2, CONTEXT), generator=torch.Generator().manual_seed(0))
    expected, actual = model(ids_BT).logits, written(ids_BT)
    assert expected is not None
    expected, actual = expected.nan_to_num(), actual.nan_to_num()
    difference = float((actual - expected).abs().max())
    if difference > 1e-5 * max(1.0, float(expected.abs().max())):
        # Without norms, or with large factors, the rounding of what is computed in fp32 grows from layer to layer.
        rounding = float((model.float()(ids_BT).logits.double().nan_to_num() - expected).abs().max())
        assert difference <= COARSE * rounding
    return True
