"""A run as a model of the harness.

Shapes: B batch, T tokens, V vocabulary, N tokens of a continuation.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

import gptkit
from gptkit.core.errors import GptkitError
from gptkit.kinds.sampler import SamplerSpec
from gptkit_lm_eval.windows import Window, rolling, windows

__all__ = ["GptkitLM"]

_log = logging.getLogger("gptkit")

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SAMPLERS = {
    "repetition_penalty": ("repetition-penalty", "penalty"),
    "temperature": ("temperature", "value"),
    "top_k": ("top-k", "k"),
    "top_p": ("top-p", "p"),
    "min_p": ("min-p", "p"),
}
"""Options of the harness, in the order in which they are applied: the sampler and its field."""


@register_model("gptkit")
class GptkitLM(TemplateLM):
    """A run as a model of the harness.

    Args:
        run: the run, or its directory.
        step: step of the checkpoint; the newest by default.
        device: auto, cpu, cuda or mps; ignored for a `gptkit.Run`, which keeps its device.
        batch_size: number of texts per batch; 8 if it is not a number.
        max_length: maximum sequence length in tokens; the context length by default.
        max_gen_toks: maximum number of generated tokens for tasks that do not set it.
        seed: random seed of tasks that sample.
    """

    def __init__(
        self,
        run: gptkit.Run | str | Path,
        step: int | None = None,
        device: str | None = None,
        batch_size: int | str = 8,
        max_batch_size: int | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        seed: int = 1234,
    ) -> None:
        super().__init__()
        self.run = run if isinstance(run, gptkit.Run) else gptkit.load(run, step=step, device=device or "auto")
        self.model = self.run.model
        self._tokens = self.run.tokenizer
        self._device = self.model.device
        self.batch_size = max(1, int(batch_size)) if str(batch_size).isdecimal() else max_batch_size or 8
        self.max_length = min(max_length or self.model.context_length, self.model.context_length)
        self.max_gen_toks = max_gen_toks
        self.seed = seed
        # Right padding has no effect on a text, unless positions depend on the length of the row.
        self._pads = not any(layer.position.depends_on_length for layer in self.model.spec.layer_specs())

    # -- tokens ----------------------------------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        value = self._tokens.end_id if self._tokens.end_id is not None else self._tokens.start_id
        if value is None:
            raise GptkitError(
                "a text without context cannot be scored: the tokenizer has neither a start nor an end token",
                hint="Set one in the tokenizer's spec before training, or choose tasks whose texts have a context.",
            )
        return value

    @property
    def prefix_token_id(self) -> int:
        return self.eot_token_id if self._tokens.start_id is None else self._tokens.start_id

    @property
    def tokenizer_name(self) -> str:
        return f"{self.run.directory.name}-{self.run.spec.tokenizer.name}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        start = self._tokens.start_id
        ids = self._tokens.encode(string)
        return ids if start is None or add_special_tokens is False else [start, *ids]

    def get_model_info(self) -> dict[str, Any]:
        """Return the description that the harness stores with its results."""
        return {
            "run": str(self.run.directory),
            "step": self.run.step,
            "model_num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
        }

    # -- interface of the harness ----------------------------------------------------------------------------------

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        parts = [list(windows(context or [self.prefix_token_id], rest, self.max_length)) for _, context, rest in requests]
        value = self._whole(parts, disable_tqdm)
        for (request, _, _), result in zip(requests, value, strict=True):
            self.cache_hook.add_partial("loglikelihood", request, result)
        return value

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        texts = [cast("tuple[str]", request.args)[0] for request in requests]
        encoded = [self.tok_encode(text, add_special_tokens=False) for text in texts]
        parts = [list(rolling(ids, self.prefix_token_id, self.max_length)) for ids in encoded]
        value = [score for score, _ in self._whole(parts, disable_tqdm)]
        lossy = [index for index, (text, ids) in enumerate(zip(texts, encoded, strict=True)) if self._loses(text, ids)]
        for index in lossy:
            # The harness divides by the bytes and words of the text, which the tokens do not restore.
            value[index] = math.nan
        if lossy:
            _log.warning("the tokenizer loses part of %d of %d texts, which have no score", len(lossy), len(texts))
        for text, result in zip(texts, value, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), result)
        return value

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        texts: dict[int, str] = {}
        calls = [cast("tuple[str, dict[str, Any]]", request.args) for request in requests]
        kinds = [json.dumps(options, sort_keys=True, default=str) for _, options in calls]
        order = sorted(range(len(calls)), key=lambda i: (kinds[i], -len(calls[i][0]), i))
        with tqdm(total=len(calls), desc="Generating", disable=disable_tqdm) as bar:
            for _, group in groupby(order, key=lambda i: kinds[i]):
                members = list(group)
                for at in range(0, len(members), self.batch_size):
                    batch = members[at : at + self.batch_size]
                    for index, text in zip(
                        batch, self._generate([calls[i][0] for i in batch], calls[batch[0]][1]), strict=True
                    ):
                        texts[index] = text
                        self.cache_hook.add_partial("generate_until", calls[index], text)
                    bar.update(len(batch))
        return [texts[index] for index in range(len(calls))]

    def _loses(self, text: str, ids: Sequence[int]) -> bool:
        return not self._tokens.lossless and self._tokens.decode(ids) != text

    # -- implementation --------------------------------------------------------------------------------------------

    def _whole(self, parts: Sequence[Sequence[Window]], disable_tqdm: bool) -> list[tuple[float, bool]]:
        """Return for each text the sum of the scores of its windows, and whether greedy decoding generates all of them."""
        scores = self._score([window for text in parts for window in text], disable_tqdm)
        value, at = [], 0
        for text in parts:
            own = scores[at : at + len(text)]
            at += len(text)
            value.append((sum(score for score, _ in own), all(greedy for _, greedy in own)))
        return value

    @torch.inference_mode()
    def _score(self, value: Sequence[Window], disable_tqdm: bool) -> list[tuple[float, bool]]:
        """Return ln P of each window's tokens given its context, and whether greedy decoding generates them."""
        results: dict[int, tuple[float, bool]] = {}
        lengths = [len(context) + len(rest) - 1 for context, rest in value]
        order = sorted(range(len(value)), key=lambda i: -lengths[i])
        known = self._tokens.vocab_size
        with tqdm(total=len(value), desc="Scoring", disable=disable_tqdm) as bar:
            for batch in self._batches(order, lengths):
                ids_BT = torch.zeros(len(batch), lengths[batch[0]], dtype=torch.long)
                for row, index in enumerate(batch):
                    context, rest = value[index]
                    ids_BT[row, : lengths[index]] = torch.tensor([*context, *rest[:-1]])
                logits_BTV = self.model(ids_BT.to(self.model.device)).logits
                assert logits_BTV is not None
                for row, index in enumerate(batch):
                    rest = value[index][1]
                    logits_NV = logits_BTV[row, lengths[index] - len(rest) : lengths[index]].float()
                    rest_N = torch.tensor(rest, device=logits_NV.device)
                    scores_N = logits_NV.log_softmax(dim=-1).gather(-1, rest_N[:, None])
                    greedy = bool((logits_NV[:, :known].argmax(dim=-1) == rest_N).all())
                    results[index] = float(scores_N.double().sum()), greedy
                bar.update(len(batch))
        return [results[index] for index in range(len(value))]

    def _batches(self, order: Sequence[int], lengths: Sequence[int]) -> Iterable[list[int]]:
        groups = [list(order)] if self._pads else [list(group) for _, group in groupby(order, key=lambda i: lengths[i])]
        for group in groups:
            for at in range(0, len(group), self.batch_size):
                yield group[at : at + self.batch_size]

    def _generate(self, prompts: Sequence[str], options: Mapping[str, Any]) -> list[str]:
        n_new = next((int(options[name]) for name in _LENGTHS if options.get(name) is not None), self.max_gen_toks)
        stop = options.get("until") or ()
        # Reserve room for generated tokens, but at least half of the context for the prompt; then the context slides.
        keep = max(1, self.max_length - n_new, self.max_length // 2)
        ids = [(self.tok_encode(prompt) or [self.prefix_token_id])[-keep:] for prompt in prompts]
        results = gptkit.generate(
            self.model,
            self._tokens,
            ids,
            sampler=_chain(options),
            max_new_tokens=n_new,
            stop=[stop] if isinstance(stop, str) else [text for text in stop if text],
            seed=self.seed,
        )
        if any(result.finish == "interrupted" for result in results):
            raise KeyboardInterrupt
        return [result.text for result in results]


def _chain(options: Mapping[str, Any]) -> list[SamplerSpec]:
    """Return the samplers for options of the harness."""
    unknown = sorted(set(options) - {*_LENGTHS, *_SAMPLERS, "until", "do_sample"})
    if unknown:
        _warn_once(", ".join(unknown))
    temperature = options.get("temperature")
    samples = options.get("do_sample", bool(temperature)) and temperature != 0
    chain = [
        _sampler(name, **{field: options[option]})
        for option, (name, field) in _SAMPLERS.items()
        if options.get(option) and (samples or option == "repetition_penalty")
    ]
    return chain if samples else [*chain, _sampler("greedy")]


@cache
def _warn_once(options: str) -> None:
    _log.warning("gptkit-lm-eval ignores unknown options: %s", options)


def _sampler(name: str, **fields: Any) -> SamplerSpec:
    spec = gptkit.default_registry().component("sampler", name).model_validate({"name": name, **fields})
    assert isinstance(spec, SamplerSpec)
    return spec
