"""Time that 200 installed plugin distributions add to the loading of the registry.

    python -m benchmarks.discovery [--distributions 200]

Each distribution has metadata, an entry point and a module with one component, like a real one. Measured in new processes,
alternately with and without them; the import of torch is in neither figure.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.interleave import environment

PLUGIN = """
from typing import Literal
from torch import nn
import gptkit
from gptkit.kinds.norm import NormSpec

class ThisSpec(NormSpec):
    "Identity."
    name: Literal["norm-{n}"] = "norm-{n}"

    def build(self, context, *, dim):
        return nn.Identity()

@gptkit.hookimpl
def gptkit_components():
    return [ThisSpec]
"""

PROBE = """
import time, torch, gptkit.kinds.plugin
begun = time.perf_counter()
from gptkit.core.registry import default_registry
count = len(default_registry().plugins())
print(count, time.perf_counter() - begun)
"""


def install(directory: Path, count: int) -> None:
    """Write distributions in the layout of an installer."""
    for n in range(count):
        (directory / f"plugin_{n}.py").write_text(PLUGIN.format(n=n), encoding="utf-8")
        info = directory / f"gptkit_plugin_{n}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: gptkit-plugin-{n}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[gptkit]\np{n} = plugin_{n}\n", encoding="utf-8")


def seconds(path: str) -> tuple[int, float]:
    """Return the number of plugins that were found, and the time in seconds."""
    output = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return int(output[0]), float(output[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distributions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        install(Path(name), options.distributions)
        seconds(name)  # compiles the modules, like an installer
        rounds = [(seconds(""), seconds(name)) for _ in range(options.rounds)]
    without, with_them = ([side[1] for side in sides] for sides in zip(*rounds, strict=True))
    added = statistics.median(more - less for less, more in zip(without, with_them, strict=True))
    print(environment("pluggy", "pydantic"))
    print(f"{rounds[0][0][0]} plugins: {statistics.median(without):.3f} s")
    print(f"{rounds[0][1][0]} plugins: {statistics.median(with_them):.3f} s")
    print(f"added by {options.distributions} distributions: {added:.3f} s")


if __name__ == "__main__":
    main()
