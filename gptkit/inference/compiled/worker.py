"""Program that compiles a traced decode step; the host runs it as a process of low priority.

    python -m gptkit.inference.compiled.worker DIRECTORY THREADS

It reads ``graph.pt2`` and ``sources.json`` in the directory, and writes ``step.so`` and ``inputs.json`` there.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

__all__ = ["compile_step", "main"]


def compile_step(directory: Path, threads: int) -> None:
    """Compile ``graph.pt2`` to ``step.so``; `inputs.json` names the inputs that the function takes.

    Args:
        directory: where the files are.
        threads: number of threads that the compiled loops use.
    """
    import torch

    import gptkit.ops.grouped  # noqa: F401 defines operators that a program may contain
    from gptkit.inference.compiled.packing import define_operators, replace_linears

    torch.set_num_threads(threads)
    define_operators()
    program = torch.export.load(directory / "graph.pt2")
    sources = json.loads((directory / "sources.json").read_text(encoding="utf-8"))
    module, signature = program.graph_module, program.graph_signature
    by_name: dict[str, list[object]] = dict(zip(signature.user_inputs, sources, strict=True))
    by_name |= {name: ["constant", target] for name, target in signature.inputs_to_lifted_tensor_constants.items()}
    weights = {name: str(source[1]) for name, source in by_name.items() if source[0] == "weight"}
    by_name |= {name: list(made) for name, made in replace_linears(module, weights).items()}
    for node in [node for node in module.graph.nodes if node.op == "placeholder"]:
        if not node.users:
            module.graph.erase_node(node)
    module.recompile()
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    options = {
        "size_asserts": False,
        "aot_inductor.output_path": str(directory / "step.so"),
        # Loops over fewer elements than this are faster in one thread: a step consists of many short ones.
        "cpp.min_chunk_size": 8192,
    }
    built = torch._inductor.aot_compile(module, tuple(node.meta["val"] for node in inputs), options=options)
    if Path(str(built)) != directory / "step.so":
        shutil.copyfile(str(built), directory / "step.so")
    lines = json.dumps([by_name[node.name] for node in inputs])
    (directory / "inputs.json").write_text(lines, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run the program."""
    compile_step(Path(arguments[0]), int(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
