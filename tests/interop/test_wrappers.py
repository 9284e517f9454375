"""Language models of multimodal models, compared with transformers on text alone."""

from __future__ import annotations

import itertools
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gptkit.core.errors import ExternalModelError
from gptkit.interop.checking import check_tensors
from gptkit.interop.conversion import family_of, pair, read_model
from gptkit.interop.selection import detect_format
from gptkit.interop.wrappers import FILE
from gptkit.model.gpt import GPT
from gptkit.runs.external import NativeTensors

transformers = pytest.importorskip("transformers")

WRAPPERS = sorted(tomllib.loads(FILE.read_text(encoding="utf-8"))["wrappers"])
QUICK = ("llava", "qwen2_vl", "cohere2_vision")
V = 160
TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": V,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "layer_types": None,
    "layers_block_type": ["mamba", "attention"],
    "n_routed_experts": 4,
    "moe_intermediate_size": 16,
    "num_experts_per_tok": 2,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "ssm_state_size": 8,
}


def architecture(model_type: str) -> str:
    """Return the name of the class of transformers that generates text."""
    auto = transformers.models.auto.modeling_auto
    tables = [getattr(auto, name) for name in dir(auto) if name.endswith("_MAPPING_NAMES")]
    named = [table[model_type] for table in tables if model_type in table]
    names = {name for each in named for name in ([each] if isinstance(each, str) else each)}
    return next(n for end in ("ForConditionalGeneration", "ForCausalLM", "V3") for n in sorted(names) if n.endswith(end))


def tiny_config(model_type: str) -> Any:
    """Return a configuration with a small language model; the other parts remain on the meta device, so may be large."""
    cls = transformers.models.auto.configuration_auto.CONFIG_MAPPING[model_type]
    inner = cls().text_config.to_dict()
    inner |= {name: value for name, value in TINY.items() if name in inner}
    if "mrope_section" in str(cls().text_config) or model_type.startswith(("qwen2_vl", "qwen2_5", "qwen3_vl")):
        inner["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    data = {**cls().to_dict(), "text_config": inner}
    data.pop("transformers_version")
    for name, value in data.items():
        if name.endswith(("_token_id", "_token_index")) and isinstance(value, int):
            data[name] = V - 1
    if model_type == "aya_vision":
        data["vision_config"]["num_attention_heads"] = 16  # the default does not divide the width
    return cls.from_dict(data)


def random_language_model(config: Any) -> nn.Module:
    """Return the multimodal model, of which only the language model and its head have weights, all random."""
    with torch.device("meta"):
        model: Any = getattr(transformers, architecture(config.model_type))(config).eval()
    decoder, head = model.get_decoder(), output_head(model)
    tied = head.weight is decoder.get_input_embeddings().weight
    fresh = type(decoder)(decoder.config).eval()  # with the buffers that no file has
    parent, _, name = next(name for name, module in model.named_modules() if module is decoder).rpartition(".")
    setattr(model.get_submodule(parent), name, fresh)
    head.to_empty(device="cpu")
    if tied:
        head.weight = fresh.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(1)
    for parameter in (*fresh.parameters(), *head.parameters()):
        parameter.data.normal_(0, 0.3, generator=generator)
    for name, parameter in itertools.islice(model.named_parameters(), 1):  # the model's device is that of the first one
        if parameter.is_meta:
            owner, _, own = name.rpartition(".")
            setattr(model.get_submodule(owner), own, nn.Parameter(torch.zeros(parameter.shape)))
    assert isinstance(model, nn.Module)
    return model


def output_head(model: Any) -> Any:
    head = model.get_output_embeddings()
    return model.language_model.get_output_embeddings() if head is None else head


def write(model: Any, directory: Path, names: dict[str, str]) -> None:
    """Write the tensors under the names that the model has, or released files have, and small ones of other modalities."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        for prefix, other in names.items():
            if name.startswith(prefix):
                name = other + name.removeprefix(prefix)
                break
        tensors[name] = torch.zeros(1) if tensor.is_meta else tensor.clone()
    if output_head(model).weight is model.get_decoder().get_input_embeddings().weight:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("lm_head.weight")}
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(model.config.to_json_string(use_diff=False))


def logits(directory: Path, ids_BT: Tensor) -> Tensor:
    external = detect_format(directory, None, None).read(directory, None)
    family, config = family_of(external)
    model = GPT(read_model(family, config, str(directory))).eval()
    moves, stored = pair(family, model), external.tensors()
    native = NativeTensors(moves, stored, check_tensors(family, model, moves, stored.entries, str(directory)))
    model.load_state_dict({name: native.get(name) for name in native.entries}, strict=False)
    result: Tensor = model(ids_BT).logits
    return result


@pytest.mark.parametrize(
    "model_type", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in WRAPPERS]
)
@torch.no_grad()
def test_language_model_equals_the_multimodal_one_on_text(model_type: str, tmp_path: Path) -> None:
    model: Any = random_language_model(tiny_config(model_type))
    ids_BT = torch.randint(V - 10, (2, 11), generator=torch.Generator().manual_seed(2))
    expected = model(input_ids=ids_BT).logits
    released = {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head."}
    for number, names in enumerate(({}, released)):
        write(model, tmp_path / str(number), names)
        torch.testing.assert_close(logits(tmp_path / str(number), ids_BT), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_keys_of_the_language_model_beside_the_others_are_read(tmp_path: Path) -> None:
    """Released files of Qwen2-VL have no `text_config`."""
    model: Any = random_language_model(tiny_config("qwen2_vl"))
    ids_BT = torch.randint(V - 10, (2, 11), generator=torch.Generator().manual_seed(2))
    write(model, tmp_path / "flat", {"model.language_model.": "model.", "model.visual.": "visual."})
    data = json.loads((tmp_path / "flat/config.json").read_text())
    inner = data.pop("text_config")
    for name in ("model_type", "rope_parameters", "layer_types", "dtype"):
        inner.pop(name, None)
    rotation = {"rope_theta": 1e4, "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}}
    (tmp_path / "flat/config.json").write_text(json.dumps({**inner, **data, **rotation, "vision_start_token_id": 5}))
    torch.testing.assert_close(logits(tmp_path / "flat", ids_BT), model(input_ids=ids_BT).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": ["llava"]}, "has no 'model_type'"),
        ({"text_config": {"model_type": ["llama"]}}, "has no 'model_type'"),
        ({"text_config": {"model_type": "no-such"}}, "no installed family has the model_type 'no-such'"),
        ({"text_config": 3}, "has no '"),
        ({"text_config": {"model_type": "llama", "rope_scaling": {"type": ["mrope"]}}}, "rope_scaling"),
    ],
)
@torch.no_grad()
def test_damaged_configurations_are_reported(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    model: Any = random_language_model(tiny_config("llava"))
    write(model, tmp_path / "llava", {})
    data = json.loads((tmp_path / "llava/config.json").read_text())
    changed = {name: {**data[name], **value} if isinstance(value, dict) else value for name, value in change.items()}
    (tmp_path / "llava/config.json").write_text(json.dumps({**data, **changed}))
    with pytest.raises(ExternalModelError, match=message):
        logits(tmp_path / "llava", torch.zeros(1, 3, dtype=torch.long))


@torch.no_grad()
def test_missing_tensors_of_the_language_model_are_named(tmp_path: Path) -> None:
    model: Any = random_language_model(tiny_config("llava"))
    write(model, tmp_path / "llava", {"model.language_model.layers.1.": "model.vision_tower.layers.1."})
    with pytest.raises(ExternalModelError, match=r"tensors are missing: model\.layers\.1\."):
        logits(tmp_path / "llava", torch.zeros(1, 3, dtype=torch.long))
