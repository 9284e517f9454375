"""Copies of attentions that derive from `SoftmaxAttention`: its methods, written for one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptkit.ejection.constructing import Copier
from gptkit.kinds.written import Setting, Written, fill

__all__ = ["SoftmaxMethods"]

_ATTEND = '''
def attend(self, q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, forward: Context) -> Tensor:
    """Attend to these and earlier tokens: position, cache, mask and softmax, to (B, H, T, D)."""
    #if rotates
    q_BHTD, k_BHTD = self.rotate(q_BHTD, k_BHTD, forward)
    #end
    _, (k_BHSD, v_BHSD) = forward.state(self).append(k_BHTD, v_BHTD)
    return self.score(q_BHTD, k_BHSD, v_BHSD, forward)
'''

_ROTATE = '''
def rotate(self, q_BHTD: Tensor, k_BHTD: Tensor, forward: Context) -> tuple[Tensor, Tensor]:
    """Apply the position to queries and keys."""
    #if positioned
    positions_T = forward.positions_T
    #end
    #if both
    q_BHTD, k_BHTD = $both
    #end
    #if query
    q_BHTD = $query
    #end
    #if key
    k_BHTD = $key
    #end
    #if norms
    q_BHTD, k_BHTD = self.q_norm(q_BHTD), self.k_norm(k_BHTD)
    #end
    return q_BHTD, k_BHTD
'''

_SCORE = '''
def score(
    self,
    q_BHTD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    forward: Context,
    offset: Any = 0,
    added: Tensor | None = None,
    content: Tensor | None = None,
) -> Tensor:
    """Return the heads' outputs for these queries and all keys so far, (B, H, T, D)."""
    #if reads
    positions_T, cache = forward.positions_T, forward.cache
    #end
    k_BHSD = k_BHSD.repeat_interleave(q_BHTD.shape[1] // k_BHSD.shape[1], dim=1)
    v_BHSD = v_BHSD.repeat_interleave(q_BHTD.shape[1] // v_BHSD.shape[1], dim=1)
    scores_BHTS = q_BHTD @ k_BHSD.mT * $ATTENTION_SCALE
    #if content
    scores_BHTS = scores_BHTS + $content
    #end
    #if content_term
    if content is not None:
        scores_BHTS = scores_BHTS + content
    #end
    #if softcap
    scores_BHTS = $ATTENTION_SOFTCAP * torch.tanh(scores_BHTS / $ATTENTION_SOFTCAP)
    #end
    #if mixes_scores
    scores_BHTS = self.mix_scores(scores_BHTS)
    #end
    #if bias
    scores_BHTS = scores_BHTS + $bias
    #end
    #if added_term
    if added is not None:
        scores_BHTS = scores_BHTS + added
    #end
    mask = forward.mask(offset, k_BHSD.size(2), window=$WINDOW).dense()
    scores_BHTS = scores_BHTS.masked_fill(~mask, -torch.inf)
    #if sinks
    sinks_BHT1 = self.sinks[:, None, None].expand(*scores_BHTS.shape[:3], 1)
    weights_BHTS = torch.cat((scores_BHTS, sinks_BHT1), dim=-1).softmax(dim=-1)[..., :-1]
    #else
    weights_BHTS = scores_BHTS.softmax(dim=-1)
    #end
    #if mixes_weights
    weights_BHTS = self.mix_weights(weights_BHTS)
    #end
    #if dropout
    weights_BHTS = F.dropout(weights_BHTS, $ATTENTION_DROPOUT, self.training)
    #end
    y_BHTD = weights_BHTS.to(v_BHSD.dtype) @ v_BHSD
    #if values
    y_BHTD = y_BHTD + $values
    #end
    return y_BHTD
'''

_CALLS = {"query", "key", "both", "bias", "content", "values", "unrotated", "recompute"}


class SoftmaxMethods:
    """The methods of `SoftmaxAttention` for one layer.

    Args:
        module: the built attention.
        copier: the copies of it.

    Raises:
        NotWrittenError: its position cannot be written out, or it has a mask pattern.

    Attributes:
        templates: the methods, by name.
        parts: the layer's position, and functions that it uses beside it.
        settings: values of the placeholders.
        position: the attribute of the position's module; empty if it is a function.
    """

    def __init__(self, module: Any, copier: Copier) -> None:
        built = copier.recorder.components.get(id(module.position))
        position = None if built is None else copier.nested(built)
        spec: Any = None if built is None else built.spec
        if spec is not None and spec.depends_on_length and position is not None and "recompute" not in position.calls:
            raise copier.refuse(f"position {spec.name!r} depends on the length of the text")
        if module.pattern is not None:
            raise copier.refuse(f"its mask pattern is {module.pattern}")
        calls: Mapping[str, str] = {} if position is None else position.calls
        unknown = set(calls) - _CALLS
        if unknown:
            raise copier.refuse(f"its position has calls that it does not use: {', '.join(sorted(unknown))}")
        names = {"q": "q_BHTD * $ATTENTION_SCALE", "k": "k_BHSD", "n_keys": "k_BHSD.shape[2]", "weights": "weights_BHTS"}
        terms = {
            purpose: position.call(purpose, **names) if position is not None and purpose in calls else ""
            for purpose in ("bias", "content", "values")
        }
        rotated = {"query": "", "key": "", "both": ""}
        for purpose, arguments in (
            ("query", {"x": "q_BHTD"}),
            ("key", {"x": "k_BHTD"}),
            ("both", {"q": "q_BHTD", "k": "k_BHTD"}),
        ):
            if position is not None and purpose in calls:
                rotated[purpose] = position.call(purpose, **arguments)
        rotates = any(rotated.values()) or module.norms_after
        self.templates = {
            "attend": fill(_ATTEND, rotates=rotates),
            "rotate": fill(_ROTATE, positioned=any(rotated.values()), norms=module.norms_after, **rotated),
            "score": fill(
                _SCORE,
                reads=any(terms.values()),
                softcap=module.softcap is not None,
                mixes_scores=module.mixes_scores,
                mixes_weights=module.mixes_weights,
                added_term=module.features.added_term,
                content_term=module.features.content_term,
                sinks=module.has_sinks,
                dropout=bool(module.dropout),
                **terms,
            ),
        }
        self.settings = {
            "ATTENTION_SCALE": Setting(module.scale, "factor of the dot products"),
            "WINDOW": Setting(module.window, "tokens that a token attends to, itself included"),
        }
        if module.softcap is not None:
            self.settings["ATTENTION_SOFTCAP"] = Setting(module.softcap, "soft bound of the scores")
        if module.dropout:
            self.settings["ATTENTION_DROPOUT"] = Setting(
                module.dropout, "share of the attention weights dropped in training"
            )
        self.parts: dict[str, Written] = {}
        self.position = ""
        if position is not None:
            # As in templates of attentions: the function or module itself, and functions that its calls name.
            named = [name for name in position.parts if any(f"${name}" in call for call in calls.values())]
            self.parts = {name: position.parts[name] for name in named}
            self.parts["position" if not position.is_function else position.name] = position
            self.position = "" if position.is_function else "position"
