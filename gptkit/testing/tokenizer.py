"""Checks of tokenizers."""

from __future__ import annotations

import itertools
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.testing.check import Checks, expect, skip
from gptkit.testing.subject import Subject
from gptkit.testing.texts import CORPUS, TEXTS

__all__ = ["checks"]

checks = Checks()


def _spellable(tokenizer: Tokenizer) -> list[str]:
    """Return the texts that it can encode: a tokenizer without a fallback rejects some."""
    result = []
    for text in [*TEXTS, *CORPUS]:
        try:
            tokenizer.encode(text)
        except TokenizerError:
            expect(not tokenizer.lossless, f"it declares that it is lossless, but rejects {text[:40]!r}")
        else:
            result.append(text)
    expect(CORPUS[0] in result, "it cannot encode the text that it was fitted on")
    return result


def _first_difference(one: str, other: str) -> str:
    at = next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other)))
    return f"at character {at} {one[at : at + 12]!r} became {other[at : at + 12]!r}"


@checks.add("fits", "Reproducible runs require that fitting twice on the same texts gives equal tokenizers.")
def fits(subject: Subject) -> None:
    try:
        one, other = subject.spec.fit(iter(CORPUS)), subject.spec.fit(iter(CORPUS))
    except TokenizerError as error:
        expect(False, f"it could not be fitted on a small corpus: {error.message}")
    alike = one.vocab_size == other.vocab_size and one.encode(CORPUS[0]) == other.encode(CORPUS[0])
    expect(alike, "fitted twice on the same texts, it returns different ids")
    if not subject.spec.needs_corpus:
        try:
            bare = subject.spec.fit(iter(()))
        except TokenizerError as error:
            expect(False, f"without texts it cannot be fitted ({error.message}); let `needs_corpus` return True")
        alike = one.vocab_size == bare.vocab_size and one.encode(CORPUS[0]) == bare.encode(CORPUS[0])
        expect(alike, "without texts it returns other ids, so it reads them; let `needs_corpus` return True")
    bound = subject.spec.expected_vocab_size
    expect(bound is None or one.vocab_size <= bound, f"it has {one.vocab_size} ids, but expected_vocab_size is {bound}")


@checks.add("ids-in-range", "An id outside the vocabulary causes an index error in training.")
def ids_in_range(subject: Subject) -> None:
    tokenizer = subject.tokenizer
    for text in _spellable(tokenizer):
        ids = tokenizer.encode(text)
        other = next((token for token in ids if not isinstance(token, (int, np.integer))), None)
        expect(other is None, f"encode({text[:30]!r}) contains {other!r}, a {type(other).__name__}, which is not an integer")
        wrong = [token for token in ids if not 0 <= token < tokenizer.vocab_size]
        expect(
            not wrong, f"id {wrong[0] if wrong else ''} of {text[:30]!r} is outside the vocabulary of {tokenizer.vocab_size}"
        )
    for token, number in tokenizer.special_tokens.items():
        expect(
            0 <= number < tokenizer.vocab_size,
            f"{token!r} has id {number}, outside the vocabulary of {tokenizer.vocab_size}",
        )
    for attribute in ("start_id", "end_id"):
        end = getattr(tokenizer, attribute)
        expect(
            end is None or 0 <= end < tokenizer.vocab_size,
            f"{attribute} is {end}, outside the vocabulary of {tokenizer.vocab_size}",
        )


@checks.add("every-id-decodes", "A model may generate any id of the vocabulary; others must be an error.")
def every_id_decodes(subject: Subject) -> None:
    tokenizer = subject.tokenizer
    tokenizer.decode(range(tokenizer.vocab_size))
    for wrong in (-1, tokenizer.vocab_size):
        try:
            text = tokenizer.decode([wrong])
        except TokenizerError:
            continue
        expect(False, f"id {wrong}, which does not exist, is decoded as {text!r}; raise a TokenizerError")


@checks.add("text-comes-back", "A model cannot learn text that is lost in tokens, so lossy tokenizers must declare it.")
def text_comes_back(subject: Subject) -> None:
    tokenizer = subject.tokenizer
    if not tokenizer.lossless:
        skip("it declares that it is lossy")
    some = "".join(chr(code) for start in (0, 0x300, 0x2000, 0x1F600, 0xE000) for code in range(start, start + 150))
    for text in [*_spellable(tokenizer), some]:
        back = tokenizer.decode(tokenizer.encode(text))
        seen = _first_difference(text, back)
        expect(back == text, f"it declares that it is lossless, but a text is not restored: {seen}")


@checks.add("specials-cannot-be-injected", "A special token typed by a user must not end a text or begin another turn.")
def specials_cannot_be_injected(subject: Subject) -> None:
    tokenizer = subject.tokenizer
    try:
        usual = set(tokenizer.encode("\u0378 q☃"))  # a token for unknown characters may occur in any text
    except TokenizerError:
        usual = set()
    for token, number in tokenizer.special_tokens.items():
        if number in usual:
            continue
        text = f"the{token} sheep {token}"
        for what, encode in (("encode", tokenizer.encode), ("encode_batch", lambda t: tokenizer.encode_batch([t])[0])):
            try:
                ids = encode(text)
            except TokenizerError:
                continue  # it cannot spell the text, which is equally safe
            expect(number not in ids, f"{what}({text!r}) contains the id of {token!r}, which was not allowed")
        allowed = tokenizer.encode(token, allowed_special=[token])
        expect(number in allowed, f"encode({token!r}, allowed_special=…) does not contain its id {number}: {allowed}")
    try:
        tokenizer.encode("the", allowed_special=["<|no such token|>"])
    except TokenizerError:
        return
    expect(False, "a special token that does not exist is accepted in allowed_special; raise a TokenizerError")


@checks.add(
    "keeps-text-around-specials", "Prompts of conversations have special tokens within their text, which must be kept."
)
def keeps_text_around_specials(subject: Subject) -> None:
    tokenizer = subject.tokenizer
    if not tokenizer.lossless:
        skip("it declares that it is lossy")
    if not tokenizer.special_tokens:
        skip("it has no special tokens")
    for token in tokenizer.special_tokens:
        text = f"the {token} sheep\n{token}{token}waited "
        try:
            ids = tokenizer.encode(text, allowed_special=[token])
        except TokenizerError:
            continue  # it cannot spell the text
        back = tokenizer.decode(ids)
        seen = _first_difference(text, back)
        expect(back == text, f"encode(…, allowed_special=[{token!r}]) does not restore the text around it: {seen}")


@checks.add("batch-equals-single", "Corpora are encoded in batches and prompts one at a time; the ids must be equal.")
def batch_equals_single(subject: Subject) -> None:
    tokenizer = subject.tokenizer
    texts = _spellable(tokenizer)
    single = [tokenizer.encode(text) for text in texts]
    for text, ids, wanted in zip(texts, tokenizer.encode_batch(texts), single, strict=True):
        expect(ids == wanted, f"encode_batch returns {ids[:8]} for {text[:30]!r}, but encode returns {wanted[:8]}")
    expect(tokenizer.encode_batch([]) == [], "encode_batch of no texts is not an empty list")
    for text, wanted in zip(texts, single, strict=True):
        ids = [int(token) for token in tokenizer.encode_array(text)]
        expect(ids == wanted, f"encode_array returns {ids[:8]} for {text[:30]!r}, but encode returns {wanted[:8]}")


@checks.add("threads", "Corpora are encoded by several threads at once; a tokenizer keeps no state between calls.")
def threads(subject: Subject) -> None:
    tokenizer = subject.tokenizer
    texts = _spellable(tokenizer) * 6
    single = [tokenizer.encode(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        expect(list(pool.map(tokenizer.encode, texts)) == single, "four threads at once get other ids than one alone")
        decoded = list(pool.map(tokenizer.decode, single))
    expect(decoded == [tokenizer.decode(ids) for ids in single], "four threads at once get other texts than one alone")


@checks.add(
    "streaming-equals-whole", "Text is streamed during generation; the concatenated pieces must equal the decoded text."
)
def streaming_equals_whole(subject: Subject) -> None:
    tokenizer = subject.tokenizer
    size = tokenizer.vocab_size
    texts = [tokenizer.encode(text) for text in _spellable(tokenizer)]
    for ids in [*texts, [index * 7919 % size for index in range(60)], [size - 1, 0, size // 2] * 4]:
        stream = tokenizer.stream()
        pieces = "".join([*map(stream.push, ids), stream.finish()])
        whole = tokenizer.decode(ids)
        expect(pieces == whole, f"streamed piece by piece, {_first_difference(whole, pieces)}")
    # Several texts are generated at once, each with a stream of its own.
    one, other = texts[-1], texts[0] or texts[-1][::-1]
    streams = tokenizer.stream(), tokenizer.stream()
    joined = ["", ""]
    for pair in itertools.zip_longest(one, other):
        for index, token in enumerate(pair):
            joined[index] += "" if token is None else streams[index].push(token)
    for index, ids in enumerate((one, other)):
        text, whole = joined[index] + streams[index].finish(), tokenizer.decode(ids)
        expect(text == whole, f"two streams at once change each other's texts: {_first_difference(whole, text)}")


@checks.add("saved-and-loaded", "A run stores its tokenizer's files and is loaded without the corpus.")
def saved_and_loaded(subject: Subject) -> None:
    tokenizer = subject.tokenizer
    with tempfile.TemporaryDirectory(prefix="gptkit-check-") as directory:
        saved, moved = Path(directory, "saved"), Path(directory, "moved")
        saved.mkdir()
        tokenizer.save(saved)
        subject.spec.load(saved)
        saved.rename(moved)  # a run may be moved or copied to another machine
        try:
            loaded = subject.spec.load(moved)
        except TokenizerError as error:
            expect(False, f"from a directory that was renamed after `save` it cannot be loaded: {error.message}")
        for fact in ("vocab_size", "special_tokens", "start_id", "end_id", "lossless", "leading"):
            value, expected = getattr(loaded, fact), getattr(tokenizer, fact)
            expect(value == expected, f"after saving and loading, {fact} is {value}, not {expected}")
        for text in _spellable(tokenizer):
            expect(
                loaded.encode(text) == tokenizer.encode(text),
                f"saved and loaded, it has other ids for {text[:30]!r}",
            )
        same_bytes = all(loaded.token_bytes(token) == tokenizer.token_bytes(token) for token in range(loaded.vocab_size))
        expect(same_bytes, "saved and loaded, tokens stand for other bytes")
    with tempfile.TemporaryDirectory(prefix="gptkit-check-") as directory:
        try:
            subject.spec.load(Path(directory))
        except TokenizerError:
            return
        expect(not subject.spec.needs_corpus, "from an empty directory it loads a tokenizer; raise a TokenizerError")


@checks.add("exports-its-ids", "An exported model reads ids of its tokenizer.json, which must be those it was trained with.")
def exports_its_ids(subject: Subject) -> None:
    tokenizer = subject.tokenizer
    try:
        text = tokenizer.to_tokenizer_json()
    except TokenizerError as error:
        skip(f"it cannot be exported: {error.message}")
    from tokenizers import Tokenizer as External

    external = External.from_str(text)
    for each in _spellable(tokenizer):
        ids, wanted = external.encode(each, add_special_tokens=False).ids, tokenizer.encode(each)
        at = f"the tokenizer.json gives {ids[:8]} for {each[:30]!r}"
        expect(ids == wanted, f"{at}, but encode returns {wanted[:8]}; raise a TokenizerError if it cannot be expressed")


@checks.add("lone-surrogates", "Text from the web may contain lone surrogates, which must be read as U+FFFD.")
def lone_surrogates(subject: Subject) -> None:
    tokenizer = subject.tokenizer
    try:
        wanted = tokenizer.encode("a\ufffdb")
        got = tokenizer.encode("a\ud800b")
    except TokenizerError:
        return  # it cannot spell U+FFFD, and says so
    expect(got == wanted, f"a lone surrogate gives the ids {got}, and U+FFFD {wanted}")
