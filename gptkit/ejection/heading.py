"""The first lines of a written file: its name, the letters of its shapes, and its constants."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from gptkit.core.spec import shortened
from gptkit.ejection.groups import Constant, number
from gptkit.ejection.lines import LINE, wrapped
from gptkit.kinds.written import Section

__all__ = ["printable", "settings_source", "shapes"]

_LETTERS = {
    "C": "C latent or convolved features",
    "F": "F hidden features",
    "G": "G groups",
    "I": "I inputs",
    "K": "K experts of a token",
    "L": "L layers",
    "M": "M tokens of an expert",
    "N": "N tokens of all rows",
    "P": "P features of a layer's input",
    "R": "R rotated features",
    "U": "U unrotated ones",
    "X": "X experts",
    "V": "V token ids",
    "Y": "Y features of a branch's input",
}
_ORDER: tuple[Section, ...] = ("linear", "embedding", "attention", "position", "feedforward", "norm", "block", "model")
"""Order of the constants, by the section that uses them."""


def settings_source(fixed: dict[str, int], constants: Sequence[Constant]) -> str:
    comments = {
        "VOCAB_SIZE": "number of token ids",
        "CONTEXT_LENGTH": "longest text, in tokens",
        "D_MODEL": "features of a token (the width of the model)",
        "N_LAYERS": "number of blocks",
    }
    ordered = sorted(constants, key=lambda constant: _ORDER.index(constant.section))
    rows = [(name, value, comments[name]) for name, value in fixed.items()]
    rows += [(constant.name, constant.value, constant.comment) for constant in ordered]
    return "".join(_constant(f"{name} = {number(value)}", comment) for name, value, comment in rows)


def _constant(code: str, comment: str) -> str:
    """Return a constant with its comment beside it, or above it where a line is too short for both."""
    line = f"{code}  # {comment}" if comment else code
    if len(line) <= LINE:
        return f"{line}\n"
    above = textwrap.wrap(comment, LINE, initial_indent="# ", subsequent_indent="# ")
    return "\n".join([*above, *wrapped(code)]) + "\n"


def printable(text: str) -> str:
    """Return a text without what would end a docstring or a comment."""
    return shortened(re.sub(r"[^\w .,+()-]", "-", text), 40)


def shapes(body: str) -> str:
    """Describe the letters of the shapes that are in the file."""
    used = {letter for suffix in re.findall(r"\b[a-z]\w*_([A-Z0-9]{1,5})\b", body) for letter in suffix}
    letters = dict(_LETTERS)
    if "N_EXPERTS" not in body:
        letters |= {"X": "X features of all heads", "N": "N features of a state"}
        letters["X"] += ", or of a projection" if "added_BTX: Tensor" in body else ""
    if "STREAMS" in body:
        letters["N"] = "N streams" + (", or tokens of all rows" if "N_EXPERTS" in body else "")
    if "n_blocks" in body:
        letters["M"] += " or block"
        letters["N"] = letters["N"].replace(",", ", blocks,", 1)
    words = [words for letter, words in letters.items() if letter in used]
    if re.search(r"_BT?HKV?\b", body):
        words.append("in recurrences K features of a key, V of a value")
    return textwrap.fill(", ".join(words) + ".", LINE)
