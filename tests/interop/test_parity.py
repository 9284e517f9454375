"""Every family against transformers: import, export, and equal logits in both directions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from interop.tiny_models import MODELS
from safetensors.torch import load_file, save_file

import gptkit
from gptkit.core.errors import GptkitError
from gptkit.interop.conversion import families

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

N_TOKENS = 40
TOLERANCE = 1e-4


@dataclass(frozen=True)
class External:
    name: str
    directory: Path
    model: Any


def kernel(name: str) -> str:
    # The eager path of Falcon with ALiBi adds the bias twice; that of others is the one that does all they have.
    return "sdpa" if name == "falcon-rw" else "eager"


def make(name: str, directory: Path) -> Any:
    """A tiny model with every weight random, norms and biases too, saved to a directory."""
    torch.manual_seed(0)
    family, options = MODELS[name]
    kind = getattr(transformers, f"{family}Config")
    model = transformers.AutoModelForCausalLM.from_config(kind(**options), attn_implementation=kernel(name))
    with torch.no_grad():
        # The selection bias of experts is not a parameter in some families.
        more = [buffer for name, buffer in model.named_buffers() if "correction_bias" in name]
        for parameter in [*model.parameters(), *more]:
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.eval().save_pretrained(directory)
    return model


@pytest.fixture(scope="module", params=MODELS)
def external(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> External:
    """A tiny model of each kind, as transformers saved it."""
    directory = tmp_path_factory.mktemp(request.param) / "external"
    return External(request.param, directory, make(request.param, directory))


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[dict[str, tuple[float, float]]]:
    """The distances as they are measured; GPTKIT_PARITY=docs/parity.md writes them down as a page."""
    measured: dict[str, tuple[float, float]] = {}
    yield measured
    target = os.environ.get("GPTKIT_PARITY")
    if target and measured:
        Path(target).write_text(page(measured), encoding="utf-8")


PAGE = """\
# Parity with transformers

Written by the tests with transformers {version} (`tests/interop/test_parity.py`). Each row is a small model of the family
with every weight random, norms and biases included, saved by transformers and imported. The numbers are the largest
difference of a logit over a text of {n_tokens} tokens, longer than any window, as a share of the largest logit, in fp32:
all tokens at once, and token by token with a cache. Each was also exported again, loaded by transformers without a missing
or left-over tensor, and gave the same logits.

The worst of all is {worst:.1e}.

| family | model | at once | with a cache |
|---|---|---:|---:|
{rows}
"""


def page(measured: dict[str, tuple[float, float]]) -> str:
    rows = []
    for name, (forward, cached) in measured.items():
        family = getattr(transformers, f"{MODELS[name][0]}Config").model_type
        rows.append(f"| `{family}` | {name} | {forward:.1e} | {cached:.1e} |")
    worst = max(max(pair) for pair in measured.values())
    return PAGE.format(version=transformers.__version__, n_tokens=N_TOKENS, worst=worst, rows="\n".join(rows))


def some_ids() -> torch.Tensor:
    return torch.randint(3, 200, (2, N_TOKENS), generator=torch.Generator().manual_seed(1))


def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, use_cache=False).logits


def distance(native: torch.Tensor, external: torch.Tensor) -> float:
    return float((native - external).abs().max() / external.abs().max())


def test_family_round_trips(external: External, tmp_path: Path, table: dict[str, tuple[float, float]]) -> None:
    ids = some_ids()
    expected = logits_of(external.model, ids)
    run = gptkit.import_model(external.directory, tmp_path / "run", tokenizer="byte")
    with torch.no_grad():
        forward = distance(run.model(ids).logits, expected)
        assert forward < TOLERANCE
        # A prompt, then a token at a time, over the edge of every window.
        cache = run.model.new_cache(2)
        pieces = [run.model(ids[:, :5], cache=cache).logits]
        pieces += [run.model(ids[:, at : at + 1], cache=cache).logits for at in range(5, N_TOKENS)]
        if any(layer.position.depends_on_length for layer in run.model.spec.layer_specs()):
            # What an earlier token gives depends on how long the text was then.
            cached = distance(pieces[-1][:, -1], expected[:, -1])
        else:
            cached = distance(torch.cat(pieces, 1), expected)
        assert cached < TOLERANCE
        table[external.name] = forward, cached

    gptkit.export_model(tmp_path / "run", tmp_path / "exported")
    load = transformers.AutoModelForCausalLM.from_pretrained
    again, report = load(tmp_path / "exported", attn_implementation=kernel(external.name), output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(again) is type(external.model)
    assert distance(logits_of(again.eval(), ids), expected) < 1e-6


def test_unknown_keys_are_rejected(external: External, tmp_path: Path) -> None:
    shutil.copytree(external.directory, tmp_path / "external")
    file = tmp_path / "external" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "attention_twist": 0.5}))
    with pytest.raises(GptkitError, match="'attention_twist'"):
        gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    assert not (tmp_path / "run").exists()
    file.write_text(json.dumps(config))
    _drop_a_tensor(tmp_path / "external" / "model.safetensors")
    with pytest.raises(GptkitError, match=r"tensors are missing: .*\.1\."):
        gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")


def test_every_family_is_tested() -> None:
    tested = {getattr(transformers, f"{family}Config").model_type for family, _ in MODELS.values()}
    assert tested == {family.model_type for family in families().values()}


def _drop_a_tensor(file: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    victim = next(name for name in sorted(tensors) if ".1." in name)
    del tensors[victim]
    save_file(tensors, file, metadata={"format": "pt"})
