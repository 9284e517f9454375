"""Shipped specs: they load, match their sources, and have comments."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gptkit
from gptkit.components.tokenizer.byte import ByteSpec
from gptkit.core.errors import GptkitError, SpecError
from gptkit.presets.catalog import find, groups, shipped, summary
from gptkit.runs.cautions import cautions
from gptkit.runs.opening import open_spec

NAMES = ["book", "gpt2", "modern", "tiny"]
FINE_TUNING = ["finetune", "finetune-low-rank"]


def parameters(*overrides: str, spec: str) -> int:
    return sum(parameter.numel() for parameter in gptkit.build(spec, overrides, device="meta").parameters())


def test_list_of_shipped_specs() -> None:
    assert list(groups()["to start from"]) == NAMES
    assert list(groups()["to fine-tune with (train --init)"]) == FINE_TUNING
    of_plugins = [name for group, files in groups().items() if group.startswith("from ") for name in files]
    assert list(shipped()) == [*NAMES, *FINE_TUNING, *groups()["released models"], *of_plugins]
    with pytest.raises(GptkitError, match="did you mean 'gpt2'"):
        find("gpt-2")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Train a run, as the source of the fine-tuning presets."""
    path = tmp_path_factory.mktemp("weights") / "run"
    gptkit.save_run(
        path,
        gptkit.build("tiny", ["tokenizer=byte", "model.n_layers=1", "model.context_length=256"]),
        ByteSpec().fit(iter(())),
    )
    return str(path)


@pytest.mark.parametrize("name", [*NAMES, *FINE_TUNING])
def test_each_shipped_spec_has_its_name_and_comments(name: str, weights: str) -> None:
    spec = open_spec(name, [f"training.init_from={weights}"] if name in FINE_TUNING else []).spec
    assert spec.name == name
    lines = find(name).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# {name}: ")
    assert lines[1] == "# yaml-language-server: $schema=gptkit.schema.json"
    assert max(map(len, lines)) <= 120
    assert len(summary(find(name))) > 20


@pytest.mark.parametrize(
    ("spec", "overrides", "count"),
    [
        ("gpt2", [], 124_439_808),
        ("gpt2", ["model.d_model=1024", "model.n_layers=24", "model.attention.n_heads=16"], 354_823_168),
        ("gpt2", ["model.d_model=1280", "model.n_layers=36", "model.attention.n_heads=20"], 774_030_080),
        ("gpt2", ["model.d_model=1600", "model.n_layers=48", "model.attention.n_heads=25"], 1_557_611_200),
        ("book", [], 163_009_536),
        ("book", ["model.head.tied=true"], 163_009_536 - 50_257 * 768),
        ("modern", ["model.vocab_size=49152"], 134_515_008),
    ],
)
def test_parameter_counts_equal_the_published_ones(spec: str, overrides: list[str], count: int) -> None:
    assert parameters(*overrides, spec=spec) == count


def test_numbers_in_comments_are_correct() -> None:
    text = find("gpt2").read_text(encoding="utf-8")
    rows = [line.split() for line in text.splitlines() if line.startswith(("#   medium", "#   large", "#   xl"))]
    assert len(rows) == 3
    for _, _, d_model, n_layers, n_heads, count in rows:
        overrides = [f"model.d_model={d_model}", f"model.n_layers={n_layers}", f"model.attention.n_heads={n_heads}"]
        assert parameters(*overrides, spec="gpt2") == int(count.replace(",", ""))


def test_book_preset_equals_the_book() -> None:
    model = open_spec("book").spec.model
    assert (model.context_length, model.d_model, model.n_layers) == (1024, 768, 12)
    assert model.attention.qkv_bias is False
    assert model.attention.n_heads == 12
    assert model.attention.dropout == model.embedding.dropout == model.block.dropout == 0.1
    assert model.head.tied is False
    shapes = {name: tuple(p.shape) for name, p in gptkit.build("book", device="meta").named_parameters()}
    assert sum(shape == (50_257, 768) for shape in shapes.values()) == 2  # the embedding's table and the head's
    assert (1024, 768) in shapes.values()  # a vector for each position


def test_data_paths_of_a_shipped_spec_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_spec("tiny").base == tmp_path


@pytest.mark.parametrize("name", FINE_TUNING)
def test_a_preset_for_fine_tuning_trains_the_model_of_the_weights(name: str, weights: str, tmp_path: Path) -> None:
    if name == "finetune":
        with pytest.raises(SpecError, match=r"model: missing.*--init"):
            open_spec(name)
    else:
        assert "--init" in next(cautions(open_spec(name).spec))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("To be, or not to be, that is the question.\n" * 50)
    small = [f"training.init_from={weights}", f"data.path={corpus}", "training.steps=2", "training.window=16"]
    run = gptkit.train(name, tmp_path / "run", [*small, "training.sample_tokens=0"], progress=False)
    source = gptkit.load(weights)
    same = [torch.equal(p, run.model.get_parameter(name)) for name, p in source.model.named_parameters()]
    assert all(same) if name == "finetune-low-rank" else not any(same)
    assert run.spec.model.context_length == source.spec.model.context_length
