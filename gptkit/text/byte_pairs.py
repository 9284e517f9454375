"""Byte-level pair encodings: merges from ranks, and the tokenizer.json of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import BytePairs
from gptkit.text.bytes import spell

__all__ = ["merges_of_ranks", "tokenizer_json"]


def merges_of_ranks(ranks: Mapping[bytes, int]) -> list[tuple[str, str]]:
    """Return the pairs of printable tokens that form each token, in the order in which they are merged."""
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        # Every split of the token into two known ones is listed: any of them may be adjacent when the token is merged.
        pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [(ranks[a], ranks[b], a, b) for a, b in pairs if a in ranks and b in ranks]
        merges += [(spell(left), spell(right)) for *_, left, right in sorted(known)]
    return merges


def tokenizer_json(pairs: BytePairs, special_tokens: Mapping[str, int]) -> str:
    """Return the tokenizer.json of a byte-level pair encoding.

    Args:
        pairs: the encoding, split by a regular expression or not at all.
        special_tokens: special tokens and their ids.

    Raises:
        TokenizerError: `pairs` is split in another way.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    if not (pairs.split is None or isinstance(pairs.split, str)):
        raise TokenizerError("it is split by pre-tokenizers, which only its own tokenizer.json has")
    stages: Sequence[pre_tokenizers.PreTokenizer] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    if pairs.split is not None:
        stages = [pre_tokenizers.Split(Regex(pairs.split), "isolated"), *stages]
    model = models.BPE(vocab={**pairs.vocabulary, **special_tokens}, merges=list(pairs.merges))
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(stages))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special_tokens])
    return tokenizer.to_str(pretty=True)
