"""Optimizers and parameters that are sharded over processes."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from gptkit.components.optimizer.adafactor import AdafactorSpec
from gptkit.components.optimizer.soap import SOAPSpec
from gptkit.core.errors import TrainingError


@pytest.mark.parametrize("spec", [AdafactorSpec(), SOAPSpec()], ids=lambda spec: spec.name)
def test_optimizer_of_whole_matrices_refuses_shards(spec: Any) -> None:
    layer = nn.Linear(4, 4)
    spec.build(layer)
    layer.weight.full_tensor = lambda: layer.weight  # as `DTensor` has it
    with pytest.raises(TrainingError, match=f"training.optimizer: {spec.name} does not support parameters that are sharded"):
        spec.build(layer)
