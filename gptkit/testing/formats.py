"""Checks of formats of external models, with a tiny model that is written and read back."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError, GptkitError
from gptkit.core.registry import Registry
from gptkit.files import validate_data
from gptkit.interop.checking import check_tensors
from gptkit.interop.conversion import families, family_of, pair, read_model
from gptkit.interop.differences import differences
from gptkit.interop.selection import formats
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.format import ExternalModel, ExternalTokenizer, FormatSpec, NativeModel, Note, TensorEntry
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.testing.check import Checks, expect, skip
from gptkit.testing.subject import Subject, stirred

__all__ = ["checks"]

checks = Checks()

_VOCAB = 257
_SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 4),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim"), 256),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 32),
    "vocab_size": _VOCAB,
}
"""Sizes of a tiny model under the names that most configurations use."""
_TEXT = "Once upon a time, a wyvern wrote: 'naïve façade' (€ 3.50)\n"


class _Weights:
    """The tensors of a model in memory."""

    def __init__(self, model: GPT) -> None:
        self._tensors = {name: tensor.detach() for name, tensor in model.named_parameters()}

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        return {name: TensorEntry(tuple(tensor.shape), tensor.dtype) for name, tensor in self._tensors.items()}

    def get(self, name: str) -> Tensor:
        return self._tensors[name]


@dataclass(frozen=True)
class _Written:
    """A tiny model that a format has written."""

    native: NativeModel
    family: str
    path: Path
    remarks: Sequence[str]
    progress: Sequence[tuple[int, int]]
    owner: TemporaryDirectory[str]


def _spec(subject: Subject) -> FormatSpec:
    return cast("FormatSpec", subject.spec)


def _require_readable(subject: Subject) -> None:
    if _spec(subject).is_program:
        skip("its files are programs, which are not imported")


def _candidates(registry: Registry, dtype: torch.dtype = torch.float32) -> Iterator[tuple[str, NativeModel]]:
    """Tiny models of the families, a llama and a gpt2 first: a format may be that of any one family."""
    byte = registry.component("tokenizer", "byte").model_validate({"name": "byte"}, context={"registry": registry})
    tokenizer = cast("TokenizerSpec", byte).fit(iter(()))
    known = families(registry)
    first = [name for name in ("llama", "gpt2") if name in known]
    for name in (*first, *sorted(known.keys() - first)):
        try:
            spec = validate_data(known[name].model(ExternalConfig(_SIZES)), ModelSpec, registry)
            model = stirred(GPT(spec, _VOCAB, seed=0))
        except GptkitError:
            continue  # it requires more than common sizes
        yield name, NativeModel("tiny", model.spec, _Weights(model.to(dtype)), tokenizer)


_writes: WeakKeyDictionary[Subject, dict[torch.dtype, _Written]] = WeakKeyDictionary()


def _write(subject: Subject, directory: str, dtype: torch.dtype = torch.float32) -> _Written:
    """Write the first tiny model that the format can express, once for all checks; return a copy in a directory.

    Raises:
        NotApplicableError: the format is read only.
        ContractError: it expresses no tiny model; gives its message about the first.
    """
    known = _writes.setdefault(subject, {})
    if dtype not in known:
        known[dtype] = _first_written(subject, dtype)
    written = known[dtype]
    path = Path(directory, written.path.name)
    if written.path.is_dir():
        shutil.copytree(written.path, path)
    else:
        shutil.copyfile(written.path, path)
    return replace(written, path=path)


def _first_written(subject: Subject, dtype: torch.dtype) -> _Written:
    spec = _spec(subject)
    if not spec.can_write:
        skip("the format cannot be written")
    owner = TemporaryDirectory(prefix="gptkit-check-")
    refusal = "no family is installed"
    for number, (family, native) in enumerate(_candidates(subject.registry, dtype)):
        path = Path(owner.name, f"model{number}" + "".join(spec.suffixes[:1]))
        seen: list[tuple[int, int]] = []
        try:
            remarks = spec.write(native, path, progress=partial(_record, seen))
        except ExternalModelError as error:
            refusal = refusal if number else f"{family}: {error.message}"
            continue
        expect(path.exists(), "write returned, and there is nothing at the path that it was given")
        return _Written(native, family, path, remarks, seen, owner)
    expect(False, f"it can write no tiny model of an installed family; {refusal}")
    raise AssertionError


@lru_cache(maxsize=2)
def _exports(registry: Registry) -> tuple[TemporaryDirectory[str], Sequence[tuple[str, FormatSpec, Path]]]:
    """Return a tiny model in each format that can express it, and the directory that owns the files."""
    owner = TemporaryDirectory(prefix="gptkit-check-")
    native = next((native for _, native in _candidates(registry)), None)
    result = []
    for name, each in formats(registry).items():
        if not each.can_write or native is None:
            continue
        path = Path(owner.name, name + "".join(each.suffixes[:1]))
        try:
            each.write(native, path)
        except ExternalModelError:
            continue
        result.append((name, each, path))
    return owner, result


def _record(seen: list[tuple[int, int]], done: int, total: int) -> None:
    seen.append((done, total))


def _tensors(external: ExternalModel, subject: Subject) -> Mapping[str, Tensor]:
    """The tensors of an external model under their native names."""
    family, config = family_of(external, subject.registry)
    shell, stored = GPT(read_model(family, config, registry=subject.registry), device="meta"), external.tensors()
    moves = pair(family, shell)
    names = check_tensors(family, shell, moves, stored.entries, external.location)
    return {move.native: move.join([stored.get(names[name]) for name in move.external]) for move in moves}


@checks.add("written-model-reads-back", "An export that is imported again must be the same model with the same weights.")
def written_model_reads_back(subject: Subject) -> None:
    _require_readable(subject)
    with TemporaryDirectory(prefix="gptkit-check-") as directory:
        written = _write(subject, directory)
        detection = _spec(subject).detect(written.path)
        expect(0 < detection.score <= 1, f"detect gives the score {detection.score} to its own export")
        external = _spec(subject).read(written.path)
        family, config = family_of(external, subject.registry)
        changes = differences(written.native.spec, read_model(family, config, registry=subject.registry))
        expect(not changes, f"written and read again, the model is another: {'; '.join(changes[:3])}")
        for name, tensor in _tensors(external, subject).items():
            same = torch.equal(tensor, written.native.tensors.get(name))
            expect(same, f"written and read again, {name} is another")


@checks.add("stores-half-precision", "Released weights are in bfloat16, whose values an export must not round or refuse.")
def stores_half_precision(subject: Subject) -> None:
    _require_readable(subject)
    with TemporaryDirectory(prefix="gptkit-check-") as directory:
        written = _write(subject, directory, torch.bfloat16)
        for name, tensor in _tensors(_spec(subject).read(written.path), subject).items():
            same = torch.equal(tensor.float(), written.native.tensors.get(name).float())
            expect(same, f"written in bfloat16 and read again, {name} has other values")


@checks.add("keeps-the-tokenizer", "A model without its tokenizer is of no use, so one that is not stored is reported.")
def keeps_the_tokenizer(subject: Subject) -> None:
    _require_readable(subject)
    with TemporaryDirectory(prefix="gptkit-check-") as directory:
        written = _write(subject, directory)
        try:
            stored = _spec(subject).read(written.path).tokenizer()
        except ExternalModelError as error:
            warnings = [remark for remark in written.remarks if not isinstance(remark, Note)]
            expect(warnings, f"the export has no tokenizer ({error.message}), and write returned no remark about it")
            return
        ids = written.native.tokenizer.encode(_TEXT)
        again = _restored(stored, subject).encode(_TEXT)
        expect(again == ids, f"written and read again, the tokenizer gives the ids {again[:6]}…, not {ids[:6]}…")


def _restored(stored: ExternalTokenizer, subject: Subject) -> Tokenizer:
    cls = subject.registry.component("tokenizer", str(stored.spec["name"]))
    with TemporaryDirectory(prefix="gptkit-check-") as directory:
        for name, data in stored.files.items():
            Path(directory, name).write_bytes(data)
        own = {"path": directory} if stored.files else {}
        return cast("TokenizerSpec", cls.model_validate({**stored.spec, **own})).fit(iter(()))


@checks.add("detects-only-its-own", "A format that claims the models of others makes every import of them ambiguous.")
def detects_only_its_own(subject: Subject) -> None:
    spec = _spec(subject)
    for suffix in spec.suffixes:
        expect(suffix.startswith(".") and suffix == suffix.lower(), f"the suffix {suffix!r} is not like '.ext'")
    with TemporaryDirectory(prefix="gptkit-check-") as directory:
        (empty := Path(directory, "empty")).mkdir()
        (notes := Path(directory, "notes.txt")).write_text("Nothing of interest.\n", encoding="utf-8")
        for path, what in ((empty, "an empty directory"), (notes, "a text file")):
            expect(spec.detect(path).score == 0, f"detect gives the score {spec.detect(path).score} to {what}")
        for name, other, path in _exports(subject.registry)[1]:
            if isinstance(spec, type(other)):
                continue
            score, own = spec.detect(path).score, other.detect(path).score
            expect(score < own, f"detect gives the score {score} to an export of {name!r}, which itself gives {own}")


@checks.add("refuses-damage", "A download that broke off is common; the user needs a message with the file, no traceback.")
def refuses_damage(subject: Subject) -> None:
    spec = _spec(subject)
    with TemporaryDirectory(prefix="gptkit-check-") as directory:
        written = _write(subject, directory)
        files = [file for file in sorted(written.path.rglob("*")) if file.is_file()] or [written.path]
        for file in files:
            whole = file.read_bytes()
            middle = len(whole) // 2
            damages = {
                "cut in the middle": whole[:middle],
                "emptied": b"",
                "overwritten at its beginning": bytes(64) + whole[64:],
                "overwritten in the middle": whole[:middle] + bytes(256) + whole[middle + 256 :],
            }
            for what, content in damages.items():
                file.write_bytes(content)
                _read_damaged(spec, written.path, f"{file.name}, {what},", subject)
            file.write_bytes(whole)


def _read_damaged(spec: FormatSpec, path: Path, what: str, subject: Subject) -> None:
    try:
        if spec.detect(path).score == 0:
            return
        external = spec.read(path)
        _tensors(external, subject)
        _restored(external.tokenizer(), subject)
    except GptkitError:
        return  # a message for the user
    except Exception as error:
        expect(
            False, f"{what} raises {type(error).__name__}: {error}; raise an ExternalModelError that says what is damaged"
        )


@checks.add(
    "writes-the-chosen-family", "The program that is to load an export names the family; a model of another is of no use."
)
def writes_the_chosen_family(subject: Subject) -> None:
    _require_readable(subject)
    with TemporaryDirectory(prefix="gptkit-check-") as directory:
        written = _write(subject, directory)
        spec, path = _spec(subject), Path(directory, "again" + "".join(_spec(subject).suffixes[:1]))
        spec.write(written.native, path, family=written.family)
        result = family_of(spec.read(path), subject.registry)[0].component_name()
        expect(result == written.family, f"asked for the family {written.family!r}, it wrote the family {result!r}")
        missing = Path(directory, "missing" + "".join(spec.suffixes[:1]))
        try:
            spec.write(written.native, missing, family="no-such-family")
        except ExternalModelError:
            return
        expect(False, "asked for a family that does not exist, it wrote another; refuse it with an ExternalModelError")


@checks.add("reports-progress", "Writing a large model takes minutes, of which the command shows a bar.")
def reports_progress(subject: Subject) -> None:
    with TemporaryDirectory(prefix="gptkit-check-") as directory:
        seen: Any = _write(subject, directory).progress
        expect(seen, "write never called `progress`")
        done, total = seen[-1]
        expect(done == total > 0, f"at the end, progress was {done} of {total} bytes")
        falling = any(later[0] < earlier[0] for earlier, later in itertools.pairwise(seen))
        expect(not falling, "progress went backwards")
