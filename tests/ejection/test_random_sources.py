"""Random models, written out: equal logits, also with a cache, and equal gradients; or a refusal with a remedy."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.ejection.writing import unused_weights, write_source
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from tests.support.random_models import CONTEXT, V, named, random_models, varied

SHARE = 3
"""The slow tests take each third model."""
TOLERANCE, COARSE = 1e-5, 1e-4
"""Of the largest value: of logits, and of gradients, which amplify the rounding of what is computed in fp32."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "step"), [(0, SHARE), *(pytest.param(seed, 1, marks=pytest.mark.nightly) for seed in range(4))]
)
def test_random_models_are_written_out_or_refused(seed: int, step: int) -> None:
    models = list(random_models(seed))[::step]
    n_refused = 0
    for name, spec in models:
        with named(name, spec):
            try:
                source = write_source(spec, V, name="random", parameters=0)
            except NotWrittenError as refusal:
                assert refusal.hint
                n_refused += 1
                continue
            check(spec, source, seed)
    assert n_refused < 0.2 * len(models)


def check(spec: ModelSpec, source: str, seed: int) -> None:
    model = varied(GPT(spec, V, seed=1), seed).double()
    module = ModuleType("written")
    exec(compile(source, "<written>", "exec"), vars(module))
    written = module.GPT().double().eval()
    unused = unused_weights(spec, V)
    written.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith(unused)})
    ids_BT = torch.randint(V, (2, CONTEXT), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = model(ids_BT).logits
        assert expected is not None
        if not expected.isfinite().all():  # activations are unbounded without norms
            return
        assert_near(written(ids_BT), expected, TOLERANCE, "logits")
        # The cached steps of a model whose frequencies change with the length are those of shorter texts.
        if "length=int(positions_T[-1]) + 1" not in source:
            for sizes in ([1] * CONTEXT, [3, 1, 2, CONTEXT - 6]):
                cache = module.Cache()
                pieces = [written(piece, cache) for piece in ids_BT.split(sizes, dim=1)]
                assert_near(torch.cat(pieces, dim=1), expected, TOLERANCE, "logits with a cache")
    losses = [
        F.cross_entropy(each.flatten(0, 1), ids_BT.roll(-1, 1).flatten()) for each in (model(ids_BT).logits, written(ids_BT))
    ]
    for loss in losses:
        loss.backward()
    native = dict(model.named_parameters())
    for name, parameter in written.named_parameters():
        grad, own = native[name].grad, parameter.grad
        zeros = torch.zeros_like(parameter)
        assert_near(zeros if own is None else own, zeros if grad is None else grad, COARSE, f"the gradient of {name}")


def assert_near(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    difference, scale = float((actual - expected).abs().max()), max(1.0, float(expected.abs().max()))
    assert difference <= tolerance * scale, f"{what}: {difference:.1e} of {scale:.1f}"
