"""A conversion holds one tensor at a time, measured in a separate process after every tensor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gptkit.runs.directory import RunDirectory
from gptkit.runs.exporting import native_model
from tests.support.external_files import CONFIG
from tests.support.gguf_models import DECODER, make_run

CHILD = """
import sys
from gptkit.runs.exporting import export_model
from gptkit.runs.importing import convert_model
from gptkit.interop.conversion import families

def now(kind):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(kind)) * 1024

families()
before, own = now("VmHWM"), now("RssAnon")
seen = []
convert_model(sys.argv[1], sys.argv[2], tokenizer="byte", progress=lambda done, total: seen.append(now("RssAnon")))
export_model(sys.argv[2], sys.argv[3], progress=lambda done, total: seen.append(now("RssAnon")))
print(now("VmHWM") - before, max(seen) - own)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what a process holds")
def test_conversion_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    width, hidden, n_layers = 256, 1024, 24
    directory = tmp_path / "external"
    directory.mkdir()
    sizes = {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": n_layers}
    (directory / "config.json").write_text(json.dumps({**CONFIG, **sizes, "num_key_value_heads": 4}))
    shapes = {"model.embed_tokens": (260, width), "model.norm": (width,)}
    for layer in (f"model.layers.{index}" for index in range(n_layers)):
        shapes |= {f"{layer}.input_layernorm": (width,), f"{layer}.post_attention_layernorm": (width,)}
        shapes |= {f"{layer}.self_attn.{part}_proj": (width, width) for part in "qkvo"}
        shapes |= {f"{layer}.mlp.{part}_proj": (hidden, width) for part in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj": (width, hidden)}
    save_file({f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}, directory / "model.safetensors")
    size = (directory / "model.safetensors").stat().st_size
    words = [sys.executable, "-c", CHILD, str(directory), str(tmp_path / "run"), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    whole, own = map(int, done.stdout.split())
    # Files are not mapped, so their pages do not count.
    assert whole < 0.6 * size
    assert own < 0.4 * size


IMPORTS = 24 * 2**20
"""Bytes of modules that are imported during the measurement, whatever the size of the model."""

ADAPTED = """
import sys
from gptkit.interop.conversion import families
from gptkit.runs.exporting import export_model

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

families()
run, target = sys.argv[1:]
before = peak()
export_model(run, f"{target}/directory")
export_model(run, f"{target}/model.gguf", to={"name": "gguf", "type": "f16"})
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what a process holds")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_export_with_adapters_merges_one_projection_at_a_time(tmp_path: Path, dtype: torch.dtype) -> None:
    model = {**DECODER, "d_model": 512, "n_layers": 14, "feedforward": {"name": "gated", "d_hidden": 1536}}
    run = make_run(tmp_path / "run", {**model, "linear": {"name": "low-rank", "rank": 8}}, dtype=dtype)
    words = [sys.executable, "-c", ADAPTED, str(run), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    # Merged in fp32, whatever the file has.
    size = sum(entry.bytes for entry in native_model(RunDirectory(run)).tensors.entries.values())
    assert size > 120 * 2**20
    assert int(done.stdout) < 0.4 * size + IMPORTS


CONVERTED = """
import sys
from gptkit.interop.conversion import families
from gptkit.runs.exporting import export_model
from gptkit.runs.importing import convert_model

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

families()
source, target = sys.argv[1:]
before = peak()
convert_model(source, f"{target}/run", tokenizer="byte")
export_model(f"{target}/run", f"{target}/directory")
export_model(f"{target}/run", f"{target}/model.gguf", to={"name": "gguf", "type": "bf16"})
convert_model(f"{target}/model.gguf", f"{target}/again", tokenizer="byte")
print(peak() - before)
"""

LOADED = """
import sys
from gptkit.interop.conversion import families
from gptkit.runs.importing import import_model

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

families()
source, target = sys.argv[1:]
before = peak()
run = import_model(source, f"{target}/loaded", tokenizer="byte")
size = sum(parameter.numel() * parameter.element_size() for parameter in run.model.parameters())
print(peak() - before, size)
"""


def write_shards(directory: Path, *, width: int, hidden: int, n_layers: int, n_shards: int, vocabulary: int = 512) -> None:
    """Write a checkpoint of the family Llama in bf16 with random weights, in shards of whole layers."""
    directory.mkdir()
    sizes = {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": n_layers, "vocab_size": vocabulary}
    heads = {"num_attention_heads": width // 64, "num_key_value_heads": width // 64}
    (directory / "config.json").write_text(json.dumps({**CONFIG, **sizes, **heads, "tie_word_embeddings": False}))
    outer = {"model.embed_tokens": (vocabulary, width), "lm_head": (vocabulary, width), "model.norm": (width,)}
    index: dict[str, str] = {}
    for shard in range(n_shards):
        shapes: dict[str, tuple[int, ...]] = dict(outer) if shard == 0 else {}
        for layer in (f"model.layers.{each}" for each in range(shard, n_layers, n_shards)):
            shapes |= {f"{layer}.input_layernorm": (width,), f"{layer}.post_attention_layernorm": (width,)}
            shapes |= {f"{layer}.self_attn.{part}_proj": (width, width) for part in "qkvo"}
            shapes |= {f"{layer}.mlp.{part}_proj": (hidden, width) for part in ("gate", "up")}
            shapes |= {f"{layer}.mlp.down_proj": (width, hidden)}
        name = f"model-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        tensors = {f"{each}.weight": torch.full(shape, 0.02, dtype=torch.bfloat16) for each, shape in shapes.items()}
        save_file(tensors, directory / name)
        index |= dict.fromkeys(tensors, name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what a process holds")
def test_import_of_shards_needs_little_more_than_the_model(tmp_path: Path) -> None:
    """Peak of resident memory, with the pages of mapped files: a process with a limit is ended for either.

    Conversions and loading have a process each: the allocator keeps freed memory, which would count for the other.
    """
    write_shards(tmp_path / "external", width=1024, hidden=4096, n_layers=10, n_shards=5)

    def measured(code: str) -> list[int]:
        words = [sys.executable, "-c", code, str(tmp_path / "external"), str(tmp_path)]
        return [int(word) for word in subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()]

    loaded, size = measured(LOADED)
    assert size > 600 * 2**20
    # The shards have half the size of the model in fp32.
    assert measured(CONVERTED)[0] <= 0.4 * size / 2 + IMPORTS
    assert loaded <= 1.15 * size + IMPORTS
