"""A plugin's family with a GGUF architecture of its own: export, import, and equal logits."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import pytest
import torch

import gptkit
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.interop.families.decoder import Decoder
from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.interop.formats.gguf.container import GgufFile
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.interop.formats.gguf.parts import Fixed, Key, Keys, Tied
from gptkit.interop.formats.gguf.rules import TURNED, with_rules
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule
from tests.support.gguf_models import DECODER, changed, make_run
from tests.support.plugin_registry import registry_of

MODEL = {**DECODER, "feedforward": {"name": "mlp", "d_hidden": 96, "activation": "relu", "bias": False}}
NORMS = {"attention_norm": "norm_in", "feedforward_norm": "norm_out"}
KEYS = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "hidden": "intermediate_size",
    "heads": "num_attention_heads",
    "heads_kv": "num_key_value_heads",
    "head_size": "head_dim",
    "context": "max_position_embeddings",
}
PARTS = (
    Keys([Key(file, config) for file, config in KEYS.items()]),
    Keys([Key("eps", "rms_norm_eps", "f32"), Key("theta", "rope_theta", "f32")]),
    Fixed({"hidden_act": "relu"}),
    Tied,
)
RULES = with_rules(*TURNED, *(Rule(f"blocks.*.{native}", f"blk.*.{stored}") for native, stored in NORMS.items()))


class RectifiedFamily(Decoder):
    """Llama with a ReLU in place of the gated feed-forward."""

    name: Literal["rectified"] = "rectified"
    model_type: ClassVar[str] = "rectified"
    architecture: ClassVar[str] = "RectifiedForCausalLM"
    activation: ClassVar[Any] = ("hidden_act", "relu")

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        return {**super().read_feedforward(config), "name": "mlp"}

    def gguf(self) -> Architecture:
        return Architecture("rectified", "rectified", PARTS, RULES)


def plugin() -> ModuleType:
    module: Any = ModuleType("gptkit_rectified")
    module.gptkit_components = gptkit.hookimpl(lambda: [RectifiedFamily])
    return module  # type: ignore[no-any-return]


@pytest.fixture
def registry() -> Registry:
    return registry_of(gptkit_rectified=plugin)


@torch.no_grad()
def test_model_round_trips_through_the_plugins_architecture(registry: Registry, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", MODEL)
    file = gptkit.export_model(run, tmp_path / "model.gguf", registry=registry)
    stored = GgufFile(file)
    assert stored.metadata["general.architecture"] == "rectified"
    assert stored.metadata["rectified.width"] == 64
    assert {"blk.2.norm_in.weight", "blk.2.ffn_up.weight"} <= set(stored.tensors)
    native, back = gptkit.load(run), gptkit.import_model(file, tmp_path / "back", registry=registry)
    assert back.provenance["imported"]["family"] == "rectified"
    before, after = dict(native.model.named_parameters()), dict(back.model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    ids = torch.randint(0, 257, (2, 40), generator=torch.Generator().manual_seed(1))
    assert torch.equal(back.model(ids).logits, native.model(ids).logits)
    # The rows of queries and keys are permuted in the file, as the architecture declares.
    packed = before["blocks.0.attention.qkv.weight"]
    assert not torch.equal(stored.get("blk.0.attn_q.weight"), packed[:64])
    assert torch.equal(stored.get("blk.0.attn_v.weight"), packed[96:])


def test_architecture_is_unknown_without_the_plugin(registry: Registry, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", MODEL)
    with pytest.raises(GptkitError):
        gptkit.export_model(run, tmp_path / "without.gguf")
    file = gptkit.export_model(run, tmp_path / "model.gguf", registry=registry)
    with pytest.raises(GptkitError, match="rectified"):
        gptkit.import_model(file, tmp_path / "back")


def test_faulty_key_of_the_architecture_is_named(registry: Registry, tmp_path: Path) -> None:
    file = gptkit.export_model(make_run(tmp_path / "run", MODEL), tmp_path / "model.gguf", registry=registry)
    wrong = changed(file, tmp_path / "wrong.gguf", **{"rectified.width": Typed("string", "wide")})
    with pytest.raises(GptkitError, match="width should be a whole number"):
        gptkit.import_model(wrong, tmp_path / "back", registry=registry)
