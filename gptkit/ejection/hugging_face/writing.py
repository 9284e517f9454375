"""A model's spec as configuration and code for transformers, which needs no gptkit.

Nothing here imports torch, and the written code is never executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from gptkit.ejection.groups import Groups, number
from gptkit.ejection.heading import printable, settings_source, shapes
from gptkit.ejection.hugging_face.batched import embedded
from gptkit.ejection.hugging_face.contract import Contract, contract_of
from gptkit.ejection.hugging_face.head import Head, head_of
from gptkit.ejection.hugging_face.layers import Layers, layers_of
from gptkit.ejection.hugging_face.models import CAUSAL_MODEL, MODEL
from gptkit.ejection.hugging_face.texts import ATTENTION_FUNCTION, CONFIGURATION, HEADER, LAYER_CACHE
from gptkit.ejection.lines import wrapped
from gptkit.ejection.references import REFER, reference_statements
from gptkit.ejection.writing import (
    TABLE,
    TITLES,
    Parts,
    construct_blocks,
    exchanges,
    fixed_sizes,
    in_reading_order,
    refuse_other_fields,
    written_parts,
)
from gptkit.kinds.written import NotWrittenError, Section, Written, fill
from gptkit.model.spec import ModelSpec

__all__ = ["ARCHITECTURE", "CONFIGURATION_FILE", "MODELING_FILE", "MODEL_TYPE", "Code", "write_code"]

CONFIGURATION_FILE, MODELING_FILE = "configuration_gptkit.py", "modeling_gptkit.py"
ARCHITECTURE, MODEL_TYPE = "GptkitForCausalLM", "gptkit"

GENERATOR = "written by `gptkit export`"


@dataclass(frozen=True)
class Code:
    """A model written out for transformers.

    Attributes:
        configuration: the source of the configuration's class.
        modeling: the source of the model.
        values: the values of config.json.
        layers, head: by which weights are named (`weights.external_weights`).
        contract: whether the code meets the contract of vLLM's Transformers backend.
    """

    configuration: str
    modeling: str
    values: Mapping[str, Any]
    layers: Layers
    head: Head
    contract: Contract


def write_code(spec: ModelSpec, vocab_size: int, *, name: str, parameters: int) -> Code:
    """Return the code.

    Args:
        spec: the model.
        vocab_size: number of token ids.
        name: what the code calls the model.
        parameters: number of parameters.

    Raises:
        NotWrittenError: a component cannot be written out; gives the reason.
    """
    refuse_other_fields(spec)
    parts = written_parts(spec, vocab_size)
    layers = layers_of(
        parts.blocks,
        parts.embedding,
        sources=parts.sources,
        shared=parts.shared,
        packed=any(each.packs for each in parts.referenced),
    )
    d_embedding = getattr(spec.embedding, "d_embedding", None) or spec.d_model
    head = head_of(spec.head, parts.head, d_embedding, spec.d_model)
    contract = contract_of(layers, head)
    embedding = embedded(parts.embedding)
    _require_table(spec, embedding)
    fixed = fixed_sizes(spec, vocab_size)
    roots = [*parts.linears, embedding, *layers.shared.values(), *layers.blocks]
    roots += [] if parts.final_norm is None else [parts.final_norm]
    groups = Groups(fixed, *roots)
    base = _base_model(embedding, layers, groups, parts)
    sections: dict[str, list[str]] = {section: [] for section in get_args(Section)}
    for section, source in groups.sources():
        sections[section].append(source)
    sections["attention"] = [*_cache(layers, embedding, sections), *sections["attention"]]
    sections["model"] += [
        *([fill(REFER)] if parts.referenced else []),
        base,
        _causal_model(head, contract, d_embedding, spec.d_model, _table(embedding)),
    ]
    body = "\n\n".join(
        f"# -------- {TITLES[section]} --------\n" + "\n\n".join(sections[section])
        for section in in_reading_order(sections)
        if sections[section]
    )
    body = body if embedding.copied else _with_vocabulary(body)
    constants = settings_source(
        {key: value for key, value in fixed.items() if re.search(rf"\b{key}\b", body)}, groups.constants()
    )
    header = fill(
        HEADER,
        name=printable(name),
        generator=GENERATOR,
        parameters=f"{parameters:,}",
        shapes=shapes(body),
        functional="F." in body,
        math="math." in body,
        functional_call="functional_call(" in body,
        entries=layers.counts_entries,
        several=layers.has_parts,
        static_layer="" if layers.interface else ", StaticLayer",
        interface=layers.interface,
        masks=", ".join(sorted(_mask_functions(layers).values())) if layers.interface else "",
    )
    values = _values(spec, fixed, layers, head, d_embedding)
    return Code(
        configuration=_configuration(printable(name), values, contract),
        modeling=f"{header}\n# -------- Settings --------\n{constants}\n\n{body}",
        values=values,
        layers=layers,
        head=head,
        contract=contract,
    )


def _require_table(spec: ModelSpec, embedding: Written) -> None:
    """Raise if an embedding has no table of tokens."""
    tabled = (
        embedding.calls.get("table", "").endswith(".weight") or "self.table = nn.Embedding(VOCAB_SIZE," in embedding.text
    )
    if not tabled:
        raise NotWrittenError(
            f"embedding {spec.embedding.name!r} cannot be written for transformers, which requires a table of tokens",
            hint="Choose embedding: token.",
        )


def _table(embedding: Written) -> str:
    """Return the module of the table, from the model."""
    return embedding.calls.get("table", TABLE).removeprefix("self.").removesuffix(".weight")


def _needs_context(layers: Layers, embedding: Written) -> bool:
    return any(exchanges(part) for part in (embedding, *layers.blocks))


def _cache(layers: Layers, embedding: Written, sections: Mapping[str, list[str]]) -> list[str]:
    recurrent, context = layers.recurrent, _needs_context(layers, embedding)
    written = "\n".join(text for texts in sections.values() for text in texts)
    parameters = ", padding_BT1: Tensor | None, first_BT: Tensor | None" if recurrent else ""
    cache = fill(
        LAYER_CACHE,
        interface=layers.interface,
        recurrent=recurrent,
        attention=not layers.counted,
        bare=layers.bare,
        own=layers.own,
        reused=bool(layers.sources),
        layer_inputs=bool(layers.shared),
        more_parameters=parameters + (", shared: dict[Any, Any]" if context else ""),
        context=context,
        entries=layers.counts_entries,
        number="entries: Iterator[int]" if layers.counts_entries else "layer: int",
        more="cache.append_more(" in written,
        several=layers.has_parts,
        key_positions="cache.key_positions" in written,
    )
    texts = [cache, ATTENTION_FUNCTION.strip("\n") + "\n"] if layers.interface else [cache]
    return [_wrapped(text) for text in texts]


def _base_model(embedding: Written, layers: Layers, groups: Groups, parts: Parts) -> str:
    final, context = parts.final_norm, _needs_context(layers, embedding)
    final_norm = "" if final is None else groups.constructor(final)
    final_norm = "" if final_norm == "nn.Identity()" else final_norm
    constructors = [groups.constructor(block) for block in layers.blocks]
    masks = _mask_functions(layers)
    classes = dict.fromkeys(constructor.partition("(")[0] for constructor in constructors)
    plain = "        return x_BTE\n" in embedding.text and "x_BTE =" not in embedding.text
    positions = "positions_BT" in embedding.text.partition("def forward")[2].partition("\n")[0]
    recurrent, entry = layers.recurrent, "entries" if layers.counts_entries else "layer"
    passes = bool(layers.sources or layers.shared)
    values = '{"ids": input_ids}'
    shared = "self.starts(keys_BS, n_past, attention_mask)" if recurrent else "(keys_BS[:, None, None],)"
    if context:
        shared = f"(*{shared}, {values})" if recurrent else f"(keys_BS[:, None, None], {values})"
    kept = "past_key_values, entries" if layers.embedding_entries else "None, 0"
    own = embedding.calls["embed"].replace("ids_BT", "input_ids").replace("positions_T", "position_ids[:, None]")
    own = own.replace("cache.embedding", f"LayerCache({kept}, *shared)").removeprefix("self.embedding(")[:-1]
    sources = "".join(source for _, source in groups.sources())
    text = fill(
        MODEL,
        selection_bias="self.selection_bias = " in sources,
        final_words=" and final norm" if final_norm else "",
        no_split=", ".join(f'"{name}"' for name in classes),
        interface=layers.interface,
        recurrent=recurrent,
        counted=layers.counted,
        entries=layers.counts_entries,
        entry=entry,
        passes=passes,
        by_layer=passes or not layers.counts_entries,
        sources=", ".join(f"{layer}: {source}" for layer, source in sorted(layers.sources.items())),
        layer_inputs=next(iter(layers.shared), ""),
        shared_modules=", ".join(f'"{name}": {groups.constructor(each)}' for name, each in layers.shared.items()),
        full_graph=str(".nonzero(" not in sources),
        embedding=groups.constructor(embedding) if embedding.copied else _sized(groups.constructor(embedding)),
        table=_table(embedding),
        needs_ids=embedding.copied or layers.reads_ids,
        more_shared=f", {values}" if context else "",
        references="\n        ".join(reference_statements(parts.referenced)),
        blocks="\n        ".join(construct_blocks(constructors)),
        final_norm=final_norm,
        embed=own if embedding.copied else "" if plain else "x_BTE, position_ids" if positions else "x_BTE",
        shared=shared,
        given_masks=", ".join(
            f'{window}: mask["{"full_attention" if window == "None" else "sliding_attention"}"]' for window in masks
        ),
        made_masks=", ".join(f"{window}: {function}(**arguments)" for window, function in masks.items()),
    )
    return _wrapped(text)


def _mask_functions(layers: Layers) -> dict[str, str]:
    """Return the functions of transformers that make the masks, by the expression of the window."""
    functions = {}
    if None in layers.windows:
        functions["None"] = "create_causal_mask"
    if any(window is not None for window in layers.windows):
        functions["self.config.sliding_window"] = "create_sliding_window_causal_mask"
    return functions


def _causal_model(head: Head, contract: Contract, d_embedding: int, d_model: int, table: str) -> str:
    width = "D_MODEL" if d_embedding == d_model else "D_EMBEDDING"
    text = fill(
        CAUSAL_MODEL,
        tied=head.tied,
        table=table,
        plan=bool(contract.plan),
        project=head.d_head is not None,
        d_head=width if head.tied else "D_MODEL",
        no_bias="" if head.bias else ", bias=False",
        scale="" if head.scale == 1 else number(head.scale),
        bounded=head.bounded,
    )
    return _wrapped(text)


def _wrapped(text: str) -> str:
    return "\n".join(line for long in text.splitlines() for line in wrapped(long)) + "\n"


def _with_vocabulary(body: str) -> str:
    """Take the size of the vocabulary from the configuration, which transformers changes when it adds tokens."""
    signature = re.compile(r"(class Embedding\(nn\.Module\):\n.*?def __init__\(\s*self)", re.DOTALL)
    body = signature.sub(r"\1, vocab_size: int", body, count=1)
    return body.replace("self.table = nn.Embedding(VOCAB_SIZE,", "self.table = nn.Embedding(vocab_size,", 1)


def _sized(constructor: str) -> str:
    name, _, arguments = constructor.partition("(")
    return f"{name}(config.vocab_size{', ' if arguments != ')' else ''}{arguments}"


def _values(spec: ModelSpec, fixed: Mapping[str, int], layers: Layers, head: Head, d_embedding: int) -> dict[str, Any]:
    """Return the values of config.json that the configuration's class has as arguments."""
    values: dict[str, Any] = {
        "vocab_size": fixed["VOCAB_SIZE"],
        "hidden_size": spec.d_model,
        "num_hidden_layers": len(layers.types),
        "max_position_embeddings": spec.context_length,
        "tie_word_embeddings": head.tied,
        "layer_types": layers.types,
    }
    heads = [layers.heads(index) for index, attention in enumerate(layers.attentions) if attention is not None]
    first = next((each for each in heads if each is not None), None)
    if first is not None:
        values |= dict(zip(("num_attention_heads", "num_key_value_heads", "head_dim"), first, strict=True))
    window = next((window for window in layers.windows if window is not None), None)
    if layers.interface and window is not None:
        values["sliding_window"] = window
    if d_embedding != spec.d_model:
        values["embedding_size"] = d_embedding
    if head.scale != 1:
        values["logit_scale"] = head.scale
    if head.softcap is not None:
        values["final_logit_softcapping"] = head.softcap
    return values


def _configuration(name: str, values: Mapping[str, Any], contract: Contract) -> str:
    tied = "tie_word_embeddings"
    text = fill(
        CONFIGURATION,
        name=name,
        generator=GENERATOR,
        plan="\n        ".join(f'"{layer}": "{how}",' for layer, how in contract.plan.items()) if contract.plan else "",
        fields="\n        ".join(
            f"{key}={'None' if key == 'layer_types' else repr(value)}," for key, value in values.items()
        ),
        assignments="\n        ".join(f"self.{key} = {key}" for key in values if key != tied),
    )
    return text.replace("super().__init__(**others)", f"super().__init__({tied}={tied}, **others)")
