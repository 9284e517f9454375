"""Speed of speculative decoding against plain decoding, on text that repeats its prompt and on free text.

python -m benchmarks.speculative RUN [--precision bf16] [--tokens 128] [--rounds 5] [--drafter ngram …] [--compile]

RUN is a chat model, for example an import of SmolLM2-135M-Instruct. Plain and speculative decoding alternate within each
round; the table has medians, and the median of the rounds' ratios. The number of forward passes does not depend on the
machine. Texts are compared: they are equal, except where rounding changes a token. With --compile, plain and speculative
decoding use compiled steps, which are compiled before the measurement.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import gptkit
from benchmarks.interleave import environment
from gptkit.cli.samplers import drafter
from gptkit.inference import Generated
from gptkit.inference.compiled.decoding import decoding_model
from gptkit.inference.compiled.form import WIDTHS, StepForm
from gptkit.kinds.drafter import DrafterSpec
from gptkit.runs.prompts import chat_prompt
from gptkit.runs.run import Run

CODE = """class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()

    def peek(self):
        if not self.items:
            raise IndexError("peek at an empty stack")
        return self.items[-1]

    def __len__(self):
        return len(self.items)
"""

PROMPTS = {
    "edited code": f"Repeat this Python class, and add a method `clear` at the end:\n\n```python\n{CODE}```",
    "new code": "Write a Python class `Queue` with the methods push, pop, peek and __len__, with docstrings.",
    "free text": "Write a story about a lighthouse keeper who finds a message in a bottle.",
}
SAMPLERS: dict[str, list[object]] = {
    "greedy": ["greedy"],
    "temperature 0.7, top-p 0.9": [{"name": "temperature", "value": 0.7}, {"name": "top-p", "p": 0.9}],
}


def measure(
    run: Run,
    prompt: str,
    sampler: list[object],
    drafters: Sequence[DrafterSpec],
    n_tokens: int,
    rounds: int,
    *,
    compile: bool = False,
) -> list[list[Generated]]:
    """Return the results of plain decoding and of each drafter, one per round; the first round is not counted."""
    ids, _ = chat_prompt(run.tokenizer, prompt, run.ends)
    results: list[list[Generated]] = [[] for _ in (None, *drafters)]
    for _ in range(rounds + 1):
        for index, each in enumerate((None, *drafters)):
            results[index] += gptkit.generate(
                run.model,
                run.tokenizer,
                [ids],
                sampler=sampler,  # type: ignore[arg-type]
                max_new_tokens=n_tokens,
                stop_ids=(),
                seed=1,
                drafter=each,
                compile=compile,
            )
    return [each[1:] for each in results]


def compile_steps(run: Run, *, keeps_hidden: bool) -> None:
    """Compile the steps of all widths, or load them."""
    decoding = decoding_model(run.model, compile=True)
    for hidden in (False, True) if keeps_hidden else (False,):
        for width in WIDTHS:
            if not decoding.wait(StepForm(width=width, keeps_hidden=hidden)):
                raise SystemExit(f"the step of {width} tokens cannot be compiled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run directory of a chat model")
    parser.add_argument("--precision", default="bf16", help="precision for inference")
    parser.add_argument("--tokens", type=int, default=128, help="number of tokens of each text")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--drafter", action="append", help="drafter, as for gptkit generate --speculate; repeatable")
    parser.add_argument("--text", action="append", choices=list(PROMPTS), help="text to measure; repeatable, all by default")
    parser.add_argument("--compile", action="store_true", help="decode with compiled steps")
    arguments = parser.parse_args()
    run = gptkit.load(arguments.run, precision=arguments.precision)
    names = arguments.drafter or ["ngram"]
    drafters = [drafter(name) for name in names]
    if arguments.compile:
        compile_steps(run, keeps_hidden="mtp" in " ".join(names))
    print(environment())
    what = "compiled steps" if arguments.compile else "eager"
    print(f"{run.spec.name}, {arguments.precision}, {what}, {arguments.tokens} tokens, {arguments.rounds} rounds\n")
    columns = ("text", "sampler", "drafter", "plain", "speculative", "ratio", "accepted", "forward passes", "equal text")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for label in arguments.text or PROMPTS:
        for chain, sampler in SAMPLERS.items():
            prompt = PROMPTS[label]
            plain, *others = measure(
                run, prompt, sampler, drafters, arguments.tokens, arguments.rounds, compile=arguments.compile
            )
            slow = statistics.median(result.timings.decode_rate for result in plain)
            for name, results in zip(names, others, strict=True):
                fast = statistics.median(result.timings.decode_rate for result in results)
                timings = results[0].timings
                pairs = zip(results, plain, strict=True)
                ratio = statistics.median(one.timings.decode_rate / two.timings.decode_rate for one, two in pairs)
                accepted = f"{timings.accepted_tokens} of {timings.drafted_tokens}"
                passes = f"{timings.decoded_tokens - timings.accepted_tokens} for {timings.decoded_tokens}"
                equal = "yes" if results[0].ids == plain[0].ids else "no"
                rates = (f"{slow:.0f} tokens/s", f"{fast:.0f} tokens/s", f"{ratio:.2f}")
                print(f"| {' | '.join((label, chain, name, *rates, accepted, passes, equal))} |", flush=True)


if __name__ == "__main__":
    main()
