"""The weights that written sources declare are read from their constructors, and nothing is executed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptkit.ejection.declared import UnreadableError, declared_weights, difference
from gptkit.ejection.writing import unused_weights, write_source
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from tests.support.random_models import V, named, random_models

FILE = """
WIDTH = 4

class Part(nn.Module):
    def __init__(self, width: int, names: tuple[str, ...] = ("a", "b")) -> None:
        super().__init__()
        self.each = nn.ModuleList(nn.Linear(width, 2 * WIDTH, bias=False) for _ in names)
        if width > WIDTH:
            self.gain = nn.Parameter(torch.ones(width))

class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"wide": Part(6), "narrow": Part(3, names=("a",))})
"""


def test_names_and_shapes_are_read() -> None:
    assert declared_weights(FILE, "GPT") == {
        "parts.wide.gain": (6,),
        "parts.wide.each.0.weight": (8, 6),
        "parts.wide.each.1.weight": (8, 6),
        "parts.narrow.each.0.weight": (8, 3),
    }


@pytest.mark.parametrize(
    "line",
    [
        "open({path!r}, 'w')",
        "__import__('os').system('touch {path}')",
        "self.x = (1).__class__",
        "self.x = torch.load({path!r})",
        "self.__class__ = nn.Linear",
        "for _ in range(10**12): self.x = 1",
        "self.x = [0] * 10**12",
        "self.x = len(list(range(10**10)))",
        "self.x = sum(range(10**12))",
        "self.x = torch.ones(10**12, device='cpu')",
        "self.x = nn.Linear(10**6, 10**6, device='cpu')",
        "self.x = 9**9**9",
        "self.x = GPT()",
    ],
)
def test_other_statements_are_not_executed(line: str, tmp_path: Path) -> None:
    path = tmp_path / "executed"
    source = FILE + f"        {line.format(path=str(path))}\n"
    with pytest.raises(UnreadableError):
        declared_weights(source, "GPT")
    assert not path.exists()


def test_differences_name_the_weights() -> None:
    declared = {"a": (2,), "b": (3,)}
    assert difference(declared, declared) == ""
    assert difference(declared, {"a": (2,)}) == "the files do not have b"
    assert difference({"a": (2,)}, declared) == "the code does not declare b"
    assert difference(declared, {**declared, "b": (4,)}) == "b is [3] in the code and [4] in the files"


@pytest.mark.slow
def test_declared_weights_of_random_models_are_the_built_ones() -> None:
    n_read = 0
    for name, spec in random_models(0):
        with named(name, spec):
            try:
                source = write_source(spec, V, name="random", parameters=0)
            except NotWrittenError:
                continue
            unused = unused_weights(spec, V)
            weights = GPT(spec, V, device="meta").state_dict()
            built = {name: tuple(weight.shape) for name, weight in weights.items() if not name.startswith(unused)}
            assert declared_weights(source, "GPT") == built
            n_read += 1
    assert n_read > 30
