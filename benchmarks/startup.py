"""Time and memory that commands and imports take in a new process.

    python -m benchmarks.startup [--rounds 7] [--before DIRECTORY]

Each row is the median of several processes. Bytecode is cached, as after an installation, and so is the JSON Schema, unless
the row says otherwise; the first process of each row is discarded. With --before another checkout of gptkit is measured too,
alternately with this one.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

COMMANDS = (
    "--help",
    "--version",
    "check tiny",
    "components",
    "components norm",
    "components norm rms",
    "components attention --contract",
    "plugins",
    "new --list",
    "new spec.yaml --force --no-schema",
    "new spec.yaml --force",
    "schema",
    "show tiny",
)
CACHED = ("new spec.yaml --force", "schema")
"""Commands that are also measured without what they keep in the cache directory."""
PROGRAMS = {
    "import torch": "import torch",
    "import gptkit": "import gptkit",
    "gptkit.open_spec": "import gptkit; gptkit.open_spec('tiny')",
    "gptkit.build, load, train (imported)": "import gptkit; gptkit.build, gptkit.load, gptkit.train",
    "gptkit.build('gpt2')": "import gptkit; gptkit.build('gpt2', device='meta')",
}
COMPLETION = {"_GPTKIT_COMPLETE": "complete_bash", "COMP_WORDS": "gptkit components nor", "COMP_CWORD": "2"}
CLI = "import sys; sys.argv[0] = 'gptkit'; from gptkit.cli.main import main; main()"


@dataclass(frozen=True)
class Process:
    """What a process took: seconds of CPU time (user and system), seconds of wall time, peak memory in bytes."""

    cpu: float
    wall: float
    memory: int


def measure(arguments: list[str], variables: dict[str, str], checkout: Path, directory: Path) -> Process:
    """Run Python in a new process; exit if it fails."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    cache, own_cache = directory / "bytecode", {"GPTKIT_CACHE": str(directory / "cache")}
    began = perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=directory,
        env={**inherited, "PYTHONPATH": str(checkout), "PYTHONPYCACHEPREFIX": str(cache), **own_cache, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    message = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    wall = perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{message}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Process(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * unit)


def rows() -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return the measured programs by label: arguments of Python, and environment variables."""
    commands = {f"gptkit {command}": (["-c", CLI, *command.split()], {}) for command in COMMANDS}
    for command in CACHED:
        commands[f"gptkit {command} (nothing cached)"] = (["-c", CLI, *command.split()], {"GPTKIT_CACHE": os.devnull})
    completion = {"shell completion of a kind": (["-c", CLI], COMPLETION)}
    return {**commands, **completion, **{label: (["-c", code], {}) for label, code in PROGRAMS.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--before", type=Path, metavar="DIRECTORY", help="another checkout to compare with")
    parser.add_argument("--only", default="", metavar="TEXT", help="measure the rows whose label contains this")
    options = parser.parse_args()
    checkouts = {"": Path(__file__).resolve().parents[1]}
    if options.before is not None:
        checkouts = {"before": options.before.resolve(), "now": checkouts[""]}
    # Not benchmarks.interleave.environment: a child's peak memory counts from that of the process that forks it.
    packages = ("torch", "pydantic", "typer", "rich", "ruamel.yaml", "pluggy")
    print(f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in packages)}")
    print("\n| | CPU time | wall time | peak memory |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for label, (arguments, variables) in rows().items():
            if options.only not in label:
                continue
            taken: dict[str, list[Process]] = {side: [] for side in checkouts}
            for _ in range(options.rounds + 1):
                for side, checkout in checkouts.items():
                    taken[side].append(measure(arguments, variables, checkout, Path(name)))
            for side, processes in taken.items():
                cpu, wall, memory = (
                    statistics.median(getattr(process, field) for process in processes[1:])
                    for field in ("cpu", "wall", "memory")
                )
                title = f"`{label}`, {side}" if side else f"`{label}`"
                print(f"| {title} | {cpu:.2f} s | {wall:.2f} s | {memory / 1e6:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
