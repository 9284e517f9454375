"""A model's spec as the source of a file of plain PyTorch.

Nothing here imports torch, except for components without a template, and the written source is never executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from gptkit.core.resolution import in_context
from gptkit.core.walk import components
from gptkit.ejection.bundling import bundle
from gptkit.ejection.different_layers import construct_blocks
from gptkit.ejection.groups import EMBEDDED, IDS, Groups
from gptkit.ejection.heading import printable, settings_source, shapes
from gptkit.ejection.joining import joined, separate
from gptkit.ejection.lines import typed, wrapped
from gptkit.ejection.model import GENERATOR, HEADER, MODEL, RUN
from gptkit.ejection.references import REFER, Referenced, reference_statements, referenced_modules
from gptkit.ejection.runtime import layer_cache
from gptkit.ejection.sharing import kv_sources, require_own_states, require_streams, shared_modules, sources_text
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext, LayerParts
from gptkit.kinds.written import Name, NotWrittenError, Section, WritingContext, Written, fill, walk, written
from gptkit.model.spec import PARTS, WHOLE_PARTS, ModelSpec

__all__ = [
    "TABLE",
    "TITLES",
    "Parts",
    "construct_blocks",
    "exchanges",
    "fixed_sizes",
    "in_reading_order",
    "refuse_other_fields",
    "unused_weights",
    "write_source",
    "written_parts",
]

TITLES = {
    "linear": "Linear",
    "embedding": "Embedding",
    "norm": "Norm",
    "position": "Position",
    "attention": "Attention",
    "feedforward": "Feed-forward",
    "block": "Block",
    "model": "Model",
}
TABLE = "self.embedding.table.weight"
"""The matrix of a tied head, as templates call it."""

_MODEL_FIELDS = {"context_length", "d_model", "n_layers", "vocab_size", "layers", *PARTS, *WHOLE_PARTS}
"""Fields of a model that are written out, or do not change what it computes."""
_LAYER_FIELDS = {"repeat", "attention_backend", *PARTS}
"""The same of an entry of `layers`."""


@dataclass(frozen=True)
class Parts:
    """How the parts of a model are written out."""

    embedding: Written
    linears: list[Written]
    blocks: list[Written]
    final_norm: Written | None
    head: Written
    sources: Mapping[int, list[int]]
    """The layers that attend to the keys and values of another one, by the index of that one."""
    referenced: Sequence[Referenced] = ()
    """Modules that belong to the model, and that layers refer to."""

    @property
    def shared(self) -> dict[str, Written]:
        """The module that layers share, by its name in the model; empty if they share none."""
        return shared_modules(self.blocks)

    @property
    def owned(self) -> dict[str, Written]:
        """The modules that layers share and call themselves, by their names in the model."""
        return {part.owned_as: part for block in self.blocks for part in walk(block) if part.owned_as}

    @property
    def exchanges(self) -> bool:
        """Whether layers pass values to one another, or copied modules read the context of a call.

        Otherwise the cache of a layer is a dictionary, which also has the ids of a call's tokens if layers read them.
        """
        return any(exchanges(root, ids=False) for root in (self.embedding, *self.blocks, self.head))

    @property
    def embeds_by_table(self) -> bool:
        """Whether the embedding is a table alone, which needs no class."""
        return "table alone" in self.embedding.calls and TABLE not in self.head.calls["logits"]

    def use(self, words: str) -> bool:
        """Return whether the text of a component has these words."""
        roots = (self.embedding, *self.blocks, self.head)
        return any(words in part.text for root in roots for part in walk(root))


def exchanges(written: Written, *, ids: bool = True) -> bool:
    """Return whether a component passes values to others through the cache of a layer, or has caches of its parts there.

    Args:
        ids: whether it is enough that the component reads the ids of tokens there.
    """
    texts = [part.text if ids else part.text.replace(IDS, "") for part in walk(written)]
    return any(use in text for text in texts for use in ("cache.shared", "cache.part("))


def fixed_sizes(spec: ModelSpec, vocab_size: int) -> dict[str, int]:
    """Return the constants of every written model."""
    return {
        "VOCAB_SIZE": spec.vocab_size or vocab_size,
        "CONTEXT_LENGTH": spec.context_length,
        "D_MODEL": spec.d_model,
        "N_LAYERS": spec.n_layers,
    }


def write_source(spec: ModelSpec, vocab_size: int, *, name: str, parameters: int) -> str:
    """Return the source.

    Args:
        spec: the model.
        vocab_size: number of token ids.
        name: what the file calls the model.
        parameters: number of parameters.

    Raises:
        NotWrittenError: a component cannot be written out; gives the reason.
    """
    refuse_other_fields(spec)
    parts = written_parts(spec, vocab_size, together=True)
    require_own_states(parts.blocks, parts.sources)
    fixed = fixed_sizes(spec, vocab_size)
    roots = [
        *parts.linears,
        *([] if parts.embeds_by_table else [parts.embedding]),
        *parts.shared.values(),
        *parts.blocks,
        *([] if parts.final_norm is None else [parts.final_norm]),
        parts.head,
    ]
    cache = "LayerCache" if parts.exchanges else "dict[str, Tensor]"
    groups = Groups(fixed, *roots, cache=cache, ids=IDS if parts.exchanges else 'cache["ids"]')
    model = _model(parts, groups)
    sections: dict[str, list[str]] = {section: [] for section in get_args(Section)}
    for section, source in groups.sources():
        sections[section].append(source)
    whole = parts.use("dtype=torch.int64")  # tables of whole numbers among the weights
    recompute = " or ".join(sorted(_recompute(roots)))
    run = fill(RUN, recompute=recompute, unused=_tuple(_unused(parts.head)), whole=whole)
    sections["model"] += [model, "\n".join(part for line in run.splitlines() for part in wrapped(line)) + "\n"]
    body = "\n\n".join(
        f"# -------- {TITLES[section]} --------\n" + "\n\n".join(sections[section])
        for section in in_reading_order(sections)
        if sections[section]
    )
    header = fill(
        HEADER,
        name=printable(name),
        generator=GENERATOR,
        parameters=f"{parameters:,}",
        shapes=shapes(body),
        functional="F." in body,
        functional_call="functional_call(" in body,
        math="math." in body,
        any=re.search(r"\bAny\b", body) is not None,
    )
    return f"{header}\n# -------- Settings --------\n{settings_source(fixed, groups.constants())}\n\n{body}"


def in_reading_order(sections: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the sections in the order of a textbook: norms follow attention, except where attention uses them."""
    order = list(sections)
    names = re.findall(r"^class (\w+)", "\n".join(sections["norm"]), flags=re.M)
    if any(f"{name}(" in source for name in names for source in sections["attention"]):
        order.remove("norm")
        order.insert(order.index("attention"), "norm")
    return order


def unused_weights(spec: ModelSpec, vocab_size: int) -> tuple[str, ...]:
    """Return prefixes of the names of a model's weights that the written model does not have: only training uses them.

    Raises:
        NotWrittenError: a component cannot be written out.
    """
    return _unused(written_parts(spec, vocab_size).head)


def _unused(head: Written) -> tuple[str, ...]:
    return tuple(f"head.{name}" for name in head.unused)


def _tuple(names: Sequence[str]) -> str:
    """Return the literal of what `str.startswith` accepts; empty for no names."""
    texts = [f'"{name}"' for name in names]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})" if texts else ""


def written_parts(spec: ModelSpec, vocab_size: int, *, together: bool = False) -> Parts:
    """Return how the parts of a model are written out.

    Args:
        together: whether layers whose settings decide between lines of a template are one class, with branches.
    """
    layers = [layer.parts(index) for index, layer in enumerate(spec.layer_specs())]
    build = spec.context(vocab_size)
    attending = [
        each
        for layer, parts in zip(spec.layer_specs(), layers, strict=True)
        if _attends(layer.block)
        for each in _attending(parts, build)
    ]
    within = [part for layer in spec.layer_specs() for _, part in components(layer.block) if isinstance(part, AttentionSpec)]
    context = WritingContext(
        d_model=build.d_model,
        context_length=build.context_length,
        n_layers=build.n_layers,
        vocab_size=build.vocab_size,
        position=build.position,
        width=build.d_model,
        layers=attending,
        blocks=[layer.block for layer in spec.layer_specs()],
        attentions=[*(parts.attention for parts in attending), *within],
        bundle=bundle,
    )
    blocks = [
        written(layer.block, context.replace(layer=parts)) for layer, parts in zip(spec.layer_specs(), layers, strict=True)
    ]
    require_streams(blocks)
    final = None if spec.final_norm is None else written(spec.final_norm, context, dim=Name("D_MODEL"))
    head = written(spec.head, context.replace(layer=spec.head_parts()), embedding=spec.embedding)
    chosen = [*(layer.linear for layer in layers), *(part for _, part in components(spec.head) if part.kind == "linear")]
    linears = [written(linear, context) for linear in chosen if linear is not None]
    embedding = written(spec.embedding, context)
    referenced = referenced_modules(spec, vocab_size) if context.shared else []
    if referenced and (shared_modules(blocks) or context.owned):
        raise NotWrittenError(
            "modules that layers share cannot be written out beside those that are copied from the source of a component",
            hint="Choose components of one of the two sorts.",
        )
    linears = [each for each in linears if each.text]
    norms = [] if final is None else [final]
    roots = (joined if together else separate)([embedding, head, *norms, *linears, *blocks])
    embedding, head, *others = roots
    final, others = (others[0], others[1:]) if norms else (None, others)
    linears, blocks = others[: len(linears)], others[len(linears) :]
    return Parts(embedding, linears, blocks, final, head, kv_sources(context.layers), referenced)


def _attends(block: BlockSpec) -> bool:
    """Return whether a block uses its layer's attention; one that does not declare its wiring may."""
    steps = block.steps()
    return steps is None or any("attention" in branch for step, _ in steps for branch in step.branches)


def _attending(parts: LayerParts, build: BuildContext) -> list[LayerParts]:
    """Return a layer's parts for each attention that it consists of: one, or those within it."""
    specs = in_context(parts.attention, build.replace(layer=parts))
    within = [
        replace(context.parts, attention=each) for path, each, context in specs if path and isinstance(each, AttentionSpec)
    ]
    return within or [parts]


def refuse_other_fields(spec: ModelSpec) -> None:
    """Raise if the model or a layer has a field that is not written out, and that is not its default."""
    for part, fields, where in [
        (spec, _MODEL_FIELDS, "model"),
        *((each, _LAYER_FIELDS, "layers") for each in spec.layers or ()),
    ]:
        for name, info in type(part).model_fields.items():
            value = getattr(part, name)
            if name not in fields and value != info.get_default(call_default_factory=True):
                raise NotWrittenError(
                    f"{where}.{name} cannot be written out: a file of plain PyTorch does not have this option",
                    hint=f"Remove {name}.",
                )


def _model(parts: Parts, groups: Groups) -> str:
    final_norm = "" if parts.final_norm is None else groups.constructor(parts.final_norm)
    final_norm = "" if final_norm == "nn.Identity()" else final_norm
    logits = parts.head.call("logits", x="self.final_norm(x_BTE)" if final_norm else "x_BTE")
    name = next(iter(parts.shared), "")
    modules = [f'"{each}": {groups.constructor(module)}' for each, module in parts.shared.items()]
    modules += [f'"{each}": {groups.owned_constructor(module)}' for each, module in parts.owned.items()]
    logits = logits.replace(TABLE, parts.embedding.calls.get("table", TABLE))
    embedding, embed = _embedding(parts, groups)
    text = fill(
        MODEL,
        final_words="final norm, head" if final_norm else "head",
        embedding=embedding,
        blocks="\n        ".join(construct_blocks([groups.constructor(block) for block in parts.blocks])),
        final_norm=final_norm,
        head=groups.constructor(parts.head),
        sources=sources_text(parts.sources),
        shared_name=name,
        shared=bool(parts.shared),
        modules=", ".join(modules),
        embedded=parts.use(EMBEDDED),
        embed=embed,
        logits=logits,
        context=parts.exchanges,
        ids=parts.use(IDS),
        layer_ids=parts.use(IDS) and not parts.exchanges,
        passes=parts.use('cache["chosen"]'),
        passes_always=any('cache["chosen"]' in part.text for part in walk(parts.blocks[0])),
        embedding_cache="cache.embedding" in embed,
        references="\n        ".join(reference_statements(parts.referenced)),
    )
    text = f"{fill(REFER)}\n\n{text}" if parts.referenced else text
    text = f"{layer_cache(parts.use('.part('))}\n\n{text}" if parts.exchanges else text
    return "\n".join(line for long in typed(text.splitlines()) for line in wrapped(long)) + "\n"


def _embedding(parts: Parts, groups: Groups) -> tuple[str, str]:
    """Return the expressions that construct the embedding and that call it."""
    if not parts.embeds_by_table:
        return groups.constructor(parts.embedding), parts.embedding.call("embed")
    table = 'nn.ModuleDict({"table": nn.Embedding(VOCAB_SIZE, D_MODEL)})'
    return table, 'self.embedding["table"](ids_BT)'


def _recompute(roots: Iterable[Written]) -> set[str]:
    """Return the conditions under which generation must compute all tokens again."""
    result = set()
    for root in roots:
        result |= {root.calls["recompute"]} if "recompute" in root.calls else set()
        result |= _recompute(root.parts.values())
    return result
