"""Templates of heads around another one, which alone computes the logits: `multi-token` and `distillation`."""

from __future__ import annotations

from collections.abc import Collection

from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.kinds.head import HeadSpec
from gptkit.kinds.written import WritingContext, Written, written

__all__ = ["wrapped"]


def wrapped(
    inner: HeadSpec,
    context: WritingContext,
    embedding: EmbeddingSpec,
    *,
    fields: Collection[str],
    unused: Collection[str] = (),
) -> Written:
    """Return the inner head, under the name that its parameters have.

    Args:
        fields: the fields of the outer head.
        unused: prefixes of parameters of the outer head, which are used in training only.
    """
    head = written(inner, context, embedding=embedding)
    unused = [*unused, *(f"head.{name}" for name in head.unused)]
    if not head.text and not head.expression:
        return Written("Head", calls=head.calls, fields=fields, unused=unused)
    logits = head.calls["logits"].replace("self.head", 'self.head["head"]')
    return Written(
        "Head",
        expression='nn.ModuleDict({"head": $head})',
        parts={"head": head},
        calls={"logits": logits},
        fields=fields,
        unused=unused,
    )
