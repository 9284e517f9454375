"""Architecture diagrams: content, drawing, and the files that `gptkit show` writes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field
from torch import nn

from gptkit.components.block.altup import AltUpSpec
from gptkit.core.registry import default_registry
from gptkit.diagrams.drawing import svg
from gptkit.diagrams.facts import facts, number, parameters
from gptkit.diagrams.folding import described
from gptkit.diagrams.outline import outline
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.model.gpt import GPT
from gptkit.model.parts import count_parts
from gptkit.model.spec import ModelSpec
from gptkit.nn.block import Block
from gptkit.presets.catalog import shipped
from gptkit.runs.opening import open_spec
from gptkit.runs.spec import spec_outline
from tests.support.command_line import SPEC, Call

SMALL = {"d_model": 32, "n_layers": 2, "context_length": 16, "attention": {"name": "multi-head", "n_heads": 2}}
SAMPLE = (
    "gpt2",
    "gemma3-1b",
    "deepseek-v3",
    "falcon-7b",
    "bamba-9b",
    "opt-350m",
    "lfm2-8b-a1b",
    "olmo-hybrid-7b",
    "gemma3n-e4b",
)


class LoopedSpec(BlockSpec):
    """A block of a plugin that declares no wiring."""

    name: Literal["looped"] = "looped"
    loops: int = Field(3, ge=1, description="Number of passes.")

    def build(self, context: BuildContext) -> Any:
        raise NotImplementedError


class TreeAttentionSpec(AttentionSpec):
    """An attention of a plugin, with fields of its own."""

    name: Literal["tree"] = "tree"
    n_heads: int = Field(4, ge=1, description="Number of heads.")
    branching: int = Field(2, ge=1, description="Children of a node.")

    def build(self, context: BuildContext) -> Any:
        raise NotImplementedError


def texts(drawn: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]


def model_spec(**parts: Any) -> ModelSpec:
    return ModelSpec.model_validate({**SMALL, **parts})


def check_texts(root: ET.Element) -> None:
    """No text ends beyond the drawing, or covers another one of its line."""
    lines: dict[str, list[tuple[float, float, str]]] = {}
    for each in root.iter("{http://www.w3.org/2000/svg}text"):
        text, x, width = each.text or "", float(each.attrib["x"]), len(each.text or "") * float(each.attrib["font-size"]) / 2
        start = x - width if each.get("text-anchor") == "end" else x
        lines.setdefault(each.attrib["y"], []).append((start, start + width, text))
    for line in lines.values():
        line.sort()
        for (_, end, text), (start, _, other) in zip(line, [*line[1:], (376.0, 0.0, "")], strict=True):
            assert end <= start, f"{text!r} reaches into {other!r}"


def check_drawing(name: str) -> None:
    content = spec_outline(open_spec(name).spec)
    drawn = svg(content, standalone=True)
    assert drawn == svg(spec_outline(open_spec(name).spec), standalone=True)
    root = ET.fromstring(drawn)
    height = float(root.attrib["viewBox"].split()[3])
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, width, tall = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        assert x >= 0
        assert x + width <= 376
        assert y >= 0
        assert y + tall <= height
    check_texts(root)
    shown = texts(drawn)
    for kind in content.types:
        assert f"× {kind.times:,}" in shown
        used = {
            role
            for step in kind.steps or ()
            for role in (*step.before, *(part for branch in step.branches for part in branch))
        }
        assert all(box.title in shown for role, box in kind.boxes.items() if role in used)
        assert used <= {*kind.boxes, *shown}
    assert sum(kind.times for kind in content.types) == len(content.sequence)


@pytest.mark.parametrize("name", SAMPLE)
def test_preset_is_drawn_with_every_part_inside(name: str) -> None:
    check_drawing(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in shipped() if name not in SAMPLE and not name.startswith("finetune")])
def test_every_preset_is_drawn(name: str) -> None:
    check_drawing(name)


def test_wiring_has_the_norms_of_the_built_block() -> None:
    for name, entry in default_registry().entries("block").items():
        if not entry.plugin.built_in:
            continue
        spec = model_spec(block=name, n_layers=1)
        declared = spec.block.steps()
        assert declared is not None, name
        steps = [step for step, _ in declared]
        norms = sum(part == "norm" for step in steps for branch in (step.before, *step.branches) for part in branch)
        block = GPT(spec, 20, device="meta").blocks[0]
        # Blocks within it; the norms of their own parts are not drawn.
        blocks = [module for module in block.modules() if isinstance(module, Block)]
        children = {path: child for each in blocks for path, child in each.named_children() if path != "router_norm"}
        # Norms of one place in the block may be a list.
        direct = [module for each in children.values() for module in (each if isinstance(each, nn.ModuleList) else [each])]
        built = [module for module in direct if type(module).__name__ == "RMSNorm"]
        assert len(built) == norms + sum(step.after for step in steps), name
        parts = sorted(
            part for step in steps for branch in step.branches for part in branch if part in ("attention", "feedforward")
        )
        count = {part: len(child) if isinstance(child, nn.ModuleList) else 1 for part, child in children.items()}
        assert parts == [part for part in ("attention", "feedforward") for _ in range(count.get(part, 0))], name


def test_steps_of_a_block_within_another_one_are_drawn() -> None:
    laurel = {"name": "laurel", "rank": 5}
    spec = model_spec(block={"name": "altup", "streams": 3, "d_embedding": 6, "block": laurel})
    drawn = texts(svg(outline(spec)))
    order = ["prediction of all streams from all", "low-rank map", "feed-forward", "update of all streams from the first"]
    places = [next(index for index, text in enumerate(drawn) if part in text) for part in order]
    assert places == sorted(places)
    assert "gated embedding of the layer" in drawn
    assert "× 1/√2" in drawn
    assert "altup block" in drawn
    assert any("3 streams" in text and "embedding size 6" in text for text in drawn)
    assert any("block: laurel (rank 5)" in text for text in drawn)
    without = texts(svg(outline(model_spec(block={"name": "altup", "block": laurel}))))
    assert "gated embedding of the layer" not in without
    unknown = texts(svg(outline(model_spec(block=AltUpSpec(block=LoopedSpec())))))
    assert any("does not declare" in text for text in unknown)


@pytest.mark.parametrize("output_scale", [None, "learned", "fixed"])
def test_factor_of_the_output_is_drawn(output_scale: str | None) -> None:
    drawn = texts(svg(outline(model_spec(block={"name": "sandwich", "output_scale": output_scale}))))
    assert (f"× a {output_scale} number" in drawn) == (output_scale is not None)


def test_weights_of_terms_are_drawn() -> None:
    drawn = texts(svg(outline(model_spec(block={"name": "sandwich", "depth_scaled": True, "output_scale": "fixed"}))))
    assert [text for text in drawn if "terms" in text] == [
        "√(1/i) · sum of i terms",
        "√(1/i) · sum of i terms × a fixed number",
    ]


@pytest.mark.parametrize(
    "part", [{}, {"block": {"name": "parallel", "norms": 2}}, {"block": "sandwich"}, {"position": "t5-bias"}]
)
def test_counts_of_the_boxes_add_up(part: dict[str, Any]) -> None:
    spec = model_spec(**part)
    model = GPT(spec, 20, device="meta")
    counts = count_parts(model)
    layers = sum(each.whole for each in counts.layers)
    outside = counts.embedding + counts.position + counts.final_norm + counts.head + counts.shared
    assert layers + outside == counts.total == sum(parameter.numel() for parameter in model.parameters())
    (kind,) = outline(spec, vocab_size=20, counts=counts).types
    steps = kind.steps or ()
    norms = sum(part == "norm" for step in steps for branch in (step.before, *step.branches) for part in branch)
    boxes = {role: box.count or 0 for role, box in kind.boxes.items()}
    assert norms * boxes["norm"] + boxes["attention"] + boxes["feedforward"] == kind.count


def test_parts_of_plugins_are_described_by_their_fields() -> None:
    spec = model_spec(block=LoopedSpec(loops=5), attention=TreeAttentionSpec(branching=4), position="none")
    drawn = svg(outline(spec, name="a <b>"))
    assert "looped block" in texts(drawn)
    assert "loops 5" in texts(drawn)
    assert "4 heads · branching 4" in texts(drawn)
    assert any("does not declare" in text for text in texts(drawn))
    assert "<b>" not in drawn


def test_changed_boxes_are_marked() -> None:
    content = outline(model_spec())
    assert svg(content).count('stroke-width="2.5"') == 0
    assert svg(content, changed={"layers.0.attention", "embedding"}).count('stroke-width="2.5"') == 2


@pytest.mark.parametrize(
    ("sequence", "text"),
    [
        ([0, 0, 0], "3 × a"),
        ([0, 1, 1, 1], "1 × a, then 3 × b"),
        ([0, 0, 1, 0, 0, 1, 0], "2 × a, 1 × b, repeated 2 times, then 1 × a"),
        ([2, *[0, 0, 1] * 8], "1 × c, then 2 × a, 1 × b, repeated 8 times"),
    ],
)
def test_patterns_are_folded(sequence: list[int], text: str) -> None:
    assert described(sequence, "abc").replace("\u00a0", " ") == text


def test_numbers_are_short() -> None:
    assert [parameters(n) for n in (12608, 124439808, 999885952, 8030261248, 9_994_000)] == [
        "12,608", "124M", "1.00B", "8.03B", "9.99M"
    ]  # fmt: skip
    assert [number(x) for x in (10000.0, 0.22, 1e-5, 1e6)] == ["10,000", "0.22", "0.00001", "1,000,000"]
    assert facts(model_spec(attention={"name": "grouped-query", "n_heads": 4, "n_kv_heads": 1}).attention) == [
        "4 heads", "1 key/value head", "head size 8"
    ]  # fmt: skip


def test_show_writes_a_diagram_and_a_page(call: Call, project: Path) -> None:
    call("show", "mini.yaml", "--svg", "mini.svg", "--html", "mini.html")
    drawn, page = Path("mini.svg").read_text(), Path("mini.html").read_text()
    assert {"mini", "byte tokenizer", "multi-head attention"} <= set(texts(drawn))
    assert call("show", "mini.yaml", "--svg", "-").stdout.strip() == drawn.strip()
    assert drawn.partition("<desc>")[2].partition("</desc>")[0] in page
    assert "<script" not in page
    call("show", "mini.yaml", "--svg", "mini.svg", "--html", "mini.html")  # its own files are replaced
    Path("mine.svg").write_text("<svg>mine</svg>")
    assert "was not written by gptkit" in call("show", "mini.yaml", "--svg", "mine.svg", code=2).stderr
    assert Path("mine.svg").read_text() == "<svg>mine</svg>"
    assert "written as .html" in call("show", "mini.yaml", "--html", "x.txt", code=2).stderr
    Path("odd.yaml").write_text(SPEC.replace("name: mini", "name: a <b> & c"))
    assert "a &lt;b&gt; &amp; c" in call("show", "odd.yaml", "--svg", "-").stdout


def test_notebook_shows_the_diagram_and_the_text() -> None:
    shown = model_spec()._repr_html_()
    assert "<svg" in shown
    assert "d_model: 32" in shown


def test_diff_page_marks_the_parts_that_differ(call: Call, project: Path) -> None:
    changed = SPEC.replace("n_heads: 2", "n_heads: 4").replace("d_model: 16", "d_model: 16\n  norm: layer")
    Path("other.yaml").write_text(changed)
    call("diff", "mini.yaml", "other.yaml", "--html", "diff.html")
    page = Path("diff.html").read_text()
    assert page.count("<svg") == 2
    # On each side: the norm, drawn twice in the block, the final norm, and the attention.
    assert page.count('stroke-width="2.5"') == 2 * 4
    assert "model.attention.n_heads" in page
    assert "multi-head" in page
    assert "no differences" in call("diff", "mini.yaml", "mini.yaml", "--html", "-").stdout


def attention_box(**changes: Any) -> tuple[tuple[str, ...], str]:
    spec = ModelSpec.model_validate({**SMALL, **changes}, context={"registry": default_registry()})
    (kind,) = outline(spec).types
    box = kind.boxes["attention"]
    return box.facts, box.shapes


def test_shapes_of_a_recurrence_are_those_of_its_state() -> None:
    """Keys and queries have one group and as many features as the state; module mamba2 splits them so."""
    mamba = {"name": "mamba2", "n_heads": 2, "d_head": 16, "d_state": 24}
    phrases, shapes = attention_box(attention=mamba, position="none")
    assert shapes == "q, k: (B, 1, T, 24) · v: (B, 2, T, 16)"
    assert not [phrase for phrase in phrases if "group" in phrase]
    assert "2 groups" in attention_box(attention={**mamba, "n_groups": 2}, position="none")[0]


def test_shapes_of_values_are_their_own() -> None:
    wide = {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "d_head": 8, "d_value": 16}
    assert attention_box(attention=wide)[1] == "q: (B, 4, T, 8) · k: (B, 2, T, 8) · v: (B, 2, T, 16)"
    wide["d_value"] = 8
    assert attention_box(attention=wide)[1] == "q: (B, 4, T, 8) · k, v: (B, 2, T, 8)"


def test_features_are_rotated_only_by_a_rotating_position() -> None:
    latent = {"name": "latent", "n_heads": 2, "d_rotary": 8}
    assert "8 rotated features" in attention_box(attention=latent)[0]
    phrases, _ = attention_box(attention=latent, position="alibi")
    assert "8 features of a shared key" in phrases
    assert not [phrase for phrase in phrases if "rotated" in phrase]


def test_one_group_of_experts_is_not_mentioned() -> None:
    router = {"name": "sigmoid", "k": 2}
    for groups, shown in (({}, False), ({"n_groups": 2, "top_groups": 1}, True)):
        spec = ModelSpec.model_validate(
            {**SMALL, "feedforward": {"name": "experts", "n_experts": 8, "router": {**router, **groups}}},
            context={"registry": default_registry()},
        )
        words = ", ".join(outline(spec).types[0].boxes["feedforward"].facts)
        assert ("group" in words) == ("the best" in words) == shown
