"""`gptkit generate`: generate text. Only the text is printed on stdout."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.collection import import_torch
from gptkit.cli.failures import INTERRUPTED
from gptkit.cli.options import (
    Compile,
    Decoding,
    Engine,
    Json,
    Overflow,
    Precision,
    Quiet,
    RunDirectory,
    Samplers,
    Seed,
    Speculate,
    Step,
    Stop,
    Trace,
)
from gptkit.core.activity import working

if TYPE_CHECKING:
    from gptkit.engines.engine import Engine as EngineRuntime
    from gptkit.inference.generation import TextGeneration
    from gptkit.inference.result import Alternative, Generated
    from gptkit.runs.run import Run


_ENDS = {"stop": "stop string reached", "end": "the model ended it", "interrupted": "interrupted"}
_AT_ONCE = 8
"""Number of texts that an engine generates at the same time; others wait."""


def generate(
    directory: RunDirectory,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="The prompt; - reads it from stdin.", show_default=False),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=0, metavar="N", help="Maximum number of new tokens.")
    ] = 200,
    sampler: Samplers = None,
    decoding: Decoding = None,
    seed: Seed = None,
    stop: Stop = None,
    count: Annotated[
        int,
        typer.Option(
            "--count",
            "-c",
            min=1,
            max=100_000,
            metavar="N",
            help="Number of texts per prompt; of a search such as beam, the best.",
        ),
    ] = 1,
    chat: Annotated[
        bool, typer.Option("--chat", help="Treat the prompt as a user message; requires a chat template.")
    ] = False,
    overflow: Annotated[
        Overflow,
        typer.Option(
            "--overflow",
            help="At the model's context length: slide discards the beginning of the text, stop ends it.",
        ),
    ] = Overflow.slide,
    bare: Annotated[bool, typer.Option("--no-echo", help="Omit the prompt.")] = False,
    speculate: Speculate = None,
    trace: Trace = None,
    step: Step = None,
    precision: Precision = None,
    compile: Compile = False,
    engine: Engine = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Generate text; a single text is streamed, several are generated in one batch.

    For example: gptkit generate runs/gpt "Once upon a time" --max-tokens 50 --sampler greedy
    gptkit generate runs/smollm2 --chat "What is the capital of France?"  # a chat model
    """
    texts = [_from_stdin() if prompt == "-" else prompt for prompt in prompts or [""]]
    with working(f"loading {directory}", quiet=quiet):
        import_torch()
        from gptkit.cli.precision import parsed
        from gptkit.cli.samplers import chain, drafter
        from gptkit.cli.samplers import decoding as parsed_decoding
        from gptkit.cli.tracing import check_trace, show_traces
        from gptkit.inference.decodings import decoding_spec
        from gptkit.kinds.sampler import expanded
        from gptkit.runs.engines import engine_context, engine_spec, engine_with, require_sampling
        from gptkit.runs.prompts import chat_prompt, prompt_ids
        from gptkit.runs.run import load
        from gptkit.runs.sampling import options_of

        check_trace(trace)
        proposing = None if speculate is None else drafter(speculate)
        asked: dict[str, Any] = {"precision": precision is not None, "drafter": proposing, "compile": compile}
        chosen = None if engine is None else engine_with(engine_spec(engine), trace=trace is not None, **asked)
        run = load(directory, step=step, precision=parsed(precision) if precision else None)
    given = chain(sampler) if sampler else None
    sampling = options_of(run.spec, given, None if decoding is None else parsed_decoding(decoding))
    if chosen is not None:
        require_sampling(chosen, decoding_spec(sampling["decoding"]))
    options: dict[str, Any] = {
        "max_new_tokens": max_tokens,
        **sampling,
        "seed": seed,
        "stop": stop or (),
        "overflow": overflow.value,
        "trace": trace is not None,
        "drafter": proposing,
        "compile": compile,
    }
    if chat:
        conversations = [chat_prompt(run.tokenizer, text, run.ends) for text in texts]
        ids, options["stop_ids"] = [each for each, _ in conversations], conversations[0][1]
    else:
        ids = [prompt_ids(run.tokenizer, text) for text in texts]
        options["stop_ids"] = run.text_ends
    echo = not bare and not chat
    search = options["decoding"]
    if chosen is None and not search.samples:
        # One prompt is searched at a time, with all rows of the search.
        _require_room(run, [max(ids, key=len)], search.n_rows, max_tokens, "Use a smaller search, or lower --max-tokens.")
    elif chosen is None and count * len(ids) > 1:
        _require_room(run, ids, count, max_tokens, "Lower --count or --max-tokens, or use several calls.")
    # A search without random numbers finds the same texts every time, so its best ones are the texts asked for.
    best = 1 if search.samples or not search.deterministic else count
    requests = [pair for pair in zip(texts, ids, strict=True) for _ in range(count // best)]
    with ExitStack() as stack:
        opened = None
        if chosen is not None:
            with working(f"loading the engine {chosen.name}", quiet=quiet):
                opened = chosen.build(engine_context(run, min(len(requests), _AT_ONCE)))
            stack.callback(opened.close)
        limit = run.model.context_length if opened is None else opened.context_length
        if not quiet:
            _warn_of_long_prompts(ids, limit, overflow)
        if as_json or len(requests) > 1 or best > 1:
            results = _batched(
                run, opened, requests, options, limit=limit, best=best, echo=echo, as_json=as_json, quiet=quiet
            )
        else:
            results = [_streamed(run, opened, *requests[0], options, echo=echo, quiet=quiet)]
    if trace is not None:
        show_traces(results, trace, run.spec.name, as_json=as_json, quiet=quiet)
    if not quiet:
        fixed = options["decoding"].deterministic or any(each.deterministic for each in expanded(options["sampler"]))
        _report(results, random=not fixed, stops=bool(stop))
    if any(result.finish == "interrupted" for result in results):
        raise typer.Exit(INTERRUPTED)


def _generation(run: Run, engine: EngineRuntime | None, ids: list[list[int]], options: dict[str, Any]) -> TextGeneration:
    if engine is None:
        from gptkit.inference.generation import Generation

        return Generation(run.model, run.tokenizer, ids, **options)
    from gptkit.engines.generation import EngineGeneration
    from gptkit.inference.requests import new_requests

    own = {name: value for name, value in options.items() if name not in ("decoding", "drafter", "compile")}
    return EngineGeneration(engine, new_requests(run.tokenizer, engine.vocab_size, ids, **own))


def _streamed(
    run: Run, engine: EngineRuntime | None, prompt: str, ids: list[int], options: dict[str, Any], *, echo: bool, quiet: bool
) -> Generated:
    from gptkit.inference.generation import TextStream

    texts = TextStream(_generation(run, engine, [ids], options))
    samples = options["decoding"].samples
    what = f"reading the prompt of {len(ids):,} tokens" if samples else f"searching with {options['decoding'].name}"
    with working(what, quiet=quiet):
        first = next(texts, "")
    try:
        console.write((prompt if echo else "") + first)
        for piece in texts:
            console.write(piece)
    finally:
        # An error message does not continue the line of the text.
        console.write("\n")
    return texts.result


def _batched(
    run: Run,
    engine: EngineRuntime | None,
    requests: list[tuple[str, list[int]]],
    options: dict[str, Any],
    *,
    limit: int,
    best: int,
    echo: bool,
    as_json: bool,
    quiet: bool,
) -> list[Generated]:
    from gptkit.inference.generation import finished

    with working(f"generating {console.plural(len(requests), 'text')}", quiet=quiet):
        results = finished(_generation(run, engine, [ids for _, ids in requests], options))
    if as_json:
        data = [
            {
                "prompt": prompt,
                "text": result.text,
                "tokens": len(result.ids),
                "finish": result.finish,
                "seed": result.seed,
                "discarded_prompt_tokens": max(0, len(ids) - limit),
                **({} if result.trace is None else {"trace": result.trace.as_dict()}),
                **({"alternatives": [_alternative(each) for each in result.alternatives]} if result.alternatives else {}),
            }
            for (prompt, ids), result in zip(requests, results, strict=True)
        ]
        console.out(json.dumps(data, indent=2, ensure_ascii=False))
        return results
    kept = [[each.text for each in result.alternatives[:best]] if best > 1 else [result.text] for result in results]
    shown = [(prompt if echo else "") + text for (prompt, _), texts in zip(requests, kept, strict=True) for text in texts]
    console.write("\n".join(f"{text}\n" for text in shown))
    if min(map(len, kept)) < best:
        console.warn(f"{options['decoding'].name} found {min(map(len, kept))} of {best} texts")
    return results


def _alternative(text: Alternative) -> dict[str, Any]:
    return {"text": text.text, "tokens": len(text.ids), "finish": text.finish, "score": round(text.score, 6)}


def _require_room(run: Run, prompts: list[list[int]], count: int, max_tokens: int, hint: str) -> None:
    """Raise an error if the key/value cache of all texts at full length does not fit in memory."""
    from gptkit.model.cache_size import cache_bytes_per_token
    from gptkit.model.plan import refuse_unless_fits

    limit, dtype = run.model.context_length, run.model.dtype
    tokens = count * sum(min(limit, len(ids) + max_tokens) for ids in prompts)
    needed = tokens * cache_bytes_per_token(run.model, dtype)
    what = f"the key/value cache of {console.plural(count * len(prompts), 'text')} with {tokens:,} tokens in total"
    refuse_unless_fits(int(needed), what, run.model.device, hint=hint)


def _from_stdin() -> str:
    from gptkit.text.decoding import decode_utf8

    return "".join(decode_utf8([sys.stdin.buffer.read()], "stdin"))


def _warn_of_long_prompts(prompts: list[list[int]], limit: int, overflow: Overflow) -> None:
    longest = max(map(len, prompts))
    if longest > limit and overflow is Overflow.slide:
        console.warn(
            f"the prompt has {longest:,} tokens and the context {limit:,}: the first {longest - limit:,} are discarded; "
            "--overflow stop refuses such prompts"
        )


def _report(results: list[Generated], *, random: bool, stops: bool) -> None:
    timings, first = results[0].timings, results[0]
    n_tokens = sum(len(result.ids) for result in results)
    parts = [console.plural(n_tokens, "token")]
    if timings.decode_rate:
        parts.append(f"{timings.decode_rate:,.0f} tokens/s")
    if timings.drafted_tokens:
        parts.append(f"{timings.accepted_tokens:,} of {timings.drafted_tokens:,} drafted tokens accepted")
    if random:
        parts.append(f"seed {first.seed}")
    if len(results) == 1 and first.finish in _ENDS:
        # Without stop strings, an end token other than the tokenizer's own was generated.
        parts.append(_ENDS["end" if first.finish == "stop" and not stops else first.finish])
    console.note(", ".join(parts), style="dim")
