"""Checkpoints: atomic, exact, with detection of damage."""

from __future__ import annotations

import copy
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from gptkit.checkpoint import safetensors as packing
from gptkit.checkpoint import store as module
from gptkit.checkpoint.store import CheckpointStore, load_weights, read_state, restore_optimizer
from gptkit.components.optimizer.muon import MuonSpec
from gptkit.core.errors import CheckpointError
from gptkit.core.spec import Spec
from gptkit.files import validate_data
from gptkit.kinds.optimizer import OptimizerSpec
from tests.support.bigram import Bigram, batch, make_model


def trained(spec: Any = None) -> tuple[Bigram, torch.optim.Optimizer]:
    model = make_model()
    optimizer = (spec or MuonSpec(learning_rate=0.01)).build(model)
    for step in range(3):
        inputs, targets, _ = batch(step, 4, 0)
        model(inputs, targets).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


class Chosen(Spec):
    """A spec with an optimizer."""

    optimizer: OptimizerSpec


def optimizer_spec(name: str) -> OptimizerSpec:
    return validate_data({"optimizer": {"name": name, "learning_rate": 0.01}}, Chosen).optimizer


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def test_weights_and_optimizer_round_trip_bit_identically(store: CheckpointStore) -> None:
    model, optimizer = trained()
    path = store.save(3, model, optimizer, {"anything": [1.1, None]})
    state = read_state(path, verify=True)
    assert (state["step"], state["training"]) == (3, {"anything": [1.1, None]})
    fresh = Bigram()
    load_weights(fresh, path)
    assert equal(dict(model.state_dict()), dict(fresh.state_dict()))
    other = MuonSpec(learning_rate=0.01).build(fresh)
    restore_optimizer(other, fresh, path, state)
    assert equal(optimizer.state_dict(), other.state_dict())


def test_checkpoint_is_safetensors_and_json_with_tied_tensors_once(store: CheckpointStore) -> None:
    path = store.save(3, *trained(), {})
    assert sorted(file.name for file in path.iterdir()) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    tensors = safetensors.torch.load_file(path / "model.safetensors")
    assert {"table.weight", "out.weight"} & set(tensors) == {"table.weight"}
    assert "calls" in tensors


def test_assigning_keeps_tied_tensors_without_copies(store: CheckpointStore) -> None:
    model, optimizer = trained()
    path = store.save(3, model, optimizer, {})
    with torch.device("meta"):
        fresh = Bigram()
    load_weights(fresh, path, assign=True)
    assert fresh.out.weight is fresh.table.weight
    assert equal(dict(model.state_dict()), dict(fresh.state_dict()))
    assert [name for name, _ in fresh.named_parameters()] == [name for name, _ in model.named_parameters()]


def test_equal_weights_give_equal_files(tmp_path: Path) -> None:
    model, optimizer = trained()
    paths = [CheckpointStore(tmp_path / str(index)).save(3, model, optimizer, {}) for index in range(8)]
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert len({(path / name).read_bytes() for path in paths}) == 1


def test_tensors_that_share_memory_are_saved_separately(store: CheckpointStore) -> None:
    def two() -> nn.Module:
        whole = nn.Linear(4, 4, bias=False)
        view = nn.Linear(4, 4, bias=False)
        view.weight = nn.Parameter(whole.weight.detach())
        return nn.ModuleList([whole, view])

    model, fresh = two(), two()
    path = store.save(1, model, torch.optim.SGD(model.parameters()), {})
    load_weights(fresh, path)
    assert equal(dict(model.state_dict()), dict(fresh.state_dict()))


def test_only_the_newest_are_kept(store: CheckpointStore) -> None:
    model, optimizer = trained()
    for step in (10, 20, 30, 100_000_000):
        store.save(step, model, optimizer, {})
    assert store.steps() == [30, 100_000_000]
    assert sorted(path.name for path in store.directory.iterdir()) == ["step-00000030", "step-100000000"]


def test_saving_a_step_again_replaces_it(store: CheckpointStore) -> None:
    model, optimizer = trained()
    store.save(5, model, optimizer, {"turn": 1})
    store.save(5, model, optimizer, {"turn": 2})
    latest = store.latest()
    assert latest is not None
    assert read_state(latest)["training"] == {"turn": 2}
    assert [path.name for path in store.directory.iterdir()] == ["step-00000005"]


class Killed(BaseException):
    """Simulated kill -9, without any cleanup."""


def calls_until_saved(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, kill_at: int) -> int:
    """Save with the given system call raising; return the number of calls."""
    count = 0

    def counted(real: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal count
            count += 1
            if count == kill_at:
                raise Killed
            return real(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(packing, "save_file", counted(packing.save_file))
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(module.shutil, "rmtree", counted(module.shutil.rmtree))
        for name in ("rename", "replace", "mkdir", "unlink", "rmdir", "chmod"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        store.save(20, *trained(), {"turn": 2})
    return count


def test_killed_save_leaves_a_complete_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepared(name: str) -> CheckpointStore:
        store = CheckpointStore(tmp_path / name, keep=1)
        store.save(10, *trained(), {"turn": 0})
        # The same step once more, as after a resume from an earlier one.
        CheckpointStore(tmp_path / name, keep=2).save(20, *trained(), {"turn": 1})
        return store

    total = calls_until_saved(prepared("whole"), monkeypatch, kill_at=-1)
    assert total > 8
    for kill_at in range(1, total + 1):
        store = prepared(f"killed-{kill_at}")
        with pytest.raises(Killed):
            calls_until_saved(store, monkeypatch, kill_at)
        store.clean()
        latest = store.latest()
        assert latest is not None
        state = read_state(latest, verify=True)
        assert state["step"] == 20
        load_weights(Bigram(), latest)
        store.save(30, *trained(), {})
        assert [path.name for path in store.directory.iterdir()] == ["step-00000030"]


def test_full_disk_is_reported_and_checkpoints_are_kept(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained()
    store.save(10, model, optimizer, {})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left"):
            store.save(20, model, optimizer, {})
    assert store.steps() == [10]
    store.clean()
    assert [path.name for path in store.directory.iterdir()] == ["step-00000010"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "empty"])
def test_damage_is_reported_with_the_file(store: CheckpointStore, name: str, damage: str) -> None:
    model, optimizer = trained()
    path = store.save(3, model, optimizer, {})
    file = path / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "flipped":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
    else:
        file.write_bytes(content[: -9 if damage == "cut" else 0])
    with pytest.raises(CheckpointError) as caught:
        read_state(path, verify=True)
    assert name in caught.value.message


def test_damaged_file_is_reported_without_verification(store: CheckpointStore) -> None:
    path = store.save(3, *trained(), {})
    file = path / "model.safetensors"
    file.write_bytes(b"\xff" * file.stat().st_size)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_weights(Bigram(), path)


def test_weights_of_another_model_are_rejected(store: CheckpointStore) -> None:
    path = store.save(3, *trained(), {})
    wider = Bigram()
    wider.mix = nn.Linear(8, 9)
    with pytest.raises(CheckpointError, match=r"mix\.weight is \(8, 8\) in the file and \(9, 8\) in the model"):
        load_weights(wider, path)
    more = Bigram()
    more.extra = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"it lacks extra\.weight, extra\.bias"):
        load_weights(more, path)
    fewer = Bigram()
    del fewer.mix
    with pytest.raises(CheckpointError, match=r"it also has mix\.(weight|bias), mix\.(weight|bias)"):
        load_weights(fewer, path)


def test_state_of_another_optimizer_is_rejected(store: CheckpointStore) -> None:
    path = store.save(3, *trained(), {})
    model = make_model()
    with pytest.raises(CheckpointError, match="does not fit the optimizer"):
        restore_optimizer(torch.optim.SGD(model.parameters()), model, path, read_state(path))


@pytest.mark.parametrize("name", ["adamw", "muon", "soap", "lion", "adafactor", "ademamix", "adopt", "schedule-free"])
def test_parameter_that_no_gradient_has_reached_has_no_state(store: CheckpointStore, name: str) -> None:
    """Its twin has one, in the same group and with the same shape."""
    model = make_model(dropout=0.0)
    model.unused = nn.Linear(model.mix.in_features, model.mix.out_features)
    spec = optimizer_spec(name)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            inputs, targets, _ = batch(step, 4, 0)
            model(inputs, targets).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    optimizer = spec.build(model)
    train(model, optimizer, range(2))
    path = store.save(2, model, optimizer, {})
    fresh = copy.deepcopy(model)
    other = spec.build(fresh)
    restore_optimizer(other, fresh, path, read_state(path))
    train(model, optimizer, range(2, 4))
    train(fresh, other, range(2, 4))
    assert equal(dict(model.state_dict()), dict(fresh.state_dict()))

    state = json.loads((path / "state.json").read_text())
    entries = state["optimizer"]["state"]["dict"]
    entries.remove(next(entry for entry in entries if entry[0] == "mix.bias"))
    with pytest.raises(CheckpointError, match=r"it has no state of mix\.bias"):
        restore_optimizer(spec.build(fresh), fresh, path, state)


def test_newer_format_is_reported(store: CheckpointStore) -> None:
    path = store.save(3, *trained(), {})
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "format": 2}))
    with pytest.raises(CheckpointError, match="has format 2"):
        read_state(path)


def test_nested_state_round_trips(store: CheckpointStore) -> None:
    class Odd(torch.optim.SGD):
        def state_dict(self) -> dict[str, Any]:
            result = super().state_dict()
            result["state"] = {0: {"history": [torch.ones(2, dtype=torch.float64), (1, 2.5)], "note": "x", "none": None}}
            return result

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.loaded = state_dict

    model = make_model()
    optimizer = Odd(model.parameters())
    path = store.save(1, model, optimizer, {})
    restore_optimizer(optimizer, model, path, read_state(path))
    assert equal(optimizer.loaded, optimizer.state_dict())


def test_state_that_cannot_be_saved_is_reported(store: CheckpointStore) -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters())
    optimizer.state[model.mix.weight] = {"worker": object()}
    with pytest.raises(CheckpointError, match=r"state\.mix\.weight\.worker is of type object"):
        store.save(1, model, optimizer, {})


def test_other_files_are_kept_when_a_checkpoint_is_pruned_or_replaced(store: CheckpointStore) -> None:
    model, optimizer = trained()
    store.save(10, model, optimizer, {})
    (store.path(10) / "notes.txt").write_text("mine")
    (store.directory / "best").mkdir()
    (store.directory / "best" / "model.safetensors").write_text("mine")
    (store.directory / ".step-mine").mkdir()
    store.save(10, model, optimizer, {})
    assert (store.path(10) / "notes.txt").read_text() == "mine"
    for step in (20, 30, 40):
        store.save(step, model, optimizer, {})
    assert store.steps() == [30, 40]
    assert [path.name for path in store.path(10).iterdir()] == ["notes.txt"]
    assert (store.directory / "best" / "model.safetensors").read_text() == "mine"
    assert sorted(path.name for path in store.directory.iterdir() if path.name.startswith(".")) == [".step-mine"]
    store.save(10, model, optimizer, {})
    assert (store.path(10) / "notes.txt").read_text() == "mine"


def test_full_disk_is_reported_with_the_file(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(packing, "save_file", full)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be written: .*No space left on device"):
        store.save(10, *trained(), {})
    assert store.steps() == []
