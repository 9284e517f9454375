"""Random models, written out: equal logits, also with a cache, and equal gradients; or a refusal with a remedy."""

from __future__ import annotations

import copy
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.ejection.writing import unused_weights, write_source
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from tests.support.ejected import COARSE
from tests.support.random_models import CONTEXT, V, named, random_models, varied

SHARE = 3
"""The slow tests take each third model."""
TOLERANCE = 1e-5
"""Of the largest value, or `COARSE` times the rounding in fp32, in which some parts are computed."""


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
    single = varied(GPT(spec, V, seed=1), seed)
    model = copy.deepcopy(single).double()
    module = ModuleType("written")
    exec(compile(source, "<written>", "exec"), vars(module))
    written = module.GPT().double().eval()
    unused = unused_weights(spec, V)
    written.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith(unused)})
    ids_BT = torch.randint(V, (2, CONTEXT), generator=torch.Generator().manual_seed(seed))
    expected, rounded = (computed(each, each(ids_BT).logits, ids_BT) for each in (model, single))
    if not expected[""].isfinite().all():  # activations are unbounded without norms
        return
    for name, value in computed(written, written(ids_BT), ids_BT).items():
        assert_near(value, expected[name], rounded[name], name or "logits")
    # The cached steps of a model whose frequencies change with the length are those of shorter texts.
    if "length=int(positions_T[-1]) + 1" not in source:
        for sizes in ([1] * CONTEXT, [3, 1, 2, CONTEXT - 6]):
            cache = module.Cache()
            with torch.no_grad():
                pieces = [written(piece, cache) for piece in ids_BT.split(sizes, dim=1)]
            assert_near(torch.cat(pieces, dim=1), expected[""], rounded[""], "logits with a cache")


def computed(model: nn.Module, logits_BTV: Tensor, ids_BT: Tensor) -> dict[str, Tensor]:
    """Return the logits, under an empty name, and the gradient of each parameter."""
    F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT.roll(-1, 1).flatten()).backward()
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    return {"": logits_BTV.detach().double(), **{name: value.double() for name, value in gradients.items()}}


def assert_near(actual: Tensor, expected: Tensor, rounded: Tensor, what: str) -> None:
    difference, rounding = (float((each - expected).abs().max()) for each in (actual, rounded))
    allowed = max(TOLERANCE * max(1.0, float(expected.abs().max())), COARSE * rounding)
    assert difference <= allowed, f"{what}: {difference:.1e}, and {rounding:.1e} in fp32"
