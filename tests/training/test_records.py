"""Records of a training (files, trackers, console), device and precision."""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from rich.console import Console
from torch import Tensor, nn

from gptkit.components.tracker.csv import CSVSpec
from gptkit.core.errors import FileError, TrainingError
from gptkit.data.text_bytes import NO_TEXT
from gptkit.kinds.tracker import Tracker, TrainingStart
from gptkit.training import precision
from gptkit.training.callback import TrackerCallback
from gptkit.training.config import TrainingSpec
from gptkit.training.evaluation import Batch, combined, evaluate
from gptkit.training.plot import draw_losses
from gptkit.training.progress import ConsoleProgress
from gptkit.training.records import LossPlot, MetricsFile, SamplesFile, read_metrics
from gptkit.training.seeds import derive
from tests.support.bigram import MakeTrainer, make_model


def start(directory: Path, step: int = 0) -> TrainingStart:
    return TrainingStart(directory, step, 10, {})


# -- trackers ------------------------------------------------------------------------------------------------------


class Failing(Tracker):
    def __init__(self) -> None:
        self.calls = 0
        self.ended: list[Any] = []

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.calls += 1
        raise ConnectionError("no server")

    def on_end(self, step: int, error: BaseException | None) -> None:
        self.ended.append((step, type(error)))
        raise ConnectionError("still no server")


class Spoiling(Tracker):
    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        metrics.clear()  # type: ignore[attr-defined]


class Keeping(Tracker):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_start(self, start: TrainingStart) -> None:
        self.seen.append(("start", start.step, start.steps, start.spec["name"]))

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.seen.append(("metrics", step, sorted(metrics)))

    def on_sample(self, step: int, text: str) -> None:
        self.seen.append(("sample", step, text))

    def on_checkpoint(self, step: int, directory: Path) -> None:
        assert (directory / "model.safetensors").is_file()
        self.seen.append(("checkpoint", step))

    def on_end(self, step: int, error: BaseException | None) -> None:
        self.seen.append(("end", step, error))


def test_failing_tracker_is_disabled(make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture) -> None:
    failing, keeping = Failing(), Keeping()
    trackers = [
        TrackerCallback(lambda: failing, "failing"),
        TrackerCallback(Spoiling, "spoiling"),
        TrackerCallback(lambda: keeping, "keeping"),
    ]
    with caplog.at_level(logging.WARNING, logger="gptkit"):
        trainer = make_trainer(
            steps=2, log_every=1, sample_every=None, callbacks=trackers, write=lambda step: "hi", describe={"name": "x"}
        )
        trainer.run()
    assert failing.calls == 1
    assert failing.ended == [(0, ConnectionError)]
    assert [record.getMessage() for record in caplog.records] == [
        "tracker 'failing' failed and is disabled for the rest of the training: ConnectionError: no server"
    ]
    training = ["grad_norm", "learning_rate", "loss", "tokens", "tokens_per_second"]
    validated = ["validation_loss", "validation_perplexity"]
    assert keeping.seen == [
        ("start", 0, 2, "x"),
        ("metrics", 0, validated),
        ("sample", 0, "hi"),
        ("metrics", 1, training),
        ("metrics", 2, sorted(training + validated)),
        ("sample", 2, "hi"),
        ("checkpoint", 2),
        ("end", 2, None),
    ]


def test_tracker_that_cannot_be_built_is_skipped(make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Tracker:
        raise ModuleNotFoundError("No module named 'wandb'")

    trainer = make_trainer(steps=1, callbacks=[TrackerCallback(make, "dashboard")])
    trainer.run()
    assert trainer.step == 1
    assert "tracker 'dashboard' failed" in caplog.text


def test_csv_tracker_writes_one_row_per_step(tmp_path: Path) -> None:
    def rows() -> list[dict[str, str]]:
        with (tmp_path / "table.csv").open(newline="") as stream:
            return list(csv.DictReader(stream))

    tracker = CSVSpec(file="table.csv").build()
    tracker.on_start(start(tmp_path))
    tracker.on_metrics(1, {"loss": 2.5})
    tracker.on_metrics(2, {"loss": 2.0, "validation_loss": 0.1 + 0.2})
    tracker.on_metrics(3, {"loss": 1.5})
    expected = [
        {"step": "1", "loss": "2.5", "validation_loss": ""},
        {"step": "2", "loss": "2.0", "validation_loss": "0.30000000000000004"},
        {"step": "3", "loss": "1.5", "validation_loss": ""},
    ]
    assert rows() == expected
    resumed = CSVSpec(file="table.csv").build()
    resumed.on_start(start(tmp_path, step=2))
    assert rows() == expected[:2]
    resumed.on_metrics(3, {"loss": 1.5})
    assert rows() == expected
    CSVSpec(file="table.csv").build().on_start(start(tmp_path))
    assert rows() == []


# -- files ---------------------------------------------------------------------------------------------------------


def test_metrics_after_the_checkpoint_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.on_start(start(tmp_path))
    file.on_metrics(1, {"loss": 1.25})
    state = file.state_dict()
    file.on_metrics(2, {"loss": 1.0})
    with path.open("a") as stream:
        stream.write('{"step": 3, "lo')  # truncated by a kill
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    resumed = MetricsFile(path)
    resumed.load_state_dict(state)
    resumed.on_start(start(tmp_path, step=1))
    resumed.on_metrics(2, {"loss": 1.0})
    assert list(read_metrics(path)) == [{"step": 1, "loss": 1.25}, {"step": 2, "loss": 1.0}]
    MetricsFile(path).on_start(start(tmp_path))
    assert path.read_bytes() == b""


def test_samples_are_recorded_unchanged(tmp_path: Path) -> None:
    file = SamplesFile(tmp_path / "samples.txt")
    file.on_start(start(tmp_path))
    file.on_sample(5, "naïve\n🙂 \x07")
    assert "step 5" in file.path.read_text(encoding="utf-8")
    assert "naïve\n🙂 \x07" in file.path.read_text(encoding="utf-8")
    assert file.state_dict()["length"] == file.path.stat().st_size


def test_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"gone.metrics\.jsonl cannot be written"):
        MetricsFile(tmp_path / "gone" / "metrics.jsonl").on_start(start(tmp_path))


@pytest.mark.parametrize("rows", [0, 1, 40])
def test_loss_plot_is_a_png(tmp_path: Path, rows: int) -> None:
    metrics = [{"step": step, "loss": 9 / (1 + step), "validation_loss": 10 / (1 + step)} for step in range(rows)]
    draw_losses(metrics, tmp_path / "loss.png", title="a run")
    head = (tmp_path / "loss.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:24]) == (1200, 675)
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


@pytest.mark.usefixtures("real_plots")
def test_plot_is_drawn_at_a_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics, picture = tmp_path / "metrics.jsonl", tmp_path / "loss.png"
    metrics.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n')
    LossPlot(metrics, picture, "a run").on_checkpoint(2, tmp_path)
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1200, 675)
    assert not caplog.records
    # A training does not end because of its plot.
    LossPlot(metrics, tmp_path / "gone" / "loss.png").on_checkpoint(2, tmp_path)
    assert "cannot be drawn" in caplog.text


def test_console_prints_the_resume_command(tmp_path: Path) -> None:
    out = io.StringIO()
    progress = ConsoleProgress(Console(file=out, width=200))
    progress.on_start(start(tmp_path))
    progress.on_metrics(4, {"loss": 2.5, "validation_loss": 2.75, "tokens_per_second": 12345.0})
    progress.on_sample(4, "[bold]not markup[/] \x1b[31mred")
    progress.on_checkpoint(5, tmp_path / "step-00000005")
    progress.on_end(5, KeyboardInterrupt())
    text = out.getvalue()
    assert "step 4/10  loss 2.500  validation 2.750  12.3k tokens/s" in text
    assert "[bold]not markup[/] �[31mred" in text
    assert "stopped after step 5 of 10" in text
    assert f"gptkit train --resume {tmp_path}" in text.replace("\n", "")


def test_progress_bar_shows_loss_speed_and_step() -> None:
    out = io.StringIO()
    progress = ConsoleProgress(Console(file=out, width=150, force_terminal=True))
    progress.on_start(start(Path("runs/x"), step=3))
    progress.on_metrics(4, {"loss": 2.5, "tokens_per_second": 2_000_000.0})
    progress.on_step(4)
    bar = progress._progress
    assert bar is not None
    bar.refresh()
    progress.on_end(10, None)
    for expected in ("4/10", "loss 2.500", "2M tokens/s", "done"):
        assert expected in out.getvalue()


def test_without_a_bar_a_step_is_printed_at_least_twice_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("gptkit.training.progress.time.monotonic", lambda: now)
    out = io.StringIO()
    progress = ConsoleProgress(Console(file=out, width=200))
    progress.on_start(start(Path("runs/x")))
    for step, now in ((1, 110.0), (2, 131.0), (3, 140.0), (4, 162.0)):  # noqa: B007
        progress.on_metrics(step, {"loss": 2.5})
    assert [line.split("  ")[0] for line in out.getvalue().splitlines()] == ["step 2/10", "step 4/10"]


@pytest.mark.parametrize("terminal", [False, True])
def test_compiled_training_reports_compilation_in_its_first_step(terminal: bool) -> None:
    out = io.StringIO()
    progress = ConsoleProgress(Console(file=out, width=150, force_terminal=terminal))
    progress.on_start(dataclasses.replace(start(Path("runs/x")), spec={"training": {"compile": True}}))
    progress.on_end(0, None)
    assert "compiling the model in the first step" in out.getvalue()


# -- validation ----------------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """Model whose loss is a tenth of the mean of the valid targets."""

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Any:
        assert not self.training
        assert not torch.is_grad_enabled()
        return SimpleNamespace(loss=targets_BT[targets_BT >= 0].float().mean() / 10)


def test_tokens_have_equal_weight_in_the_validation_loss() -> None:
    def batches() -> Iterator[Batch]:
        yield torch.zeros(2, 2, dtype=torch.int64), torch.tensor([[10, 10], [10, -100]]), None
        yield torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[30]]), None
        yield torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[-100]]), None

    model = Fixed().train()
    result = evaluate(
        model,
        batches(),
        device=torch.device("cpu"),
        precision=torch.float32,
        text_bytes=iter([torch.tensor([[2, NO_TEXT], [4, 3]]), torch.tensor([[5]]), torch.tensor([[7]])]),
    )
    assert result is not None
    assert model.training
    assert (result.tokens, result.bytes) == (4, 11)
    assert result.loss == pytest.approx(1.5)
    assert result.perplexity == pytest.approx(math.exp(1.5))
    assert result.bits_per_byte == pytest.approx(5.0 / math.log(2) / 11)
    assert combined([result, result]) == dataclasses.replace(result, tokens=8, text_nats=2 * result.text_nats, bytes=22)


def test_validation_loss_without_data_is_none() -> None:
    assert evaluate(Fixed(), iter(()), device=torch.device("cpu"), precision=torch.float32) is None


# -- precision, seeds, spec ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_it", [True, False])
def test_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch, has_it: bool) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: has_it)
    cpu = torch.device("cpu")
    assert precision.pick_precision("auto", cpu) == (torch.bfloat16 if has_it else torch.float32)
    assert precision.pick_precision("fp32", cpu) == torch.float32
    assert precision.pick_precision("bf16", cpu) == torch.bfloat16


def test_bf16_requires_cpu_support(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_arm_sve_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not precision.has_bf16(torch.device("cpu"))


def test_bf16_computes_products_in_bf16_and_keeps_weights_in_fp32(make_trainer: MakeTrainer) -> None:
    model = make_model()
    seen = []
    model.mix.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    make_trainer(model=model, precision="bf16", steps=2).run()
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="requires a machine without a GPU")
def test_missing_device_is_reported() -> None:
    with pytest.raises(TrainingError, match="does not find on this machine"):
        precision.pick_device("cuda")


def test_derived_seeds_differ_by_seed_purpose_and_step() -> None:
    seeds = {derive(seed, purpose, step) for seed in (0, 1) for purpose in ("step", "sample") for step in range(50)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(0, "step", 0) == 2070556943451723277


def test_indivisible_batch_is_rejected_with_the_divisors() -> None:
    with pytest.raises(ValidationError, match=r"a batch of 6 has no 4 equal parts; possible: 1, 2, 3, 6") as caught:
        TrainingSpec(batch_size=6, grad_accumulation=4)
    assert caught.value.errors()[0]["loc"] == ("grad_accumulation",)


def test_errors_of_an_optimizer_are_located() -> None:
    with pytest.raises(ValidationError) as caught:
        TrainingSpec.model_validate({"optimizer": {"name": "sgd", "momentum": 0, "nesterov": True}})
    assert caught.value.errors()[0]["loc"] == ("optimizer", "nesterov")


def test_csv_table_does_not_replace_other_files(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("name,age\nAda,36\n")
    with pytest.raises(FileError, match=r"table\.csv is not a table of this tracker"):
        CSVSpec(file="table.csv").build().on_start(start(tmp_path))
    assert (tmp_path / "table.csv").read_text() == "name,age\nAda,36\n"


@pytest.mark.parametrize("file", ["../table.csv", "/table.csv", "spec.yaml", "data/train.bin", "checkpoints/x.csv", "."])
def test_csv_table_is_in_the_run_and_uses_no_reserved_name(file: str) -> None:
    with pytest.raises(ValidationError, match=r"inside the run directory|reserved for files of the run"):
        CSVSpec(file=file)
    assert CSVSpec(file="tables/all.csv").files() == ("tables/all.csv",)
