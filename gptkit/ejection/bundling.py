"""Components without a template: the source of their own module, with the values of a built one.

The module is built without storage, to read which attributes, parameters and nested components it has. Nothing of the model
is computed.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from gptkit.core.component import Component
from gptkit.core.failing import INTENTIONAL
from gptkit.ejection.constructing import Copier, refusal
from gptkit.ejection.copying import Copy
from gptkit.ejection.recording import Recorder, watched
from gptkit.ejection.runtime import ATTENTION_ENTRY, BLOCK_ENTRY, FEEDFORWARD_ENTRY
from gptkit.ejection.softmax import SoftmaxMethods
from gptkit.kinds.written import Setting, WritingContext, Written

__all__ = ["KINDS", "bundle"]

_D_IN, _D_OUT = 7919, 7907
"""Sizes of the built module that stand for the sizes of its uses: numbers that occur nowhere else."""
_OTHER_IN, _OTHER_OUT = 7901, 7883
"""Sizes of a second one: an attribute with another value there depends on them."""
_LINEAR = ("weight", "bias", "in_features", "out_features")
"""What the constructor of `nn.Linear` sets."""
_RECORDER = "modules that were built to write a model out"

_EMBEDDING_ENTRY = '''
def forward(self, ids_BT: Tensor, positions_T: Tensor, cache: Any) -> Tensor:
    """Return the vectors of tokens at these positions, (B, T) to (B, T, E)."""
    return self.mixed(ids_BT, Context(positions_T, cache))
'''


def bundle(spec: Component, context: WritingContext, where: Mapping[str, Any]) -> Written:
    """Return a component as a class with the methods of its module.

    Args:
        spec: the component.
        context: its build context.
        where: the arguments of its kind's `written`.

    Raises:
        NotWrittenError: what its module uses cannot be copied; gives the reason.
    """
    if spec.kind not in _WRITERS:
        raise refusal(spec, f"components of kind {spec.kind} are not copied")
    # One for the whole model, since layers may share modules.
    recorder = context.shared.setdefault(_RECORDER, Recorder())
    return _WRITERS[spec.kind](_Writer(spec, context, where, recorder))


class _Writer:
    """One component that is copied."""

    def __init__(self, spec: Component, context: WritingContext, where: Mapping[str, Any], recorder: Recorder) -> None:
        self.spec: Any = spec
        self.context, self.where, self.recorder = context, where, recorder

    def build(self, method: str = "build", **arguments: Any) -> Any:
        """Return the module, without storage."""
        import torch

        copy, context = watched(self.spec, self.context, self.recorder)
        try:
            with torch.device("meta"):
                return getattr(copy, method)(context, **arguments)
        except INTENTIONAL:
            raise
        except (NotImplementedError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise refusal(self.spec, f"its module cannot be built without storage: {reason}") from None

    def copier(self, section: Any, sizes: Mapping[int, str] | None = None) -> Copier:
        return Copier(self.spec, self.context, self.recorder, section, _plain_copy, sizes or {})


def _plain_copy(copier: Copier, module: Any) -> Written:
    """Return the copy of a module that no component built."""
    return Copy(copier, module, ("forward",)).finished()


def _norm(writer: _Writer) -> Written:
    module, other = writer.build(dim=_D_IN), writer.build(dim=_OTHER_IN)
    copy = Copy(writer.copier("norm", {_D_IN: "$DIM"}), module, ("forward",), other=other)
    copy.settings["DIM"] = Setting(writer.where["dim"])
    return copy.finished()


def _activation(writer: _Writer) -> Written:
    copy = Copy(writer.copier("feedforward"), writer.build(), ("forward",))
    return copy.finished(calls={"apply": "self.activation($x)"})


def _linear(writer: _Writer) -> Written:
    module = writer.build(d_in=_D_IN, d_out=_D_OUT, bias=True)
    other = writer.build(d_in=_OTHER_IN, d_out=_OTHER_OUT, bias=True)
    sizes = {_D_IN: "d_in", _D_OUT: "d_out"}
    copy = Copy(writer.copier("linear", sizes), module, ("forward",), inherited=_LINEAR, other=other)
    if copy.parts and not all(part.is_function for part in copy.parts.values()):
        raise refusal(writer.spec, "its module has modules of its own")
    values = {
        name: ast.literal_eval(copy.settings[text[1:]].value)
        for name, text in copy.assignments.items()
        if text[1:] in copy.settings
    }
    # Arguments that are None may be omitted in calls.
    ordered = sorted(values.items(), key=lambda item: item[1] is None)
    options = "".join(f", {name}: {_type(value)}" for name, value in ordered)
    lines = [
        f"class {copy.name}(nn.Linear):",
        *_docstring(writer.spec, copy.name),
        "",
        f"    def __init__(self, d_in: int, d_out: int{options}, bias: bool = True) -> None:",
        "        super().__init__(d_in, d_out, bias)",
        *(f"        self.{name} = {name if name in values else text}" for name, text in copy.assignments.items()),
    ]
    methods = "".join(f"\n{textwrap.indent(method.rstrip(), '    ')}\n" for method in copy.methods.values())
    given = "".join(f", {name}={value!r}" for name, value in values.items())
    call = f"{copy.name}($d_in, $d_out{given}$bias)"
    fields = [name for name in type(writer.spec).model_fields if name != "name"]
    return Written(
        copy.name,
        "\n".join(lines) + "\n" + methods,
        parts=copy.parts,
        calls={"construct": call},
        section="linear",
        fields=fields,
        copied=True,
    )


def _position(writer: _Writer) -> Written:
    spec, heads = writer.spec, writer.where["heads"]
    if heads is None:
        module = writer.build("build_embedding")
        copy = Copy(writer.copier("position"), module, ("embed",))
        return copy.finished(calls={"embedded": "self.position.embed($x, positions_T)"})
    module = writer.build(heads=heads)
    hooks = [hook for hook in ("rotate", "bias", "content_bias", "value_bias") if hook in spec.uses]
    if not hooks:
        raise refusal(spec, "it has no relative part")
    keys = "positions_T, torch.arange($n_keys, device=positions_T.device)"
    prepared = "self.position.prepare(positions_T)"
    texts = {
        "rotate": ("both", f"self.position.rotate($q, $k, {prepared})"),
        "bias": ("bias", f"self.position.bias({keys})"),
        "content_bias": ("content", f"self.position.content_bias($q, $k, {keys})"),
        "value_bias": ("values", f"self.position.value_bias($weights, {keys})"),
    }
    roots = [*hooks, *(["prepare"] if "rotate" in hooks else [])]
    copy = Copy(writer.copier("position"), module, tuple(roots))
    return copy.finished(calls=dict(texts[hook] for hook in hooks))


def _attention(writer: _Writer) -> Written:
    from gptkit.nn.attention.softmax import SoftmaxAttention

    module, copier = writer.build(), writer.copier("attention")
    templates: Mapping[str, str] = {}
    methods = None
    if isinstance(module, SoftmaxAttention):
        methods = SoftmaxMethods(module, copier)
        templates = methods.templates
    copy = Copy(copier, module, ("forward",), templates=templates, skipped=frozenset({"position"}), with_context=True)
    calls = _own_state(writer, copy)
    if methods is not None:
        copy.settings |= {key: value for key, value in methods.settings.items() if key not in copy.settings}
        copy.parts |= methods.parts
        if methods.position:
            copy.assignments["position"] = "$position"
    return copy.finished(ATTENTION_ENTRY, calls=calls)


def _feedforward(writer: _Writer) -> Written:
    copy = Copy(writer.copier("feedforward"), writer.build(), ("forward",), with_context=True)
    if copy.drop_context():
        return copy.finished()
    calls = {"apply": "self.feedforward($x, positions_T, cache)", **_own_state(writer, copy)}
    return copy.finished(FEEDFORWARD_ENTRY, calls=calls)


def _router(writer: _Writer) -> Written:
    copy = Copy(writer.copier("feedforward"), writer.build(**writer.where), ("forward",), with_context=True)
    if not copy.drop_context():
        raise refusal(writer.spec, "its module reads the context of the call")
    return copy.finished()


def _block(writer: _Writer) -> Written:
    copy = Copy(writer.copier("block"), writer.build(), ("forward",), with_context=True)
    copy.needs_context = True
    return copy.finished(BLOCK_ENTRY, calls=_own_state(writer, copy))


def _embedding(writer: _Writer) -> Written:
    module = writer.build()
    copy = Copy(writer.copier("embedding"), module, ("forward",), with_context=True)
    table = next((name for name, parameter in module.named_parameters() if parameter is module.table_VE), None)
    if table is None:
        raise refusal(writer.spec, "its module does not have its table as a parameter")
    calls = {"table": f"self.embedding.{table}", "embed": "self.embedding(ids_BT)"}
    calls |= _own_state(writer, copy)
    if copy.drop_context():
        return copy.finished(calls=calls)
    calls["embed"] = "self.embedding(ids_BT, positions_T, cache.embedding)"
    return copy.finished(_EMBEDDING_ENTRY.strip("\n"), calls=calls)


def _own_state(writer: _Writer, copy: Copy) -> dict[str, str]:
    """Return the number of tensors that a module keeps of earlier tokens as a call; empty without a state of its own.

    The copied methods name this number, or those of several states, where they ask for the state.

    Raises:
        NotWrittenError: what it keeps grows with the tokens, and is not the keys and values of `SoftmaxAttention`.
    """
    import torch

    from gptkit.nn.attention.softmax import SoftmaxAttention
    from gptkit.nn.cache.allocation import Allocation
    from gptkit.nn.cache.composite import CompositeState
    from gptkit.nn.cache.recurrent import RecurrentState
    from gptkit.nn.cache.state import Stateful

    module = copy.module
    if not isinstance(module, Stateful) or type(module).new_state in (Stateful.new_state, SoftmaxAttention.new_state):
        return {}
    state = module.new_state(Allocation(batch=1, capacity=1, dtype=torch.float32, device=torch.device("meta")))
    if isinstance(state, CompositeState):
        sizes = {name: _n_tensors(part) for name, part in state.parts.items()}
        # Entries of a layer's cache are named by the module, those of keys and values by their number.
        if None in sizes.values() or list(sizes.values()).count(0) > 1:
            raise refusal(writer.spec, "what its module keeps of earlier tokens grows with them, in a form of its own")
        return _named(copy, f"0, {sizes!r}", {"states": str(len(sizes))})
    if state is None or (isinstance(module, SoftmaxAttention) and not isinstance(state, RecurrentState)):
        return {}
    if not isinstance(state, RecurrentState):
        raise refusal(writer.spec, "what its module keeps of earlier tokens grows with them, in a form of its own")
    n_tensors = len(state.tensors or ())
    return _named(copy, str(n_tensors), {"state": str(n_tensors)})


def _n_tensors(state: Any) -> int | None:
    """Return the number of tensors of fixed size that a part of a state has: 0 for keys and values, None for other forms."""
    from gptkit.nn.cache.recurrent import RecurrentState
    from gptkit.nn.cache.state import TokenState

    if isinstance(state, TokenState):
        return 0
    return len(state.tensors or ()) if isinstance(state, RecurrentState) else None


def _named(copy: Copy, form: str, calls: dict[str, str]) -> dict[str, str]:
    """State the form of the module's state where its copied methods ask for it, and return the calls."""
    for name, method in copy.methods.items():
        copy.methods[name] = method.replace("forward.state(self)", f"forward.state(self, {form})")
    return calls


def _head(writer: _Writer) -> Written:
    import torch

    with torch.device("meta"):
        embedding = writer.where["embedding"].build(writer.context.replace(layer=None, shared={}))
    module = writer.build(embedding=embedding)
    if module.tied_weights:
        raise refusal(writer.spec, "its module shares a matrix with the embedding")
    copy = Copy(writer.copier("model"), module, ("forward",), with_context=True)
    if not copy.drop_context():
        raise refusal(writer.spec, "its module reads the context of the call")
    return copy.finished(calls={"logits": "self.head($x)"})


_WRITERS: Mapping[str, Callable[[_Writer], Written]] = {
    "norm": _norm,
    "activation": _activation,
    "linear": _linear,
    "position": _position,
    "attention": _attention,
    "feedforward": _feedforward,
    "router": _router,
    "block": _block,
    "embedding": _embedding,
    "head": _head,
}
KINDS = frozenset(_WRITERS)
"""Kinds whose components can be copied."""


def _docstring(spec: Component, name: str) -> list[str]:
    summary = (inspect.getdoc(type(spec)) or name).splitlines()[0]
    summary = re.sub(r'\\|"""|\$', "", summary)
    return textwrap.wrap(f'"""{summary}"""', 96, initial_indent="    ", subsequent_indent="    ")


def _type(value: Any) -> str:
    return "None = None" if value is None else type(value).__name__
