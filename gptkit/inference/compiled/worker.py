"""Program that compiles a traced decode step; the host runs it as a process of low priority.

    python -m gptkit.inference.compiled.worker DIRECTORY THREADS

It reads ``graph.pt2`` and ``sources.json`` in the directory, and writes ``step.so`` and ``inputs.json`` there, and
``step.json`` if the step calls operators that the library has no code for, such as those that a plugin defines in Python.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["compile_step", "main", "prepare"]


def compile_step(directory: Path, threads: int) -> None:
    """Compile ``graph.pt2`` to ``step.so``; `inputs.json` names the inputs that the function takes.

    Args:
        directory: where the files are.
        threads: number of threads that the compiled loops use.
    """
    import torch

    from gptkit.inference.compiled.packing import define_operators

    torch.set_num_threads(threads)
    described = json.loads((directory / "sources.json").read_text(encoding="utf-8"))
    define_operators()
    for name in described["modules"]:
        importlib.import_module(name)  # defines operators that the graph may contain
    program = torch.export.load(directory / "graph.pt2")
    module, kinds = prepare(program, described["inputs"])
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    options = {
        "size_asserts": False,
        "aot_inductor.output_path": str(directory / "step.so"),
        # Loops over fewer elements than this are faster in one thread: a step consists of many short ones.
        "cpp.min_chunk_size": 8192,
        # A product and a sum are one instruction: the loops over weights in few bits are limited by their instructions.
        "cpp.enable_floating_point_contract_flag": "fast",
    }
    built = torch._inductor.aot_compile(module, tuple(node.meta["val"] for node in inputs), options=options)
    if Path(str(built)) != directory / "step.so":
        shutil.copyfile(str(built), directory / "step.so")
    for nodes in directory.glob("*.wrapper.json"):
        # The library finds the operators that it has no code for by a file of its own name.
        nodes.rename(directory / "step.json")
    (directory / "inputs.json").write_text(json.dumps(kinds), encoding="utf-8")


def prepare(program: Any, sources: Sequence[Sequence[Any]]) -> tuple[Any, list[Sequence[Any]]]:
    """Replace products and store operands in a traced step, for inductor.

    Args:
        program: the exported program; its graph is changed.
        sources: the source of each of its inputs.

    Returns:
        The graph's module, and the source of each of its inputs: unused ones are removed, other forms of weights added.
    """
    from gptkit.inference.compiled.int4_product import replace_int4
    from gptkit.inference.compiled.packing import replace_grouped, replace_linears
    from gptkit.inference.compiled.storing import store_operands

    module, signature = program.graph_module, program.graph_signature
    by_name: dict[str, Sequence[Any]] = dict(zip(signature.user_inputs, sources, strict=True))
    by_name |= {name: ["constant", target] for name, target in signature.inputs_to_lifted_tensor_constants.items()}
    weights = {name: str(source[1]) for name, source in by_name.items() if source[0] == "weight"}
    by_name |= {name: list(made) for name, made in replace_linears(module, weights).items()}
    replace_int4(module)
    store_operands(module)
    replace_grouped(module)
    for node in [node for node in module.graph.nodes if node.op == "placeholder"]:
        if not node.users:
            module.graph.erase_node(node)
    module.recompile()
    return module, [by_name[node.name] for node in module.graph.nodes if node.op == "placeholder"]


def main(arguments: list[str]) -> int:
    """Run the program."""
    compile_step(Path(arguments[0]), int(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
