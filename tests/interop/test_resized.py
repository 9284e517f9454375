"""Token ids without a row in the embedding: refused with the remedies, and both remedies work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import gptkit
from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.core.errors import GptkitError
from gptkit.runs.resizing import grow
from tests.support.external_files import CONFIG, altered, sound

__all__ = ["sound"]
ROWS = CONFIG["vocab_size"]


@pytest.fixture
def one_too_many(sound: Path, tmp_path: Path) -> Path:
    """Save a model with an untied head whose tokenizer has one id more than the embedding has rows."""
    directory = altered(sound, tmp_path, tie_word_embeddings=False)
    tensors = load_file(directory / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn(ROWS, 16)
    save_file(tensors, directory / "model.safetensors")
    specials = tuple(f"<|{number}|>" for number in range(ROWS - 256))
    tokenizer = BpeSpec(vocab_size=ROWS + 1, special_tokens=specials).fit(iter(["hello there"]))
    assert tokenizer.vocab_size == ROWS + 1
    (directory / "tokenizer.json").write_text(tokenizer.to_tokenizer_json())
    return directory


def test_the_message_names_both_remedies(one_too_many: Path, tmp_path: Path) -> None:
    with pytest.raises(GptkitError, match=r"261 ids and the model rows for 260(?s:.*)Add the missing rows with --resize"):
        gptkit.import_model(one_too_many, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_are_added(one_too_many: Path, tmp_path: Path) -> None:
    run = gptkit.import_model(one_too_many, tmp_path / "run", resize=True)
    assert run.model.vocab_size == run.tokenizer.vocab_size == ROWS + 1
    stored = load_file(one_too_many / "model.safetensors")
    grown = {"model.embed_tokens.weight": run.model.embedding.table_VE, "lm_head.weight": run.model.head.weight}
    for name, parameter in grown.items():
        assert torch.equal(parameter[:ROWS], stored[name])
        assert torch.allclose(parameter[ROWS], stored[name].mean(0), atol=1e-6)
    # The new id has a probability above zero and below the average.
    with torch.no_grad():
        probabilities_V = run.model(torch.tensor([[5, ROWS, 7]])).logits[0, -1].softmax(-1)
    assert 0 < probabilities_V[ROWS] < 1 / ROWS
    assert run.generate("hello", max_new_tokens=3, seed=0) is not None
    exported = gptkit.export_model(tmp_path / "run", tmp_path / "out")
    assert json.loads((exported / "config.json").read_text())["vocab_size"] == ROWS + 1
    again = gptkit.import_model(exported, tmp_path / "again")
    assert torch.equal(again.model.head.weight, run.model.head.weight)


def test_the_token_without_a_row_can_be_removed(one_too_many: Path, tmp_path: Path) -> None:
    file = one_too_many / "tokenizer.json"
    data = json.loads(file.read_text())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < ROWS]
    data["model"]["vocab"] = {token: number for token, number in data["model"]["vocab"].items() if number < ROWS}
    file.write_text(json.dumps(data))
    assert gptkit.import_model(one_too_many, tmp_path / "run").tokenizer.vocab_size == ROWS


def test_resizing_changes_nothing_where_every_id_has_a_row(sound: Path, tmp_path: Path) -> None:
    run = gptkit.import_model(sound, tmp_path / "run", tokenizer="byte", resize=True)
    assert run.model.vocab_size == ROWS


def test_rows_of_names_are_copied_and_of_weights_averaged() -> None:
    table = torch.tensor([[3, 1], [0, 2]])  # the experts of token ids, as a hash router stores them
    assert grow(table, (5, 2)).tolist() == [[3, 1], [0, 2], [3, 1], [0, 2], [3, 1]]
    assert grow(table.float(), (3, 2)).tolist() == [[3.0, 1.0], [0.0, 2.0], [1.5, 1.5]]
