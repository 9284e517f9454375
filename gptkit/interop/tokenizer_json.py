"""Our tokenizers as the tokenizer.json that transformers and others load."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Written

from gptkit.components.tokenizer.byte import ByteTokenizer
from gptkit.interop.merges import merges, spell
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.text.ranks import RankTokenizer

__all__ = ["tokenizer_json"]


def tokenizer_json(tokenizer: Tokenizer) -> str | None:
    """The file's text for `bpe`, `tiktoken` and `byte`; None for tokenizers that do not merge bytes."""
    if isinstance(tokenizer, RankTokenizer):
        ranks = tokenizer.ranks
        cut: pre_tokenizers.PreTokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(tokenizer.pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        pairs = merges(ranks)
    elif isinstance(tokenizer, ByteTokenizer):
        ranks = {bytes((value,)): value for value in range(256)}
        cut, pairs = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), []
    else:
        return None
    vocabulary = {spell(token): rank for token, rank in ranks.items()} | dict(tokenizer.special_tokens)
    written = Written(models.BPE(vocab=vocabulary, merges=pairs))
    written.pre_tokenizer = cut
    written.decoder = decoders.ByteLevel()
    written.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in tokenizer.special_tokens])
    return written.to_str(pretty=True)
