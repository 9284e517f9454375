"""What a precision costs: sizes, the error of each matrix, perplexity, divergence and speed.

Shapes: T tokens of a window, V vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.core.errors import DataError
from gptkit.core.registry import Registry
from gptkit.inference import generate
from gptkit.kinds.format import Progress
from gptkit.model.calibration import Calibration
from gptkit.model.gpt import GPT
from gptkit.model.packing import Packed, apply_precision, slots
from gptkit.nn.packed import PackedMatrix
from gptkit.runs.calibrating import require_calibrated
from gptkit.runs.precisions import PrecisionLike, precision_of, require_original
from gptkit.runs.run import Run
from gptkit.runs.texts import file_tokens

__all__ = ["Divergence", "QuantizationReport", "quantization_report"]

WINDOW = 512
"""Largest number of tokens of a window, whose logits of both models are held at one time."""

GENERATED = 64
"""Tokens that are generated to measure the speed."""


@dataclass(frozen=True)
class Divergence:
    """How the predictions of a model differ from those of the original on a text.

    Attributes:
        tokens: number of predicted tokens.
        loss_before: mean cross-entropy of the original in nats.
        loss_after: that of the model in the precision.
        divergence: mean Kullback-Leibler divergence of its distribution from the original's, in nats.
        agreement: share of tokens for which both have the same most likely token.
    """

    tokens: int
    loss_before: float
    loss_after: float
    divergence: float
    agreement: float

    @property
    def change(self) -> float:
        """Relative change of the perplexity."""
        return math.exp(self.loss_after - self.loss_before) - 1


@dataclass(frozen=True)
class QuantizationReport:
    """What a precision costs.

    Attributes:
        precision: the precision.
        dtype: the dtype of the activations.
        matrices: the packed matrices, with the error of each.
        bytes_before: size of all weights before.
        bytes_after: their size in memory now.
        calibration: the calibration, or None.
        divergence: None if it was not measured.
        rate_before: tokens per second that the original generates.
        rate_after: tokens per second that the model in the precision generates.
    """

    precision: Any
    dtype: torch.dtype
    matrices: Sequence[Packed]
    bytes_before: int
    bytes_after: int
    calibration: Calibration | None = None
    divergence: Divergence | None = None
    rate_before: float | None = None
    rate_after: float | None = None

    @property
    def error(self) -> float:
        """‖W − Ŵ‖ / ‖W‖ of a matrix, as the root of the mean square over all weights."""
        sizes = [math.prod(each.shape) for each in self.matrices]
        return math.sqrt(
            sum(size * (each.error or 0) ** 2 for size, each in zip(sizes, self.matrices, strict=True)) / sum(sizes)
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        data: dict[str, Any] = {
            "precision": self.precision.model_dump(mode="json"),
            "activations": str(self.dtype).removeprefix("torch."),
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "error": self.error,
            "matrices": [
                {
                    "name": each.name,
                    "precision": each.precision,
                    "shape": list(each.shape),
                    "bytes_before": each.bytes_before,
                    "bytes_after": each.bytes_after,
                    "error": each.error,
                }
                for each in self.matrices
            ],
        }
        if self.calibration is not None:
            data["calibration"] = {"tokens": self.calibration.tokens, "rounded": dict(self.calibration.rounded)}
        if self.divergence is not None:
            text = self.divergence
            data |= {
                "tokens": text.tokens,
                "perplexity_before": math.exp(text.loss_before),
                "perplexity_after": math.exp(text.loss_after),
                "perplexity_change": text.change,
                "divergence": text.divergence,
                "agreement": text.agreement,
                "tokens_per_second_before": self.rate_before,
                "tokens_per_second_after": self.rate_after,
            }
        return data


def quantization_report(
    run: Run,
    precision: PrecisionLike,
    *,
    calibration: Calibration | None = None,
    texts: Sequence[str | Path] | None = None,
    max_tokens: int = 16_384,
    measure: bool = True,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> QuantizationReport:
    """Measure what a precision costs a run, whose model is not changed.

    Args:
        run: the run, loaded without a precision.
        precision: the precision: its name, its fields, or a spec.
        calibration: the result of `calibrate_run`, whose matrices are used. Do not measure on its text.
        texts: files to measure perplexity on; the validation split of the run's corpus by default.
        max_tokens: largest number of tokens to measure on.
        measure: also measure perplexity and speed, and not the sizes and errors alone.
        progress: receives the number of measured tokens, and of all.
        registry: where components are looked up; by default what is installed.

    Raises:
        SpecError: the precision is invalid.
        GptkitError: the weights are already in a precision.
        DataError: text is missing.
    """
    chosen = precision_of(precision, registry)
    require_original(run)
    require_calibrated(calibration, chosen)
    ids = _token_ids(run, texts, max_tokens) if measure else None
    before = sum(parameter.numel() * parameter.element_size() for parameter in run.model.parameters())
    packed = _copy(run.model)
    ready = None if calibration is None else calibration.stored
    matrices = apply_precision(packed, chosen, stored=ready, measure=True)
    after = sum(parameter.numel() * parameter.element_size() for parameter in packed.parameters())
    after += sum(module.n_bytes for module in packed.modules() if isinstance(module, PackedMatrix))
    if ids is None:
        return QuantizationReport(chosen, packed.dtype, matrices, before, after, calibration)
    divergence = _divergence(run.model, packed, ids, min(WINDOW, run.spec.window), progress)
    rates = [_rate(model, run, ids) for model in (run.model, packed)]
    return QuantizationReport(chosen, packed.dtype, matrices, before, after, calibration, divergence, *rates)


def _copy(model: GPT) -> GPT:
    """Return a copy of a model that shares the matrices, which are packed and not changed."""
    shared = [slot.module.get_parameter(slot.parameter.rpartition(".")[2]) for slot in slots(model)]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})


def _token_ids(run: Run, texts: Sequence[str | Path] | None, max_tokens: int) -> list[int]:
    if texts is None:
        ids = [int(token) for token in run.prepared().validation.tokens[:max_tokens]]
        remedy = "Pass a text: --text FILE."
    else:
        ids, remedy = file_tokens(run, texts, max_tokens), "Pass files with text."
    if len(ids) < 2:
        raise DataError("no text to measure perplexity on", hint=remedy)
    return ids


@torch.inference_mode()
def _divergence(original: GPT, packed: GPT, ids: Sequence[int], window: int, progress: Progress | None) -> Divergence:
    tokens = torch.tensor(ids)
    sums = torch.zeros(4, dtype=torch.float64)
    total = 0
    for first in range(0, len(tokens) - 1, window):
        part = tokens[first : first + window + 1]
        inputs, targets = part[:-1][None], part[1:]
        before_TV, after_TV = (_log_probabilities(model, inputs) for model in (original, packed))
        sums += torch.stack(
            [
                F.nll_loss(before_TV, targets.to(before_TV.device), reduction="sum").double().cpu(),
                F.nll_loss(after_TV, targets.to(after_TV.device), reduction="sum").double().cpu(),
                F.kl_div(after_TV, before_TV, log_target=True, reduction="sum").double().cpu(),
                (before_TV.argmax(-1) == after_TV.argmax(-1)).sum().double().cpu(),
            ]
        )
        total += len(targets)
        if progress is not None:
            progress(total, len(tokens) - 1)
    before, after, divergence, agreement = (sums / total).tolist()
    return Divergence(total, before, after, divergence, agreement)


def _log_probabilities(model: GPT, ids_BT: Tensor) -> Tensor:
    logits_TV = model(ids_BT.to(model.device)).logits[0].float()
    return F.log_softmax(logits_TV, -1)


def _rate(model: GPT, run: Run, ids: Sequence[int]) -> float | None:
    """Return the tokens per second of greedy decoding after a short prompt."""
    prompt = list(ids[: min(64, max(1, run.model.context_length // 2))])
    room = min(GENERATED, run.model.context_length - len(prompt))
    if room < 2:
        return None
    results = []
    # The first generation also pays for what is prepared once.
    for count in (2, room):
        (result,) = generate(model, run.tokenizer, [prompt], sampler=["greedy"], max_new_tokens=count)
        results.append(result.timings.decode_rate)
    return results[-1] or None
