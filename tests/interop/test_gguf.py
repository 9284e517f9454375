"""GGUF: bit-exact round trips, and rejection of what cannot be expressed."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.components.tokenizer.hugging_face import HuggingFaceSpec
from gptkit.core.errors import ExternalModelError
from gptkit.files import validate_data
from gptkit.interop.formats.gguf.container import GgufFile, Typed
from gptkit.runs.exporting import export_model
from gptkit.runs.opening import open_spec
from gptkit.runs.spec import ExperimentSpec
from tests.support.gguf_families import NAMES, architecture_of, family_of, model_of
from tests.support.gguf_models import DECODER, GROUPED, MODELS, changed, make_pieces, make_run

TEXTS = ["", "Hello, world!", "it's 12345 o'clock\n\n  and é 中🙂", "a" * 50, " \t\n x"]
PROSE = ["The cat sat on the mat, and the other cat's 12 hats sat on the other mats. " * 20]


def weights(run: gptkit.Run) -> dict[str, torch.Tensor]:
    return dict(run.model.named_parameters())


def bpe(pattern: str, **fields: Any) -> tuple[dict[str, Any], Any]:
    fields = {"vocab_size": 330, "pattern": pattern, "special_tokens": ("<|user|>",), **fields}
    spec = BpeSpec(**fields)
    return spec.model_dump(mode="json"), spec.fit(iter(PROSE))


@pytest.mark.parametrize("name", MODELS)
def test_export_and_import_keep_every_bit(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run", MODELS[name])
    file = export_model(run, tmp_path / "model.gguf")
    native, back = gptkit.load(run), gptkit.import_model(file, tmp_path / "back")
    assert {k: v.shape for k, v in weights(back).items()} == {k: v.shape for k, v in weights(native).items()}
    for key, tensor in weights(native).items():
        assert torch.equal(weights(back)[key], tensor), key
    ids = torch.randint(0, 257, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(back.model(ids).logits, native.model(ids).logits)
    assert back.spec.name == "model"
    assert [back.tokenizer.encode(text) for text in TEXTS] == [native.tokenizer.encode(text) for text in TEXTS]
    assert back.tokenizer.end_id == native.tokenizer.end_id == 256
    assert back.tokenizer.lossless


@pytest.mark.parametrize("name", NAMES)
def test_families_round_trip(tmp_path: Path, name: str) -> None:
    """Norms with an offset and decay rates are stored as other numbers, which rounds them."""
    run = make_run(tmp_path / "run", model_of(name))
    file = export_model(run, tmp_path / "model.gguf", family=family_of(name).component_name())
    assert GgufFile(file).metadata["general.architecture"] == architecture_of(name)
    native, back = gptkit.load(run), gptkit.import_model(file, tmp_path / "back")
    assert weights(back).keys() == weights(native).keys()
    for key, tensor in weights(native).items():
        torch.testing.assert_close(weights(back)[key], tensor, rtol=1e-6, atol=1e-6)
    ids = torch.randint(0, 257, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(back.model(ids).logits, native.model(ids).logits, rtol=1e-4, atol=1e-4)


def test_f16_rounds_matrices_but_not_vectors(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", MODELS["gpt2"])
    file = export_model(run, tmp_path / "model.gguf", to={"name": "gguf", "type": "f16"})
    whole = export_model(run, tmp_path / "whole.gguf")
    assert file.stat().st_size < 0.7 * whole.stat().st_size
    native, back = gptkit.load(run), gptkit.import_model(file, tmp_path / "back")
    for key, tensor in weights(native).items():
        rounded = tensor if tensor.dim() == 1 or "position" in key else tensor.half().float()
        assert torch.equal(weights(back)[key].float(), rounded), key


def test_f16_rejects_values_out_of_range(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", DECODER, scale=1e6)
    with pytest.raises(ExternalModelError, match=r"token_embd\.weight has numbers that f16 cannot hold"):
        export_model(run, tmp_path / "model.gguf", to={"name": "gguf", "type": "f16"})
    assert not list(tmp_path.glob("*.gguf*"))
    assert not list(tmp_path.glob(".*"))
    export_model(run, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feedforward": {"name": "mlp"}}, "family|express"),
        ({"feedforward": {"name": "gated", "d_hidden": 96, "activation": "gelu"}}, "activation is gelu, and would be silu"),
        ({"attention": {**GROUPED, "window": 16}}, "window"),
        ({"position": {"name": "rotary", "reverse": True}}, "express"),
        (
            {"position": {"name": "rotary", "scaling": {"name": "yarn", "factor": 4, "original_context_length": 16}}},
            "attention_factor",
        ),
        ({"block": "sandwich"}, "block"),
    ],
)
def test_models_that_gguf_cannot_express_are_rejected(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run = make_run(tmp_path / "run", {**DECODER, **change})
    with pytest.raises(ExternalModelError, match=message):
        export_model(run, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(("preset", "family"), [("mamba-2.8b", "mamba"), ("flexolmo-7x7b", "flex-olmo")])
def test_families_without_gguf_are_named(tmp_path: Path, preset: str, family: str) -> None:
    sizes = [f"model.{key}" for key in ("d_model=64", "n_layers=2", "context_length=32", "vocab_size=null")]
    sizes += ["model.feedforward.n_experts=4", "model.feedforward.router.k=2"] if family == "flex-olmo" else []
    run = make_run(tmp_path / "run", open_spec(preset, sizes).spec.model.model_dump(mode="json"))
    with pytest.raises(ExternalModelError) as refused:
        export_model(run, tmp_path / "model.gguf")
    assert refused.value.message == f"GGUF files of the family {family!r}, which this model has, are not supported"
    assert refused.value.hint == "Export to hugging-face, torch-export or onnx instead."


def test_reason_is_the_component_that_no_architecture_has(tmp_path: Path) -> None:
    mixture = {"name": "experts", "n_experts": 4, "expert": {"name": "gated", "d_hidden": 32}}
    changes = {"attention": {"name": "rwkv4"}, "position": "none", "feedforward": mixture}
    run = make_run(tmp_path / "run", {**DECODER, **changes})
    with pytest.raises(ExternalModelError, match="no family can express this model") as refused:
        export_model(run, tmp_path / "model.gguf")
    assert "attention 'rwkv4' is not one that the family has" in refused.value.message
    assert "object has no attribute" not in refused.value.message
    assert refused.value.hint == "Export to hugging-face, torch-export or onnx instead."


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "gpt4o"])
def test_trained_vocabularies_round_trip(tmp_path: Path, pattern: str) -> None:
    spec, words = bpe(pattern)
    run = make_run(tmp_path / "run", DECODER, spec, words, rows=words.vocab_size + 7)
    file = export_model(run, tmp_path / "model.gguf")
    back = gptkit.import_model(file, tmp_path / "back")
    texts = [*TEXTS, *PROSE, "<|user|> said"]
    assert [back.tokenizer.encode(text) for text in texts] == [words.encode(text) for text in texts]
    assert back.tokenizer.special_tokens == words.special_tokens
    allowed = {"allowed_special": ["<|user|>"]}
    assert back.tokenizer.encode("<|user|> said", **allowed) == words.encode("<|user|> said", **allowed)
    assert GgufFile(file).metadata["tokenizer.ggml.token_type"][-8:] == [3, 5, 5, 5, 5, 5, 5, 5]

    # And once more, from a tokenizer.json.
    again = export_model(back.directory, tmp_path / "again.gguf")
    assert GgufFile(again).metadata == {**GgufFile(file).metadata, "general.name": "model"}


def test_start_and_chat_template_are_kept(tmp_path: Path) -> None:
    spec, words = bpe("gpt4", start_token="<|endoftext|>")
    run = make_run(tmp_path / "run", DECODER, spec, words)
    file = export_model(run, tmp_path / "model.gguf")
    first = gptkit.import_model(file, tmp_path / "first")
    assert first.tokenizer.start_id == words.start_id
    directory = tmp_path / "words"
    directory.mkdir()
    first.tokenizer.save(directory)
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    ends = {"start_token": "<|endoftext|>", "end_token": "<|user|>"}
    templated = HuggingFaceSpec(path=str(directory), **ends)
    run = make_run(tmp_path / "chat", DECODER, templated.model_dump(mode="json"), templated.fit(iter(())))
    back = gptkit.import_model(export_model(run, tmp_path / "chat.gguf"), tmp_path / "second")
    assert back.tokenizer.chat_template == "{{ messages }}"
    assert back.tokenizer.end_id == words.special_tokens["<|user|>"]


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        ({"name": "byte", "end_token": None}, "no token that ends a text"),
        ({"name": "bpe", "vocab_size": 300, "pattern": r"\w+|\W+"}, "cannot split texts by the pattern"),
        ({"name": "char"}, "not a byte-level pair encoding"),
    ],
)
def test_tokenizers_that_gguf_cannot_express_are_rejected(tmp_path: Path, tokenizer: dict[str, Any], message: str) -> None:
    words = validate_data({"tokenizer": tokenizer, "model": DECODER}, ExperimentSpec).tokenizer.fit(iter(PROSE))
    run = make_run(tmp_path / "run", DECODER, tokenizer, words)
    with pytest.raises(ExternalModelError, match=message):
        export_model(run, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("general.architecture", Typed("string", "lama"), "did you mean 'llama'"),
        ("general.architecture", None, "no general.architecture"),
        ("llama.attention.spiral", Typed("u32", 1), "unknown keys: 'attention.spiral'"),
        ("llama.embedding_length", Typed("string", "wide"), "embedding_length should be a whole number"),
        ("llama.block_count", Typed("u32", 2), "does not describe.*blk.2"),
        ("llama.block_count", Typed("u32", 4), "missing: .*blk.3"),
        ("llama.expert_count", Typed("u32", 8), "has no 'expert_used_count'"),
        ("llama.expert_used_count", Typed("u32", 2), "expert_used_count is the number 2"),
        ("llama.vocab_size", Typed("u32", 99), "its embedding has 257 rows"),
        ("llama.rope.dimension_count", Typed("u32", 8), "rope.dimension_count"),
        ("llama.rope.scaling.type", Typed("string", "longrope"), "rope.scaling.type"),
        ("split.count", Typed("u32", 2), "one of several parts"),
        ("general.alignment", Typed("u32", 24), "general.alignment is 24"),
        ("tokenizer.ggml.model", Typed("string", "t5"), "'t5'.*byte-level"),
        ("tokenizer.ggml.model", None, "no tokenizer"),
        (
            "tokenizer.ggml.pre",
            Typed("string", "qwen3"),
            "'qwen3', a method of splitting texts that gptkit does not support",
        ),
        ("tokenizer.ggml.pre", None, "tokenizer.ggml.pre is missing(?!.*did you mean).*--tokenizer PATH"),
        ("tokenizer.ggml.eos_token_id", Typed("u32", 999), "eos_token_id is 999"),
        ("tokenizer.ggml.merges", Typed("strings", ["a bc d"]), "no merge|a merge that is not of two"),
        ("tokenizer.ggml.tokens", Typed("strings", ["a"] * 257), "not all different"),
        (
            "tokenizer.ggml.token_type",
            Typed("i32s", [5] * 257),
            r"changed\.gguf: its tokenizer does not contain the start or end token '<\|endof",
        ),
    ],
)
def test_each_error_is_named(tmp_path: Path, key: str, value: Typed | None, message: str) -> None:
    file = export_model(make_run(tmp_path / "run", DECODER), tmp_path / "model.gguf")
    with pytest.raises(ExternalModelError, match=f"(?s){message}"):
        gptkit.import_model(changed(file, tmp_path / "changed.gguf", **{key: value}), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_tokenizer_can_be_overridden(tmp_path: Path) -> None:
    file = export_model(make_run(tmp_path / "run", DECODER), tmp_path / "model.gguf")
    odd = changed(file, tmp_path / "odd.gguf", **{"tokenizer.ggml.pre": Typed("string", "unheard-of")})
    back = gptkit.import_model(odd, tmp_path / "back", tokenizer="byte")
    assert back.spec.tokenizer.name == "byte"


def test_unsupported_tokenizer_can_be_replaced_by_the_models_own(tmp_path: Path) -> None:
    words = validate_data({"tokenizer": {"name": "bpe", "vocab_size": 300}, "model": DECODER}, ExperimentSpec)
    tokenizer = words.tokenizer.fit(iter(PROSE))
    run = make_run(tmp_path / "run", DECODER, {"name": "bpe", "vocab_size": 300}, tokenizer)
    odd = changed(export_model(run, tmp_path / "model.gguf"), tmp_path / "odd.gguf", **{"tokenizer.ggml.pre": None})
    file = export_model(run, tmp_path / "out", family="llama") / "tokenizer.json"
    for number, given in enumerate((file, file.parent)):
        back = gptkit.import_model(odd, tmp_path / f"back{number}", tokenizer=str(given))
        assert back.tokenizer.encode(PROSE[0]) == tokenizer.encode(PROSE[0])


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_vocabularies_round_trip(tmp_path: Path, prefix: bool) -> None:
    first = gptkit.import_model(make_pieces(tmp_path, prefix), tmp_path / "first")
    file = export_model(first.directory, tmp_path / "again.gguf")
    second = gptkit.import_model(file, tmp_path / "second")
    one, other = first.tokenizer, second.tokenizer
    texts = [*TEXTS, "the inn", " there  sings\n\nher", "tttt ttt    and é中🙂", "ohne Sinn <s> xyz", "here<turn> and there"]
    for text in texts:
        assert other.encode(text) == one.encode(text)
        assert other.encode(text, allowed_special=one.special_tokens) == one.encode(text, allowed_special=one.special_tokens)
    assert (other.start_id, other.end_id, other.special_tokens) == (one.start_id, one.end_id, one.special_tokens)
    third = export_model(second.directory, tmp_path / "third.gguf")
    assert GgufFile(third).metadata == {**GgufFile(file).metadata, "general.name": "again"}
    types = GgufFile(file).metadata["tokenizer.ggml.token_type"]
    assert types == GgufFile(tmp_path / "pieces.gguf").metadata["tokenizer.ggml.token_type"]
    assert all(torch.equal(weights(second)[key], tensor) for key, tensor in weights(first).items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["model"]["merges"].pop(), "does not merge all pairs"),
        (lambda data: data["model"]["merges"].append(data["model"]["merges"][0]), "several places of its order"),
        (lambda data: data["model"].update(fuse_unk=False), "unknown characters in another way"),
        (
            lambda data: data.update(pre_tokenizer={"type": "Digits", "individual_digits": True}),
            "splits texts in another way",
        ),
        (lambda data: data["normalizer"]["normalizers"].append({"type": "NFKC"}), "changes texts in another way"),
    ],
)
def test_pieces_that_llama_cpp_would_encode_differently_are_rejected(tmp_path: Path, change: Any, message: str) -> None:
    run = gptkit.import_model(make_pieces(tmp_path), tmp_path / "first")
    data = json.loads(run.tokenizer.to_tokenizer_json())
    change(data)
    file = tmp_path / "words" / "tokenizer.json"
    file.parent.mkdir()
    file.write_text(json.dumps(data))
    spec = HuggingFaceSpec(path=str(file.parent), start_token="<s>", end_token="</s>")
    other = make_run(tmp_path / "other", DECODER, spec.model_dump(mode="json"), spec.fit(iter(())))
    with pytest.raises(ExternalModelError, match=message):
        export_model(other, tmp_path / "refused.gguf")


@pytest.mark.parametrize("type", ["f32", "f16"])
def test_quantized_files_are_exported_again(tmp_path: Path, type: str) -> None:
    """What was dequantized on import is what the exported file holds: exactly in f32, rounded in f16."""
    gguf = pytest.importorskip("gguf")
    spec, words = bpe("gpt2")
    file = export_model(make_run(tmp_path / "run", DECODER, spec, words), tmp_path / "model.gguf")
    source = gguf.GGUFReader(file)
    kinds = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(tmp_path / "quantized.gguf", "llama")
    for field in source.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            sub = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub)
    for number, tensor in enumerate(source.tensors):
        kind = (kinds.Q8_0, kinds.Q4_1, kinds.Q4_0)[number % 3]
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, tensor.data)
        else:
            writer.add_tensor(tensor.name, gguf.quantize(tensor.data, kind), raw_dtype=kind)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        write()
    first = gptkit.import_model(tmp_path / "quantized.gguf", tmp_path / "first")
    again = export_model(first.directory, tmp_path / "again.gguf", to={"name": "gguf", "type": type})
    second = gptkit.import_model(again, tmp_path / "second")
    for key, tensor in weights(first).items():
        expected = tensor.half().float() if type == "f16" and tensor.dim() > 1 else tensor
        assert torch.equal(weights(second)[key], expected), key
    original = weights(gptkit.load(tmp_path / "run"))
    assert any(not torch.equal(tensor, original[key]) for key, tensor in weights(first).items())
    assert [second.tokenizer.encode(text) for text in TEXTS] == [first.tokenizer.encode(text) for text in TEXTS]


def test_every_quantized_type_is_read_like_the_gguf_package(tmp_path: Path) -> None:
    """Rows of block formats contain whole blocks; the values equal those of the `gguf` package."""
    gguf = pytest.importorskip("gguf")
    kinds = gguf.GGMLQuantizationType
    numbers = torch.randn(6, 64)
    for kind in (kinds.Q8_0, kinds.Q4_1, kinds.Q5_0):
        packed = gguf.quantize(numbers.numpy(), kind)
        writer = gguf.GGUFWriter(tmp_path / f"{kind.name}.gguf", "llama")
        writer.add_tensor("a.weight", packed, raw_dtype=kind)
        writer.add_tensor("b.weight", numbers.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        result = GgufFile(tmp_path / f"{kind.name}.gguf")
        assert torch.equal(result.get("a.weight"), torch.from_numpy(gguf.dequantize(packed, kind)))
        assert torch.equal(result.get("b.weight"), numbers)
        assert result.tensors["a.weight"].dtype == torch.float32


def test_missing_gguf_package_is_named_for_quantized_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unquantized tensors need no package; for quantized ones, the error names it."""
    file = export_model(make_run(tmp_path / "run", DECODER), tmp_path / "model.gguf", to={"name": "gguf", "type": "f16"})
    monkeypatch.setitem(sys.modules, "gguf", None)
    gptkit.import_model(file, tmp_path / "back")
    data = file.read_bytes()
    entry = b"blk.0.attn_q.weight" + struct.pack("<IQQI", 2, 64, 64, 1)
    assert entry in data
    file.write_bytes(data.replace(entry, entry[:-4] + struct.pack("<I", 8)))
    with pytest.raises(ExternalModelError, match=r"blk\.0\.attn_q\.weight is quantized") as caught:
        gptkit.import_model(file, tmp_path / "again")
    assert caught.value.hint is not None
    assert "gptkit[gguf]" in caught.value.hint


def test_gguf_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from gptkit.cli.main import app

    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run", DECODER)
    call = CliRunner().invoke
    done = call(app, ["export", "run", "--to", "gguf", "--type", "f16"])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "checked: the export has the 29 tensors of family 'llama'" in text
    assert "compared on 64 tokens: largest logit difference 0.0" in text
    assert "nats per token, same most likely token at 6" in text
    done = call(app, ["import", "exports/run.gguf"])
    assert done.exit_code == 0, done.output
    provenance = json.loads((tmp_path / "runs" / "run" / "provenance.json").read_text())
    assert provenance["imported"] == {"family": "llama", "format": "gguf", "from": "run.gguf"}
    assert call(app, ["export", "run", "--to", "gguf"]).exit_code == 2
