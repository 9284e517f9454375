"""Linear head: one projection to the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import optional_component
from gptkit.core.errors import Problem
from gptkit.kinds.context import BuildContext
from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.kinds.head import HeadSpec
from gptkit.kinds.linear import LinearSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.embedding import Embedding
    from gptkit.nn.head import Head

__all__ = ["LinearHeadSpec"]


class LinearHeadSpec(HeadSpec):
    """Linear projection to logits; `tied` uses the embedding's table as its weight.

    Formula:
        logits = scale · (W · x + b), and with softcap c: c · tanh(u) with u = (logits + softcap_shift) / softcap_width;
        softcap_form sigmoid: c · σ(u); rational: c · u / √(1 + u²)
        loss = −mean ((1 − ε) · ln p[target] + ε / V · Σ ln p) + z_loss · mean (ln Σ exp logits)²,
        p = softmax(logits), ε = label_smoothing, V = vocabulary

    Shapes:
        (B, T, d_model) → (B, T, vocabulary)
        W: (vocabulary, d_model); if tied, the embedding's table, after a projection if the table is narrower than the model

    Paper:
        https://arxiv.org/abs/1608.05859

    Notes:
        The loss and its gradients are computed in chunks of rows, so the logits of a batch are never in memory at once.
        `z_loss` keeps logits from drifting (PaLM: 1e-4); `label_smoothing` (arXiv 1512.00567) keeps them from growing
        without bound. Both apply in training only, so that a validation loss stays a cross-entropy.
        The symmetric sigmoid form of cap c is the tanh form of cap c / 2 plus a constant, hence the same model; with a shift
        the bound is asymmetric (modded-nanogpt: `softcap: 23`, `softcap_form: sigmoid`, `softcap_shift: 5`,
        `softcap_width: 7.5`). The rational form (`softcap: 15` in modded-nanogpt's simple script) has a slope that decays
        polynomially.
    """

    formula: ClassVar[str] = r"""
        z = \text{scale} \cdot (W x + b) \qquad p = \operatorname{softmax}(z)
        \text{loss} = -\overline{(1 - \epsilon) \ln p_y + \frac{\epsilon}{V} \sum_v \ln p_v}
    """

    name: Literal["linear"] = "linear"
    tied: bool = Field(False, description="Use the embedding's table as W.")
    bias: bool = Field(False, description="Add a bias for each token (GPT-J, Phi).")
    scale: float = Field(1.0, description="Factor of the logits (Cohere: 0.0625; Granite: 1 / logits_scaling).")
    softcap: float | None = Field(None, description="c: soft bound of the logits (Gemma 2: 30).", gt=0)
    softcap_form: Literal["tanh", "sigmoid", "rational"] = Field("tanh", description="Function of the soft bound.")
    softcap_shift: float = Field(0.0, description="Added to the logits before the soft bound.", allow_inf_nan=False)
    softcap_width: float | None = Field(
        None,
        description="Divisor of the logits before the soft bound; by default that with slope 1, c (sigmoid: c / 4).",
        gt=0,
    )
    z_loss: float = Field(0.0, description="Weight of the squared log-normalizer in the training loss.", ge=0)
    label_smoothing: float = Field(
        0.0, description="ε: the share of the target's probability that is distributed evenly over all tokens.", ge=0, lt=1
    )

    linear: LinearSpec | None = optional_component(
        description="Projection to the vocabulary, if it is not the plain product (for example ternary weights)."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"tied": True},
        {"bias": True, "scale": 0.5},
        {"tied": True, "softcap": 30.0, "z_loss": 1e-4},
        {"label_smoothing": 0.1},
        {"softcap": 23.0, "softcap_form": "sigmoid", "softcap_shift": 5.0, "softcap_width": 7.5},
        {"softcap": 15.0, "softcap_form": "rational", "bias": True},
    )

    @property
    def softcap_divisor(self) -> float:
        """The divisor of the logits before the soft bound; 1 without a bound."""
        if self.softcap_width is not None or self.softcap is None:
            return self.softcap_width or 1.0
        return self.softcap / 4 if self.softcap_form == "sigmoid" else self.softcap

    @property
    def plain_softcap(self) -> bool:
        """Whether the soft bound is c · tanh(logits / c), the only one that other programs have a name for."""
        return self.softcap is not None and (self.softcap_form, self.softcap_shift, self.softcap_divisor) == (
            "tanh",
            0,
            self.softcap,
        )

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if self.softcap is None:
            for name in ("softcap_form", "softcap_shift", "softcap_width"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    yield Problem((name,), f"{name} has no effect without a soft bound; set softcap, or remove it")
        if self.tied and self.linear is not None:
            yield Problem(("linear",), "a tied head has no projection of its own; remove `linear`, or set tied: false")

    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        from gptkit.components.head.modules.linear import LinearHead

        return LinearHead(self, context, embedding)

    def softcapped(self, logits: str, cap: str, width: str, shift: str) -> str:
        """Return the expression of the bounded logits in the code that `gptkit eject` and `export` write.

        Args:
            logits: the expression of the logits.
            cap, width, shift: the expressions of the constants.
        """
        from gptkit.components.head.written.linear import softcapped

        return softcapped(self, logits, cap, width, shift)

    def written(self, context: WritingContext, *, embedding: EmbeddingSpec) -> Written:
        from gptkit.components.head.written.linear import linear_head

        return linear_head(self, context, embedding)
