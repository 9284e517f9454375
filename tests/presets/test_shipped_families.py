"""Shipped specs of released models: one for every family, with the parameter count of the released model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from gptkit.interop.conversion import families, find_family, read_model
from gptkit.interop.differences import differences
from gptkit.interop.selection import choose_family
from gptkit.model.gpt import GPT
from gptkit.presets.catalog import family, find, groups, shipped, summary
from gptkit.runs.opening import open_spec
from tests.support.parity import model_class
from tests.support.published import CONFIGS

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = list(groups()["released models"])
PUBLISHED = {
    "biogpt": 346_763_264,
    "bloom-560m": 559_214_592,
    "codegen-350m": 356_712_448,
    "command-r": 34_980_831_232,
    "dbrx": 131_596_523_520,
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v3": 671_026_419_200,
    "falcon-7b": 6_921_720_704,
    "falcon-mamba-7b": 7_272_665_088,
    "falcon-rw-1b": 1_311_625_216,
    "gemma-2b": 2_506_172_416,
    "gemma2-2b": 2_614_341_888,
    "gemma3-1b": 999_885_952,
    "gpt-1": 116_534_784,
    "gpt-oss-20b": 20_914_757_184,
    "gptj-6b": 6_050_882_784,
    "jamba-v0.1": 51_570_323_328,
    "mamba-2.8b": 2_768_345_600,
    "mamba-codestral-7b": 7_285_403_648,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "mpt-7b": 6_649_286_656,
    "olmo-1b": 1_176_764_416,
    "olmoe-1b-7b": 6_919_161_856,
    "opt-125m": 125_239_296,
    "opt-350m": 331_196_416,
    "phi-2": 2_779_683_840,
    "phi3-mini": 3_821_079_552,
    "phi3.5-moe": 41_873_153_344,
    "phi4-mini": 3_836_021_760,
    "pythia-160m": 162_322_944,
    "qwen2.5-0.5b": 494_032_768,
    "qwen3-0.6b": 596_049_920,
    "qwen3-30b-a3b": 30_532_122_624,
    "recurrentgemma-2b": 2_682_862_080,
    "rwkv-4-169m": 169_342_464,
    "smollm2-135m": 134_515_008,
    "smollm3-3b": 3_075_098_624,
    "stablelm-2-1.6b": 1_644_515_328,
    "starcoder2-3b": 3_030_371_328,
    "starcoderbase-1b": 1_137_207_296,
    "xlstm-7b": 6_865_424_896,
    "xglm-564m": 564_463_616,
}


UNUSED = {"longcat-flash": 28 * 256 * 2 * 2048 * 6144, "inkling": 966 * 2 * 6144, "inkling-2-small": 966 * 2 * 4608}
"""Parameters of transformers' class that have no effect: projections of experts that return their input, and rows of ids
without a logit."""


def count(model: Any, ignored: Sequence[str] = ()) -> int:
    # What is saved counts: the selection bias of experts is not a parameter in some families. Tables that follow from the
    # configuration do not count, nor does an import read them.
    saved = {name for name in model.state_dict() if not any(re.fullmatch(pattern, name) for pattern in ignored)}
    more = [buffer for name, buffer in model.named_buffers() if name in saved and buffer.is_floating_point()]
    return sum(tensor.numel() for tensor in [*model.parameters(), *more])


def counted_by_transformers(config: dict[str, Any]) -> int:
    kind, options = config["model_type"], {key: value for key, value in config.items() if key != "model_type"}
    external = transformers.AutoConfig.for_model(kind, **options)
    auto = model_class(external)
    with torch.device("meta"):
        model = auto.from_config(external) if auto is transformers.AutoModelForCausalLM else auto(external)
    return count(model, find_family(config, kind).ignored)


def test_every_family_has_a_spec_and_every_spec_a_configuration() -> None:
    assert set(CONFIGS) == set(NAMES)
    covered = {find_family(config, name).name for name, config in CONFIGS.items()}
    assert covered | {"gpt2"} == set(families())
    assert "gpt2" in shipped()


@pytest.mark.parametrize("name", NAMES)
def test_shipped_spec_equals_the_released_model(name: str) -> None:
    config = CONFIGS[name]
    family = find_family(config, name)
    model = open_spec(name).spec.model
    assert differences(model, read_model(family, config, name)) == []
    assert choose_family(model, family.name)[0].name == family.name  # the model can be exported to the same family


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_parameter_count_equals_that_of_the_released_model(name: str) -> None:
    actual = count(GPT(open_spec(name).spec.model, device="meta"))
    assert actual == counted_by_transformers(CONFIGS[name]) - UNUSED.get(name, 0)
    assert actual == PUBLISHED.get(name, actual)
    assert summary(find(name)).startswith(f"{actual:,} parameters; ")


@pytest.mark.parametrize("name", NAMES)
def test_each_family_spec_has_its_name_and_comments(name: str) -> None:
    lines = find(name).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# {name}: ")
    assert lines[1] == "# yaml-language-server: $schema=gptkit.schema.json"
    assert f"name: {name}" in lines
    assert lines[2] == f"# family: {find_family(CONFIGS[name], name).name}"
    assert lines[2] == f"# family: {family(find(name))}"
    assert max(map(len, lines)) <= 120
    assert any(re.fullmatch(r"# tokenizer: \{name: hugging-face, path: \S+\}", line) for line in lines)
