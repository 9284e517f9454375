"""The contract of vLLM's Transformers backend, point by point, with generated code; plugins/gptkit-vllm runs vLLM.

The backend replaces the attention function, calls the base model with the tokens of all texts in one row, divides linear
layers as the plan says, and compiles the model as one graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptkit.model.gpt import GPT
from tests.support.compositions import BASE, GROUPED, HEADS
from tests.support.ejected import randomize
from tests.support.hugging_face import export_with_code, run_code

ODD = {"name": "layer", "shift": False}
MET: dict[str, dict[str, Any]] = {
    "grouped": {"attention": {**GROUPED, "qkv_bias": True}, "position": "rotary", "norm": ODD},
    "gated": {
        "attention": {**GROUPED, "output_gate": True, "qk_norm": "rms", "window": 6},
        "norm": ODD,
        "feedforward": {"name": "gated", "activation": "gelu"},
        "layers": [{}, {"attention": {"window": None}}],
    },
    "narrow": {"attention": GROUPED, "norm": ODD, "embedding": {"name": "token", "d_embedding": 12}},
    "book": {
        "attention": {"name": "multi-head", **HEADS, "output_bias": True},
        "position": "learned",
        "norm": "layer",
        "feedforward": {"name": "mlp", "bias": True},
        "head": {"name": "linear", "tied": True, "bias": True},
        "block": "parallel",
    },
}

START = """
import copy, sys
from pathlib import Path
import torch
from torch import nn
from transformers import AttentionInterface, AutoModelForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)

def load(name, **options):
    return AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True, dtype=torch.float32, **options).eval()

def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)

names = sorted(path.parent.name for path in Path(".").glob("*/config.json"))
assert names
"""

# As vLLM: an attention function of its own, without a mask, and all texts in one row with their own positions.
ONE_ROW = """
LENGTHS = (5, 9, 3)
calls = []

def own(module, query, key, value, attention_mask, scaling=None, dropout=0.0, sliding_window=None, **options):
    assert attention_mask is None, "the backend makes masks itself"
    assert module.layer_idx == len(calls) and options["instances"] == "given"
    calls.append(module.layer_idx)
    n = query.shape[2]
    texts = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    index = torch.arange(n)
    allowed = (texts[:, None] == texts) & (index[:, None] >= index)
    if sliding_window is not None:
        allowed &= index[:, None] - index < sliding_window
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query @ key.mT * scaling).masked_fill(~allowed, -torch.inf)
    # One vector for each token, as fused kernels return it.
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2), None

AttentionInterface.register("own", own)
with torch.no_grad():
    for name in names:
        model, plain = load(name, attn_implementation="own"), load(name)
        assert model._supports_attention_backend and not model._is_stateful
        ids = torch.randint(61, (1, sum(LENGTHS)))
        positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
        calls.clear()
        states = model.model(
            input_ids=ids, position_ids=positions, use_cache=False, return_dict=False, instances="given"
        )[0]
        assert len(calls) == model.config.num_hidden_layers, (name, calls)
        logits, at = model.lm_head(states), 0
        for length in LENGTHS:
            close(logits[:, at : at + length], plain(ids[:, at : at + length]).logits)
            at += length
"""

# Each linear layer of the plan is divided in two, and the sum of the halves' outputs is the output.
DIVIDED = """
def half(linear, how, part):
    rows = how == "colwise"
    size = (linear.weight.shape[0] if rows else linear.weight.shape[1]) // 2
    piece = slice(part * size, (part + 1) * size)
    made = nn.Linear(1, 1, bias=linear.bias is not None)
    made.weight = nn.Parameter(linear.weight[piece] if rows else linear.weight[:, piece])
    if linear.bias is not None:
        # The bias of a sum is added once.
        made.bias = nn.Parameter(linear.bias[piece] if rows else linear.bias * (part == 0))
    return made

with torch.no_grad():
    for name in names:
        model = load(name, attn_implementation="eager")
        plan = model.config.base_model_tp_plan
        linears = {key for key, module in model.model.blocks.named_modules() if type(module) is nn.Linear}
        planned = {key for key in linears if f"blocks.*.{key.partition('.')[2]}" in plan}
        assert linears == planned, (name, linears - planned)
        assert model._tp_plan["lm_head"].startswith("colwise")
        ids = torch.randint(61, (2, 12))
        expected = model(ids, use_cache=False).logits
        for block in model.model.blocks:
            for kind in ("attention", "feedforward"):
                whole = getattr(block, kind)
                halves = []
                for part in (0, 1):
                    own = copy.deepcopy(whole)
                    for key, how in plan.items():
                        if key.startswith(f"blocks.*.{kind}."):
                            leaf = key.rpartition(".")[2]
                            setattr(own, leaf, half(getattr(whole, leaf), how, part))
                    halves.append(own)
                def both(*arguments, halves=halves):
                    return halves[0](*arguments) + halves[1](*arguments)
                whole.forward = both
        close(model(ids, use_cache=False).logits, expected)
"""

# One graph for any number of rows and tokens: no shape and no branch depends on the data.
ONE_GRAPH = """
with torch.no_grad():
    for name in names:
        model = load(name)
        assert model._can_compile_fullgraph
        base = model.model
        compiled = torch.compile(base, backend="eager", fullgraph=True, dynamic=True)
        for shape in ((1, 7), (2, 12)):
            ids = torch.randint(61, shape)
            positions = torch.arange(shape[1])[None]
            arguments = {"position_ids": positions, "use_cache": False, "return_dict": False}
            close(compiled(input_ids=ids, **arguments)[0], base(input_ids=ids, **arguments)[0])
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    result = tmp_path_factory.mktemp("exports")
    for name, spec in MET.items():
        report = export_with_code(randomize(GPT({**BASE, **spec}, 61)), result / name)
        assert any(
            "meets the contract of vLLM's Transformers backend, with tensor parallelism" in str(each) for each in report
        )
    return result


@pytest.mark.slow
def test_attention_function_of_another_program_replaces_the_own_one(directory: Path) -> None:
    run_code(START + ONE_ROW, directory)


@pytest.mark.slow
def test_plan_divides_all_linear_layers_of_the_blocks(directory: Path) -> None:
    run_code(START + DIVIDED, directory)


@pytest.mark.slow
def test_base_model_is_one_graph(directory: Path) -> None:
    run_code(START + ONE_GRAPH, directory)


def test_unmet_contract_names_the_reason(tmp_path: Path) -> None:
    spec = {**BASE, "attention": {**GROUPED, "softcap": 5.0}, "norm": ODD}
    report = export_with_code(GPT(spec, 61), tmp_path / "out")
    assert "scores have terms, bounds or masks that an attention function does not take" in str(report[2])
