"""Runtime part of the engine `vllm`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gptkit.core.errors import GptkitError
from gptkit.engines.engine import Progress, Score
from gptkit.engines.external import ExternalEngine, Live, joined, seed_of
from gptkit.inference.request import Request
from gptkit.kinds.engine import EngineContext
from gptkit_vllm.export import Export
from gptkit_vllm.installation import load_vllm
from gptkit_vllm.samplers import parameters, stateful

if TYPE_CHECKING:
    from gptkit_vllm.spec import VllmEngineSpec

__all__ = ["Vllm"]

_CPU_CACHE_GIB = 4.0
_ALWAYS = {"detokenize": False, "ignore_eos": True}
"""Parameters of every request: texts are decoded, and end tokens found, by gptkit."""


class Vllm(ExternalEngine[str]):
    """Engine on vLLM's engine in this process, which receives and returns token ids.

    Texts are decoded here, so stop strings and end tokens are found here too, and the request is then aborted in vLLM.

    Args:
        spec: the spec.
        export: the exported run.
        context: the context of the engine.

    Raises:
        GptkitError: vLLM cannot load the model; gives its reason.
    """

    program = "vLLM"

    def __init__(self, spec: VllmEngineSpec, export: Export, context: EngineContext) -> None:
        limit = min(spec.context or export.context_length, export.context_length)
        tokenizer = context.tokenizer
        super().__init__(tokenizer, context_length=limit, vocab_size=tokenizer.vocab_size, max_batch=context.max_batch)
        self._vllm = load_vllm()
        self._llm: Any = _open(self._vllm, spec, export, limit, context)
        self._numbers = itertools.count()
        self._held: list[Any] = []
        """Outputs of requests that a step for another purpose returned."""

    def check(self, request: Request) -> None:
        super().check(request)
        if request.max_new_tokens:
            self._sampling(request, self._fields(request), request.max_new_tokens, 0)

    def check_samplers(self, request: Request) -> None:
        fields = self._fields(request)
        if "min_tokens" in fields and self.tokenizer.end_id not in request.stop_ids:
            raise GptkitError(
                "sampler 'min-length' with vLLM: vLLM excludes the tokens that end a text, and this one does not end there",
                hint="Let the end token end the text, or use --engine native.",
            )

    def forgets(self, request: Request) -> bool:
        return stateful(request.sampler)

    def step(self) -> list[Progress]:
        progress = {state: Progress(state, finish=state.finish) for state in self.ended}
        self.ended = []
        self.admit()
        outputs, self._held = self._held, []
        if self.running and not outputs:
            outputs = self._engine.step()
        for output in outputs:
            live = self.running.get(output.request_id)
            each = None if live is None else self._advance(output, live)
            if each is not None:
                progress[each.state] = joined(progress.get(each.state), each)
        self.admit()
        return list(progress.values())

    def score(self, ids: Sequence[int], top: int = 0) -> list[Score]:
        self.require_fits(len(ids))
        if len(ids) < 2:
            return []
        # The last token is generated, since a prompt has to leave room for one.
        count = max(1, min(top, self.vocab_size))
        fields = {"temperature": 0.0, "max_tokens": 1, "logprobs": count, "prompt_logprobs": count}
        name = self._add(list(ids[:-1]), self._parameters(**fields, allowed_token_ids=[ids[-1]]))
        entries: list[Mapping[int, Any]] = []
        while True:
            for output in self._engine.step():
                if output.request_id != name:
                    self._held.append(output)
                    continue
                # The first token has no log-probability.
                entries = [each for each in output.prompt_logprobs or () if each] or entries
                if output.finished:
                    entries = [*entries, *output.outputs[0].logprobs]
                    return [_score(each, token, top) for each, token in zip(entries, ids[1:], strict=True)]

    def reset(self) -> None:
        super().reset()
        self._held = []

    def close(self) -> None:
        if self._llm is not None:
            self.reset()
            self._engine.engine_core.shutdown()
            self._llm = None

    @property
    def _engine(self) -> Any:
        if self._llm is None:
            raise GptkitError("the engine is closed")
        return self._llm.llm_engine

    def _fields(self, request: Request) -> dict[str, Any]:
        return parameters(
            request.sampler,
            context_length=self.context_length,
            vocab_size=self.vocab_size,
            end_id=self.tokenizer.end_id,
        )

    def _parameters(self, **fields: Any) -> Any:
        try:
            return self._vllm.SamplingParams(**_ALWAYS, **fields)
        except ValueError as error:
            raise GptkitError(f"vLLM refuses the request: {error}", hint="Change it, or use --engine native.") from None

    def _sampling(self, request: Request, fields: Mapping[str, Any], remaining: int, restarts: int) -> Any:
        """Return vLLM's parameters for the rest of a text."""
        fields = dict(fields)
        if "min_tokens" in fields:
            done = request.max_new_tokens - remaining
            fields["min_tokens"] = min(remaining, max(0, fields["min_tokens"] - done))
        if request.log_probabilities is not None:
            fields["logprobs"] = max(1, min(request.log_probabilities, self.vocab_size))
        kind = self._vllm.sampling_params.RequestOutputKind.DELTA
        return self._parameters(max_tokens=remaining, seed=seed_of(request, restarts) >> 1, output_kind=kind, **fields)

    def _add(self, prompt: list[int], sampling: Any) -> str:
        name = str(next(self._numbers))
        self._engine.add_request(name, {"prompt_token_ids": prompt}, sampling)
        return name

    def start(self, live: Live, prompt: list[int]) -> str:
        request = live.state.request
        return self._add(prompt, self._sampling(request, self._fields(request), live.state.remaining, live.restarts))

    def drop(self, handle: str) -> None:
        self._engine.abort_request([handle])

    def _advance(self, output: Any, live: Live) -> Progress | None:
        """Add the tokens of an output to its request."""
        state = live.state
        before, text = state.n_generated, ""
        (completion,) = output.outputs
        if live.restarts == 0 and output.num_cached_tokens:
            state.n_cached = output.num_cached_tokens
        wanted = state.request.log_probabilities
        for place, token in enumerate(completion.token_ids):
            if state.finish is not None:
                break
            score = None if wanted is None else _score(completion.logprobs[place], token, wanted)
            text += state.append(token, None if score is None else (score.log_probability, list(score.top)))
        if output.finished:
            del self.running[output.request_id]
            if state.finish is None and completion.finish_reason != "length":
                text += state.fail(GptkitError(f"vLLM ended the text with the reason {completion.finish_reason!r}"))
        elif state.finish is not None:
            self.remove(output.request_id)
        if output.finished and state.finish is None:
            text += self.filled(live)
        return self.progress(state, before, text)


def _score(entries: Mapping[int, Any], token: int, top: int) -> Score:
    """Return the log-probabilities at one position, of which vLLM returns those of the best tokens and of the given one."""
    ordered = sorted(((number, float(each.logprob)) for number, each in entries.items()), key=lambda pair: -pair[1])
    return Score(float(entries[token].logprob), tuple(ordered[:top]))


def _open(vllm: Any, spec: VllmEngineSpec, export: Export, context_length: int, context: EngineContext) -> Any:
    """Return vLLM with the model loaded, which has generated one token: some kernels refuse a model only then."""
    options: dict[str, Any] = {}
    if spec.gpu_memory is not None:
        options["gpu_memory_utilization"] = spec.gpu_memory
    on_cpu = vllm.platforms.current_platform.is_cpu()
    cache_gib = spec.cache_gib or (_CPU_CACHE_GIB if on_cpu else None)
    if cache_gib is not None:
        options["kv_cache_memory_bytes"] = int(cache_gib * 2**30)
    try:
        llm = vllm.LLM(
            str(export.directory),
            skip_tokenizer_init=True,
            trust_remote_code=export.has_code,  # gptkit wrote it
            generation_config="vllm",  # no defaults of sampling from the export
            dtype=spec.dtype,
            max_model_len=context_length,
            max_num_seqs=context.max_batch,
            max_logprobs=-1,
            tensor_parallel_size=spec.tensor_parallel,
            enforce_eager=spec.eager,
            enable_prefix_caching=spec.cache_prompt,
            use_tqdm_on_load=False,
            seed=0,
            **options,
        )
        llm.llm_engine.add_request("trial", {"prompt_token_ids": [0]}, vllm.SamplingParams(max_tokens=1, **_ALWAYS))
        while not any(output.finished for output in llm.llm_engine.step()):
            pass
        return llm
    except Exception as error:  # vLLM has no class of errors of its own for this
        raise GptkitError(
            f"vLLM cannot compute {context.directory}: {_reason(error)}", hint="Use --engine native."
        ) from error


def _reason(error: Exception) -> str:
    """Return the message of an error of vLLM, on one line, without the list of everything that it supports."""
    problems = (
        [each["msg"].removeprefix("Value error, ") for each in error.errors()] if isinstance(error, ValidationError) else []
    )
    text = " ".join(" ".join(problems or [str(error)]).split())
    return text.partition(" Supported architectures:")[0] or type(error).__name__
