"""Generated code, loaded by transformers in a process of its own that cannot import gptkit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gptkit.checkpoint.safetensors import named_tensors
from gptkit.components.tokenizer.byte import ByteTokenizer
from gptkit.interop.formats.hugging_face.writing import write_directory
from gptkit.kinds.format import NativeModel, TensorEntry
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from tests.support.ejected import COARSE, rounding_error

__all__ = ["LENGTHS", "N_NEW", "Loaded", "export_with_code", "load_in_transformers", "native", "run_code"]

N_NEW = 4
LENGTHS = (9, 5, 2)
"""Lengths of the prompts of a batch, which are padded on the left."""

# Executed by the other process, in a directory with the exports and their ids.
CHILD = """
import sys, traceback
from pathlib import Path

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "gptkit":
            raise ImportError(f"{name} is imported")

sys.meta_path.insert(0, Refuse())
import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
n_new, lengths = int(sys.argv[1]), [int(length) for length in sys.argv[2].split(",")]
width = max(lengths)
greedy = {"do_sample": False, "max_new_tokens": n_new, "min_new_tokens": n_new, "pad_token_id": 0}
options = {"trust_remote_code": True, "dtype": torch.float32}

@torch.no_grad()
def results(directory):
    model, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True, **options)
    assert not any(info.values()), info
    model.eval()
    ids = torch.load(f"{directory}.ids", weights_only=True)
    mask = torch.stack([(torch.arange(width) >= width - length).long() for length in lengths])
    padded = torch.where(mask == 1, torch.stack([ids[0, :width].roll(width - length) for length in lengths]), 0)
    output = model(ids, output_hidden_states=True)
    assert output.past_key_values is not None
    states, cache, at = [], None, 0
    for size in (7, 1, 3, *[1] * (ids.shape[1] - 11)):
        step = model(ids[:, at : at + size], past_key_values=cache, use_cache=True)
        cache, at = step.past_key_values, at + size
        states.append(step.logits)
    made = {
        "logits": output.logits,
        "uncached": model(ids, use_cache=False, labels=ids).logits,
        "cached": torch.cat(states, dim=1),
        "padded": model(padded, attention_mask=mask).logits,
        "generated": model.generate(padded, attention_mask=mask, **greedy)[:, width:],
        "recomputed": model.generate(padded, attention_mask=mask, use_cache=False, **greedy)[:, width:],
        "beams": model.generate(padded, attention_mask=mask, num_beams=2, **greedy)[:, width:],
        "states": torch.tensor(len(output.hidden_states)),
    }
    try:
        made["embedded"] = model(inputs_embeds=model.get_input_embeddings()(ids)).logits
    except ValueError as error:  # modules that read ids, of a third party
        assert "needs input_ids" in str(error)
    if model._supports_attention_backend:
        eager = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager", **options).eval()
        made["eager"] = eager(padded, attention_mask=mask).logits
        static = {"cache_implementation": "static", "disable_compile": True, **greedy}
        made["static"] = model.generate(padded, attention_mask=mask, **static)[:, width:]
    made["bf16"] = model.to(torch.bfloat16)(padded, attention_mask=mask).logits
    return made

failed = False
for path in sorted(Path(".").glob("*/config.json")):
    try:
        torch.save(results(path.parent), f"{path.parent}.results")
    except Exception:
        failed = True
        print(f"--- {path.parent}", traceback.format_exc(limit=-6), file=sys.stderr)
assert "gptkit" not in sys.modules
sys.exit(failed)
"""


@dataclass
class Loaded:
    """What transformers computed with an export, and what gptkit's model computes."""

    directory: Path
    report: Sequence[str]
    results: Mapping[str, Tensor]
    expected: Tensor
    rows: Sequence[Tensor]
    greedy: Sequence[Tensor]
    rounding: Callable[[], float]

    def check(self, tolerance: float = 1e-5) -> None:
        """Compare all results, by the rule of `COARSE` where fp32 is too coarse for the tolerance."""
        name, scale = self.directory.name, max(1.0, float(self.expected.abs().max()))
        # Only copied modules may read the ids of tokens.
        reads_ids = "this model needs input_ids" in (self.directory / "modeling_gptkit.py").read_text()
        assert reads_ids is ("embedded" not in self.results), name
        for key in ("logits", "uncached", "cached", *(() if reads_ids else ("embedded",))):
            self._compare(key, self.results[key], self.expected, tolerance * scale)
        for key in ("padded", "eager"):
            for row, length, expected in zip(self.results.get(key, ()), LENGTHS, self.rows, strict=False):
                self._compare(f"{key} row of {length}", row[-length:], expected, tolerance * scale)
        for key in ("generated", "recomputed", "static"):
            for row, expected in zip(self.results.get(key, ()), self.greedy, strict=False):
                # After a tie of two tokens, rounding decides which text follows.
                shown = row[: len(expected)]
                assert torch.equal(shown, expected), f"{name}: {key} {row.tolist()}, expected {expected.tolist()}"
        for file in self.directory.glob("*.py"):
            longest = max(file.read_text().splitlines(), key=len)
            assert len(longest) <= 100, f"{name}: {file.name}: {longest}"
        assert self.results["bf16"].dtype == torch.bfloat16
        assert self.results["bf16"][0].isfinite().all(), name
        assert self.results["beams"].shape == (len(LENGTHS), N_NEW)

    def _compare(self, what: str, computed: Tensor, expected: Tensor, tolerance: float) -> None:
        difference = float((computed - expected).abs().max())
        if difference > tolerance:
            rounding = self.rounding()
            message = f"{self.directory.name}: {what}: logits differ by {difference:.1e}; "
            assert difference <= COARSE * rounding, f"{message}gptkit's own rounding error is {rounding:.1e}"


class _Memory:
    """Tensors of a model in memory."""

    def __init__(self, model: GPT) -> None:
        tensors = named_tensors(model)
        first = {id(tensor): name for name, tensor in reversed(tensors.items())}
        self._tensors = {name: tensor.detach() for name, tensor in tensors.items() if first[id(tensor)] == name}
        self.entries = {name: TensorEntry(tuple(tensor.shape), tensor.dtype) for name, tensor in self._tensors.items()}

    def get(self, name: str) -> Tensor:
        return self._tensors[name]


def native(model: GPT, name: str = "model", tokenizer: Tokenizer | None = None) -> NativeModel:
    """Return a model as formats receive it."""
    spec = model.spec.model_copy(update={"vocab_size": model.vocab_size})
    return NativeModel(name, spec, _Memory(model), tokenizer or ByteTokenizer())


def export_with_code(model: GPT, directory: Path) -> Sequence[str]:
    """Export a model that no family expresses, and return the report."""
    report = write_directory(native(model, directory.name), directory)
    assert (directory / "modeling_gptkit.py").is_file(), report
    return report


def _greedy(model: GPT, text_1T: Tensor) -> Tensor:
    """Return the most likely continuation, up to the first tie."""
    new: list[Tensor] = []
    for _ in range(N_NEW):
        best = model(text_1T).logits[0, -1].topk(2)
        if best.values[0] - best.values[1] < 1e-3 * max(1.0, float(best.values[0].abs())):
            break
        new.append(best.indices[0])
        text_1T = torch.cat((text_1T, best.indices[None, :1]), dim=1)
    return torch.stack(new) if new else torch.empty(0, dtype=torch.long)


def run_code(code: str, directory: Path, *arguments: str) -> str:
    """Run code in a process of its own, which executes exports in a directory, and return what it prints."""
    command = [sys.executable, "-I", "-c", code, *arguments]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON", "TRANSFORMERS_"))}
    environment = {**kept, "HF_HOME": str(directory / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@torch.no_grad()
def load_in_transformers(directory: Path, models: Mapping[str, GPT], n_tokens: int = 24) -> dict[str, Loaded]:
    """Export models, load all of them in one other process, and return both results."""
    reports, ids = {}, {}
    for name, model in models.items():
        reports[name] = export_with_code(model.eval(), directory / name)
        ids[name] = torch.randint(model.vocab_size, (2, n_tokens), generator=torch.Generator().manual_seed(1))
        torch.save(ids[name], directory / f"{name}.ids")
    run_code(CHILD, directory, str(N_NEW), ",".join(map(str, LENGTHS)))
    loaded = {}
    for name, model in models.items():
        results = torch.load(directory / f"{name}.results", weights_only=True)
        assert results.pop("states") == model.spec.n_layers + 1
        expected = model(ids[name]).logits
        rows = [model(ids[name][:1, :length]).logits[0] for length in LENGTHS]
        greedy = [_greedy(model, ids[name][:1, :length]) for length in LENGTHS]
        rounding = partial(rounding_error, model, ids[name], expected)
        loaded[name] = Loaded(directory / name, reports[name], results, expected, rows, greedy, rounding)
    return loaded
