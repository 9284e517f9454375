"""`gptkit show`: show the resolved spec of a file or run, and the sizes of its model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.compiler import without_compiler
from gptkit.cli.drawn import check_target, spec_page, subject_outline, write
from gptkit.cli.options import FileOrRun, Json, Overrides, chosen
from gptkit.cli.training_tables import print_parameter_groups, print_stages
from gptkit.core.activity import working

if TYPE_CHECKING:
    from rich.text import Text

    from gptkit.cli.subject import Subject
    from gptkit.core.component import Component
    from gptkit.model.gpt import GPT
    from gptkit.model.plan import Plan
    from gptkit.model.spec import LayerSpec, ModelSpec

PARTS = ("position", "attention", "norm", "feedforward", "linear", "block")
LONGEST_TREE = 40
"""Longest module tree, in lines, that is printed by default."""


def show(
    target: FileOrRun,
    overrides: Overrides = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the resolved spec as YAML, with every default.")
    ] = False,
    with_tree: Annotated[
        bool | None,
        typer.Option("--tree/--no-tree", help="Print the module tree; by default if it is short.", show_default=False),
    ] = None,
    activations: Annotated[
        bool, typer.Option("--activations", "-a", help="Show the shapes of weights and of activations, per module.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, metavar="B", help="Batch size in these shapes.", show_default=False)
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", min=1, metavar="T", help="Number of tokens in these shapes.", show_default=False),
    ] = None,
    svg: Annotated[
        str | None,
        typer.Option("--svg", metavar="FILE", help="Draw the architecture as SVG; - prints it.", show_default=False),
    ] = None,
    html: Annotated[
        str | None,
        typer.Option("--html", metavar="FILE", help="Write a page with the drawing, in one file.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the settings, layers and sizes of a spec or run.

    With --activations also the shape of every weight, and of what every module returns for B rows of T tokens. With --svg or
    --html, write a diagram of the architecture in place of the tables.
    """
    with working(f"reading {target}"):
        from gptkit.cli.subject import open_subject
        from gptkit.core.yaml import dump_yaml

        check_target(svg, ".svg")
        check_target(html, ".html")
        subject = open_subject(target, chosen(overrides))
    if resolved and not as_json:
        console.out(dump_yaml(subject.spec.plain()).rstrip("\n"))
        return
    with working("building the model on the meta device"), without_compiler():
        vocab_size = subject.vocab_size(fit=True)
        model = None if vocab_size is None else subject.model(vocab_size)
        plan = None if vocab_size is None else subject.plan(vocab_size, model)
        shapes = _shapes(model, batch, tokens) if activations and model is not None else None
    if svg is not None or html is not None:
        _draw(subject, vocab_size, model, plan, svg, html)
        return
    if as_json:
        data = _as_data(subject, vocab_size, plan)
        data |= {} if shapes is None else {"activations": shapes}
        console.out(json.dumps(data, indent=2, ensure_ascii=False))
        return
    screen = console.stdout()
    screen.print(subject.spec.name, style="bold")
    screen.print(console.table([("", {"style": "cyan"}), ""], list(_setting(subject)), header=False))
    console.heading("Layers")
    _print_layers(subject)
    if model is not None:
        _print_tree(model, shapes, with_tree)
        print_parameter_groups(subject.spec.training, model)
    print_stages(subject.spec.training, subject.spec.window)
    console.heading("Sizes")
    if plan is None:
        console.out("unknown: the vocabulary size depends on a corpus that is unavailable")
        return
    rows = list(size_rows(subject, plan))
    columns: list[console.Column] = [("", {"style": "cyan"}), ("", {"no_wrap": True}), ("", {"style": "dim"})]
    screen.print(console.table(columns, rows, header=False))


def _draw(
    subject: Subject,
    vocab_size: int | None,
    model: GPT | None,
    plan: Plan | None,
    svg_file: str | None,
    html_file: str | None,
) -> None:
    """Write the diagram of a spec, and the page with it."""
    from gptkit.diagrams.drawing import svg
    from gptkit.pages.static import table

    outline = subject_outline(subject, vocab_size, model)
    if svg_file is not None:
        write(svg_file, lambda: svg(outline, standalone=True))
    if html_file is not None:
        settings = [[name, getattr(value, "plain", value)] for name, value in _setting(subject)]
        sizes = [] if plan is None else list(size_rows(subject, plan))
        groups = list(_groups(subject.spec.model.layer_specs()))
        rows = [[part, *(_in_words(getattr(layer, part)).plain for _, layer in groups)] for part in PARTS]
        write(
            html_file, lambda: spec_page(subject, outline, settings, sizes, table(rows, ["", *(name for name, _ in groups)]))
        )


def _print_layers(subject: Subject) -> None:
    from rich.text import Text

    for label, layer in _groups(subject.spec.model.layer_specs()):
        console.stdout().print(label)
        parts: list[list[Any]] = [[f"  {part}", _in_words(getattr(layer, part))] for part in PARTS]
        backend = _backend(subject.spec.model, layer)
        if backend is not None:
            parts.append(["  backend", Text.assemble(backend[0], (f"  {backend[1]}", "dim"))])
        console.stdout().print(console.table([("", {"style": "cyan"}), ""], parts, header=False))


def _shapes(model: GPT, batch: int | None, tokens: int | None) -> dict[str, str]:
    from gptkit.model.shapes import activation_shapes

    return activation_shapes(model, batch, tokens)


def _print_tree(model: GPT, shapes: dict[str, str] | None, wanted: bool | None) -> None:
    """Print the module tree: with shapes if there are any, else if it is wanted or short."""
    from gptkit.model.tree import branches, tree

    screen = console.stdout()
    if shapes is not None:
        console.heading("Shapes")
        rows = [
            [f"{each.lead}{each.label}", " ".join(map(str, each.shapes)), shapes.get(each.name, "")]
            for each in branches(model)
        ]
        rows.append(["logits", "", shapes[""]])
        columns: list[console.Column] = [(title, {"no_wrap": True}) for title in ("module", "weights", "output")]
        screen.print(console.table(columns, rows), crop=screen.is_terminal)
        return
    lines = tree(model).splitlines()
    if wanted or (wanted is None and len(lines) <= LONGEST_TREE):
        console.heading("Tree")
        for line in lines:
            screen.print(line, no_wrap=True, overflow="ellipsis", crop=screen.is_terminal)
    elif wanted is None:
        console.note(f"module tree of {len(lines)} lines: --tree", style="dim")


def _backend(model: ModelSpec, layer: LayerSpec) -> tuple[str, str] | None:
    """Return a layer's attention backend and the reason for it; None if its attention declares no score features."""
    features = layer.attention.score_features(model.context(layer=layer.parts(0)))
    if features is None:
        return None
    chosen, reason = (layer.attention_backend or model.attention_backend).choice(features)
    return chosen.name, reason


def _setting(subject: Subject) -> Iterator[list[Any]]:
    from rich.text import Text

    from gptkit.cli.samplers import described

    spec, model = subject.spec, subject.spec.model
    if subject.run is not None:
        from gptkit.checkpoint.store import CheckpointStore

        steps = CheckpointStore(subject.run.checkpoints).steps()
        reached = f"step {steps[-1]:,} of {spec.training.steps:,}" if steps else "no checkpoint yet"
        yield ["run", f"{subject.label}, {reached}"]
    yield ["tokenizer", _in_words(spec.tokenizer)]
    yield ["model", f"{console.plural(model.n_layers, 'layer')}, width {model.d_model:,}, context {model.context_length:,}"]
    yield ["embedding", _in_words(model.embedding)]
    yield ["final norm", "none" if model.final_norm is None else _in_words(model.final_norm)]
    yield ["head", _in_words(model.head)]
    yield ["sampler", described(spec.sampler)]
    if not spec.decoding.samples:
        yield ["decoding", _in_words(spec.decoding)]
    yield ["data", _in_words(spec.data)]
    training = spec.training
    tokens = training.batch_size * spec.window
    if training.stages:
        yield ["training", f"{training.steps:,} steps in {console.plural(len(training.stages), 'stage')}"]
    else:
        yield ["training", f"{training.steps:,} steps of {training.batch_size} × {spec.window:,} = {tokens:,} tokens"]
    yield ["optimizer", _in_words(training.optimizer)]
    yield ["schedule", _in_words(training.schedule)]
    for label in ("callbacks", "trackers"):
        if parts := getattr(training, label):
            yield [label, Text(", ").join(map(_in_words, parts))]


def size_rows(subject: Subject, plan: Plan) -> Iterator[list[str]]:
    """Yield label, value and remark of each size."""
    from gptkit.model.plan import human_bytes, human_count

    training = subject.spec.training
    batch_size, window = training.largest_step(subject.spec.window)
    part = max(1, batch_size // training.grad_accumulation)
    yield ["parameters", f"{plan.parameters:,}", f"{plan.embedding_parameters:,} of them embeddings"]
    if plan.trained_parameters < plan.parameters:
        share, frozen = plan.trained_parameters / plan.parameters, plan.parameters - plan.trained_parameters
        some = f"{share:.2%} of the parameters; the others are not trained"
        yield [
            "trained",
            f"{plan.trained_parameters:,}",
            some if share < 0.9999 else f"all but {frozen:,}, which are not trained",
        ]
    yield ["weights", human_bytes(plan.weight_bytes), "in fp32"]
    yield ["FLOPs per token", human_count(plan.flops_per_token).strip(), "forward, averaged over a full context"]
    yield ["cache per token", human_bytes(plan.cache_bytes_per_token), f"{human_bytes(plan.cache_bytes)} at full context"]
    yield [
        "training memory",
        human_bytes(plan.training_bytes),
        f"{part} × {window:,} tokens at once",
    ]


def _groups(layers: list[LayerSpec]) -> Iterator[tuple[str, LayerSpec]]:
    """Yield a label and a layer for each group of layers with equal components."""
    groups: list[tuple[LayerSpec, list[int]]] = []
    for index, layer in enumerate(layers):
        for known, indices in groups:
            if all(getattr(known, part) == getattr(layer, part) for part in (*PARTS, "attention_backend")):
                indices.append(index)
                break
        else:
            groups.append((layer, [index]))
    for layer, indices in groups:
        everything = len(groups) == 1
        yield (f"all {len(layers)}, 0 to {len(layers) - 1}" if everything else _ranges(indices)), layer


def _ranges(indices: list[int]) -> str:
    """Format layer indices as ranges: ``[0, 1, 2, 4]`` as ``0 to 2, 4``."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _in_words(component: Component) -> Text:
    """Format a component as its name and its fields that differ from the defaults."""
    from rich.text import Text

    from gptkit.reflect.snippets import flow, plain

    data = plain(component)
    if isinstance(data, str):
        return Text(data)
    fields = ", ".join(f"{key} {flow(value)}" for key, value in data.items() if key != "name")
    return Text.assemble(data["name"], (f"  {fields}", "dim"))


def _as_data(subject: Subject, vocab_size: int | None, plan: Plan | None) -> dict[str, Any]:
    layers: list[dict[str, Any]] = []
    for layer in subject.spec.model.layer_specs():
        backend = _backend(subject.spec.model, layer)
        layers.append({part: getattr(layer, part).model_dump(mode="json") for part in PARTS})
        layers[-1]["attention_backend"] = None if backend is None else {"name": backend[0], "reason": backend[1]}
    return {
        "source": subject.label,
        "sha256": subject.spec.sha256,
        "spec": subject.spec.plain(),
        "vocab_size": vocab_size,
        "sizes": None if plan is None else dataclasses.asdict(plan),
        "layers": layers,
    }
