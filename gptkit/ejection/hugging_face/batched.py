"""Templates of plain PyTorch, changed for batches with padding and the caches of transformers.

A plain template has the positions of one text, (T,), and a dictionary as cache. Here each row has its own positions,
(B, 1, T), those of the keys are given, (B, 1, 1, S), and the cache is a `LayerCache` (texts.py). The changes are
replacements in the source that follow the names which templates use for these (docs/generated-code.md); a template that
still has a plain name after them is refused.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection

from gptkit.ejection.runtime import batched_context
from gptkit.kinds.written import NotWrittenError, Written

__all__ = ["batched", "embedded", "mapped"]

_PLAIN = re.compile(
    r"\b(?:positions_T|n_keys|append_to|keys_S)\b|dict\[str, Tensor\]|\bcache(?:\.get\(|\[)\"(?P<kept>\w+)\""
)
_KEPT = {"state", "inputs"}
"""Names under which every template may keep tensors."""
_LAST = re.compile(r'( *)\w+ = cache\.get\("(\w+)", .+\)\n')

_KEYS = "keys_B11S"

_REPLACED: tuple[tuple[str, str], ...] = (
    # Positions have the dimensions (B, 1, T), those of keys (B, 1, 1, S).
    (r"\bpositions_T\[:, None\] == 0", "positions_B1T[:, 0, :, None] == 0"),
    (r"(\b\w*_T\)?)\[:, None\]", r"\1[..., None]"),
    (r" *keys_S = torch\.arange\(n_keys, device=positions_T\.device\)\n", ""),
    (r"\bk_BHSD\.shape\[2\]", f"cache.{_KEYS}"),
    (r"\bmask_TS\[None, None\]", "mask_TS"),
    (r"\bn_keys: int\b", f"{_KEYS}: Tensor"),
    (r"\b(n_keys|keys_S)\b", _KEYS),
    (r"\b(positions|steps)_T\b", r"\1_B1T"),
    (r"\b(distance|mask|steps|range)_TS\b", r"\1_B1TS"),
    (r"\(T,\) to \(T, 1\)", "(B, 1, T) to (B, 1, T, 1)"),
    (r"(?<=[ (])\(T, S\)", "(B, 1, T, S)"),
    (r"\(H, (T|1), S\)", r"(B, H, \1, S)"),
    # Tables of distances, looked up for each row.
    (r"\bvalue_term\(weights_BHTS, positions_B1T\)", f"value_term(weights_BHTS, positions_B1T, cache.{_KEYS})"),
    (
        r"\bvalue_term\(self, weights_BHTS: Tensor, positions_B1T: Tensor\)",
        f"value_term(self, weights_BHTS: Tensor, positions_B1T: Tensor, {_KEYS}: Tensor)",
    ),
    (r"self\.distances\(positions_B1T, weights_BHTS\.shape\[-1\]\)", f"self.distances(positions_B1T, {_KEYS})"),
    (r"(self\.(?:keys|values)\(self\.distances\(positions_B1T, \w+\)\))", r"\1[:, 0]"),
    (r"\bvectors_TSD\b", "vectors_BTSD"),
    (r",tsd->", ",btsd->"),
    (r"(self\.table\(range_B1TS\))\.movedim\(-1, 0\)", r"\1[:, 0].movedim(-1, 1)"),
    # The cache.
    (r"cache: dict\[str, Tensor\]", "cache: LayerCache"),
    (r'append_to\(cache, "keys", (\w+)\), append_to\(cache, "values", (\w+)\)', r"cache.append(\1, \2)"),
    (
        r'( *)(latent_\w+) = append_to\(cache, "latents", (.+)\)\n *(k_\w+) = append_to\(cache, "keys", (\w+)\)',
        r"\1\2, \4 = cache.append(\3, \5)",
    ),
    (r"\$append_to\(cache, \"index_keys\", (\w+)\)", r"cache.append_more(\1)"),
    (r'cache\["keys"\], cache\["values"\]', "cache.source.appended"),
    (r'cache\["layer_input"\]', "cache.layer_input"),
    (r'cache\["chosen"\]', 'cache.shared["chosen"]'),
    # Terms and factors in fp32 do not change the element type of a model.
    (r"(weights_BHTS = .+\.softmax\(dim=-1\)(?:\[\.\.\., :-1\])?)\n", r"\1.to(v_BHSD.dtype)\n"),
    (r"( q_\w+ = )(.+ \* \$\w*temperature\(.+\))\n", r"\1(\2).to(x_BTE.dtype)\n"),
    # Recurrent states begin at the first token of a row; convolutions see zeros before it.
    (
        r"( *)(state_\w+) = (cache\.get\(\"state\".+\n(?: *outputs.*\n)? *for t in range\(.*\):\n)",
        r"\1\2 = \3\1    \2 = cache.started(\2, t)\n",
    ),
    (r"(conv: nn\.Conv1d, cache: LayerCache\) -> Tensor:\n.*\n)", r"\1    x_BTC = cache.without_padding(x_BTC)\n"),
)
"""Pairs of patterns and replacements, in the order in which they are applied."""

_COPIED: tuple[tuple[str, str], ...] = (
    # What templates call of copied modules, which have positions as (B, T), and (B, S) for keys.
    (
        r"positions_T, torch\.arange\((?:k_BHSD\.shape\[2\]|n_keys), device=positions_T\.device\)",
        "positions_B1T[:, 0], cache.key_positions",
    ),
    (r"\.prepare\(positions_T\)", ".prepare(positions_B1T[:, 0])"),
)

_TEMPLATES = ("__init__", "forward", "attend", "rotate", "score")
"""Methods of copied classes that are not copies."""

_EMBEDDED: tuple[tuple[str, str], ...] = (
    (r"(\b\w*_T\)?)\[:, None\]", r"\1[..., None]"),
    (r"\bpositions_T\b", "positions_BT"),
    (r"\(T,\) to \(T, E\)", "(B, T) to (B, T, E)"),
    (r"( x_BTE = x_BTE \+ \$\w+\(.+\))\n", r"\1.to(x_BTE.dtype)\n"),
)
_GIVEN_VECTORS: tuple[tuple[str, str], ...] = (
    # The vectors of tokens are given, so that they may come from another source than the table.
    (r"\bids_BT: Tensor\b", "x_BTE: Tensor"),
    (r"\(B, T\) to \(B, T, E\)\.\"\"\"\n( +)x_BTE = self\.table\(ids_BT\)\n", '(B, T, D) to (B, T, E)."""\n'),
    (r"return self\.table\(ids_BT\)", "return x_BTE"),
)


def mapped(written: Written, change: Callable[[Written], Written], done: dict[int, Written] | None = None) -> Written:
    """Return a component with a change applied to it and to all its parts; a part that is used twice remains one."""
    done = {} if done is None else done
    if id(written) not in done:
        parts = {name: mapped(part, change, done) for name, part in written.parts.items()}
        done[id(written)] = change(dataclasses.replace(written, parts=parts))
    return done[id(written)]


def batched(written: Written) -> Written:
    """Return a part of a block for batches with padding and the caches of transformers."""
    if written.copied:
        return batched_context() if written.name == "Context" else _copy(written)
    text, kept = _with_last_vectors(_replaced(written.text, (*_COPIED, *_REPLACED)))
    parts = {name: part for name, part in written.parts.items() if part.name != "append_to"}
    return _checked(dataclasses.replace(written, text=text, parts=parts), kept)


def _copy(written: Written) -> Written:
    """Return a copied class or function: names in its own methods have no meaning here, except that of positions."""
    start, *methods = re.split(r"(?m)(?=^    def )", written.text)
    texts = [_replaced(method, (*_COPIED, *_REPLACED)) if _is_template(method) else method for method in methods]
    text = re.sub(r"\bpositions_T\b", "positions_B1T", start + "".join(texts))
    return dataclasses.replace(written, text=text)


def embedded(written: Written) -> Written:
    """Return an embedding for batches with padding: it receives the rows of its table.

    A copied one receives the ids of tokens, and so do embeddings within it.
    """

    def change(part: Written) -> Written:
        if part.copied:
            return batched(part)
        pairs = _EMBEDDED if written.copied else (*_EMBEDDED, *_GIVEN_VECTORS)
        return _checked(dataclasses.replace(part, text=_replaced(part.text, pairs)))

    return mapped(written, change)


def _with_last_vectors(text: str) -> tuple[str, set[str]]:
    """Return a template in which padding is zeros where it keeps the vectors of the last token, and the names of these.

    Such a template reads ``last = cache.get("name", …)`` and stores ``cache["name"] = x[:, -1:]``, or what
    ``short_convolution(x, …)``, or ``self.k_conv(x, …)``, returns beside its result.
    """
    names: set[str] = set()

    def zeroed(match: re.Match[str]) -> str:
        indent, name = match.groups()
        stored = re.search(
            rf'cache\["{name}"\] = (?:(?=\w+\[:, -1:\]\n)|(?:\$short_convolution|self\.\w+_conv)\()(\w+)', text
        )
        if stored is None or name in _KEPT:
            return match[0]
        names.add(name)
        return f"{indent}{stored[1]} = cache.without_padding({stored[1]})\n{match[0]}"

    return _LAST.sub(zeroed, text), names


def _is_template(method: str) -> bool:
    name = method.lstrip().removeprefix("def ").partition("(")[0]
    return name in _TEMPLATES and (name != "forward" or "return self.mixed(" in method or "context.returned(" in method)


def _replaced(text: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in pairs:
        text = re.sub(pattern, replacement, text)
    return text


def _checked(written: Written, kept: Collection[str] = ()) -> Written:
    """Raise if a template has a plain name, or keeps tensors under others than the given names."""
    for plain in _PLAIN.finditer(written.text):
        if plain["kept"] is None or plain["kept"] not in {*_KEPT, *kept}:
            closing = "" if plain["kept"] is None else ", …)" if "(" in plain[0] else "]"
            raise NotWrittenError(
                f"{written.section} {written.name} cannot be written for transformers: its template uses "
                f"{plain[0]}{closing} in a way that batches with padding do not have",
                hint="Export to torch-export or onnx, or write one file of PyTorch: gptkit eject. The component's author "
                "can use the names of docs/generated-code.md.",
            )
    return written
