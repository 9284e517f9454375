"""`gptkit data tokens` and `gptkit data windows`: what a model reads, as token ids and as text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.options import File, FileOrRun, Json, Overrides, Quiet
from gptkit.core.activity import working
from gptkit.core.errors import GptkitError

if TYPE_CHECKING:
    from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["tokens", "windows"]


def tokens(
    target: FileOrRun,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text; - reads stdin.", show_default=False)],
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the tokens of a text: the id, the text and the bytes of each.

    A tokenizer that is trained on the corpus of a spec is trained first.

    For example: gptkit data tokens gpt2 "Hello, world"
    """
    if text == "-":
        from gptkit.text.decoding import decode_utf8

        text = "".join(decode_utf8([sys.stdin.buffer.read()], "stdin"))
    if not text:
        raise GptkitError("the text is empty", hint="Pass at least one character.")
    with working(f"reading {target}", quiet=quiet):
        tokenizer = _tokenizer(target, overrides)
        ids = tokenizer.encode(text)
        decoded = tokenizer.decode(ids)
    if as_json:
        entries = [{"id": token, **_described(tokenizer, token)} for token in ids]
        console.out(json.dumps({"tokens": entries, "decoded": decoded}, indent=2, ensure_ascii=False))
        return
    from gptkit.pages.tokens import label, text_of

    rows = [
        [index, token, label(text_of(tokenizer, token), 40), tokenizer.token_bytes(token).hex(" ")]
        for index, token in enumerate(ids)
    ]
    right: dict[str, Any] = {"justify": "right"}
    console.stdout().print(console.table([("", right), ("id", right), "token", "bytes"], rows))
    n_bytes = len(text.encode("utf-8", errors="replace"))
    console.out(
        f"{console.plural(len(ids), 'token')} for {console.plural(len(text), 'character')}, "
        f"{n_bytes / max(1, len(ids)):.2f} bytes per token"
    )
    if decoded != text:
        console.warn(f"the tokens are decoded to another text: {label(decoded, 200)}")


def windows(
    spec: File,
    overrides: Overrides = None,
    step: Annotated[int, typer.Option("--step", min=1, metavar="N", help="The training step.")] = 1,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            "-n",
            min=1,
            metavar="N",
            help="Data windows that are shown; all of the step by default.",
            show_default=False,
        ),
    ] = None,
    n_tokens: Annotated[
        int, typer.Option("--tokens", min=1, metavar="N", help="Tokens that are shown of each data window.")
    ] = 12,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the data windows of a training step: inputs, and the targets that follow them by one token.

    They are those that `gptkit train` reads in this step, unless a callback changes them. The corpus is tokenized, unless it
    is prepared.

    For example: gptkit data windows tiny --count 2
    """
    from gptkit.runs.opening import open_spec

    opened = open_spec(spec, overrides or ())
    training = opened.spec.training
    if any(stage.batch_size or stage.window or stage.mixture for stage in training.stages):
        raise GptkitError(
            "the spec has stages, which change the data windows", hint="Show those without stages: --set training.stages=[]"
        )
    with working("tokenizing the corpus", quiet=quiet), TemporaryDirectory() as temporary:
        from gptkit.data.index import TOKENIZER
        from gptkit.runs.corpus import find_prepared, fit_tokenizer, prepare_corpus

        prepared = find_prepared(opened)
        if prepared is None:
            prepared = prepare_corpus(opened, Path(temporary) / "data", workers=1)
            tokenizer = opened.spec.tokenizer.load(prepared.directory / TOKENIZER)
        else:
            tokenizer = fit_tokenizer(opened)
        source = prepared.train_windows(opened.spec.data, opened.spec.window)
        batch = source.batch(step - 1, training.batch_size, training.seed)
        rows = [
            {"inputs": inputs, "targets": targets}
            for inputs, targets in zip(batch.inputs_BT.tolist(), batch.targets_BT.tolist(), strict=True)
        ]
    shown = rows[:count]
    if as_json:
        console.out(json.dumps(shown))
        return
    from gptkit.pages.tokens import label

    for number, row in enumerate(shown, 1):
        console.heading(f"data window {number} of {len(rows)}, step {step}")
        for name, ids in row.items():
            more = f" … ({len(ids)} tokens)" if len(ids) > n_tokens else ""
            first = ids[:n_tokens]
            # A target that the loss excludes has no token.
            numbers = " ".join("–" if token < 0 else str(token) for token in first)
            text = tokenizer.decode([token for token in first if token >= 0])
            console.stdout().print(f"{name:8}{numbers}{more}", highlight=False, markup=False)
            console.stdout().print(f"{'':8}{label(text, 40 * n_tokens)}", highlight=False, markup=False)


def _tokenizer(target: str, overrides: list[str] | None) -> Tokenizer:
    from gptkit.runs.corpus import fit_tokenizer
    from gptkit.runs.directory import RunDirectory
    from gptkit.runs.opening import open_spec
    from gptkit.runs.tokenizers import load_tokenizer

    run = RunDirectory(Path(target))
    if run.holds_run:
        if overrides:
            raise GptkitError("--set does not change the tokenizer of a run", hint="Pass a spec file, or omit --set.")
        return load_tokenizer(run.read_spec(), run)
    return fit_tokenizer(open_spec(target, overrides or ()))


def _described(tokenizer: Tokenizer, token: int) -> dict[str, str]:
    from gptkit.pages.tokens import text_of

    return {"text": text_of(tokenizer, token), "bytes": tokenizer.token_bytes(token).hex()}
