"""The column `sharded`: each pair in two processes that share the weights, compared with one process.

``python -m gptkit.docs.combinations.sharded`` is one of these processes: it reads pairs from standard input, and the first
one writes their outcomes to standard output.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

import torch

from gptkit.core.errors import GptkitError
from gptkit.core.registry import default_registry
from gptkit.docs.combinations.columns import Pair
from gptkit.model.gpt import GPT
from gptkit.testing.subject import VOCAB, token_ids
from gptkit.training.parallel.config import ParallelSpec
from gptkit.training.parallel.processes import Processes, joined
from gptkit.training.parallel.shard import distribute

__all__ = ["sharded"]

_COUNT = 2
_TOLERANCE = 1e-4


def sharded(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the outcomes of pairs of installed components: ``passed`` or ``failed: REASON``.

    Raises:
        GptkitError: a process ended with an error.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(_COUNT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **address, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(_COUNT)
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(list(pairs)))
            process.stdin.close()
            process.stdin = None
        texts = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise GptkitError("a process that shares the weights ended with an error", hint="Its message is above.")
    outcomes = json.loads(texts[0].splitlines()[-1])
    return {(attention, position): outcome for attention, position, outcome in outcomes}


def _compared(attention: str, position: str, processes: Processes) -> str:
    """Return the outcome of one pair: loss and gradients of sharded weights against those of whole ones."""
    pair = Pair(attention, position, default_registry())
    spec, device = pair.read(pair.layout(position)), torch.device("cpu")
    whole, parted = GPT(spec, VOCAB, seed=0), GPT(spec, VOCAB, device="meta")
    distribute(parted, processes, device, seed=0)
    ids_BT, targets_BT = token_ids(2, 20), token_ids(2, 20, seed=1)
    losses = [model.train()(ids_BT, targets_BT).loss for model in (whole, parted)]
    for loss in losses:
        loss.backward()
    if abs(float(losses[0].detach()) - float(losses[1].detach())) > _TOLERANCE:
        return f"failed: the loss is {float(losses[1].detach()):.6f}, and {float(losses[0].detach()):.6f} in one process"
    gradients = {name: parameter.grad for name, parameter in parted.named_parameters()}
    for name, parameter in whole.named_parameters():
        gradient = gradients.get(name)
        own = gradient.full_tensor() if gradient is not None and hasattr(gradient, "full_tensor") else gradient
        if parameter.grad is None:
            continue
        if own is None or float((own - parameter.grad).abs().max()) > _TOLERANCE * max(
            1.0, float(parameter.grad.abs().max())
        ):
            return f"failed: the gradient of {name} differs from that in one process"
    return "passed"


def _main() -> None:
    pairs = json.load(sys.stdin)
    with joined(ParallelSpec(data=1, shard=_COUNT, tensor=1), torch.device("cpu")) as processes:
        outcomes = []
        for attention, position in pairs:
            try:
                outcome = _compared(attention, position, processes)
            except GptkitError as error:
                outcome = f"refused: {error.message}"
            outcomes.append((attention, position, outcome))
    if processes.is_main:
        sys.stdout.write(json.dumps(outcomes) + "\n")


if __name__ == "__main__":
    _main()
