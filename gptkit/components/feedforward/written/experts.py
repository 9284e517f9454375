"""Template of `experts`.

Shapes in it: B rows, T tokens, E features, N = B · T, K experts chosen for a token, M tokens of an expert.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, written, written_stacked

if TYPE_CHECKING:
    from gptkit.components.feedforward.experts import ExpertsSpec

__all__ = ["experts"]

_CLASS = '''
class $class_name(nn.Module):
    """Mixture of experts: a router chooses a few of many feed-forwards for each token."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.router = $router
        self.experts = $experts
        #if shared
        self.shared = $shared
        #end
        #if gate
        self.shared_gate = nn.Linear(D_MODEL, 1, bias=False)
        #end
        #if normed
        self.output_norm = $output_norm
        #end

    def forward(self, x_BTE: Tensor) -> Tensor:
        """Transform each token by its experts, (B, T, E) to (B, T, E)."""
        x_NE = x_BTE.flatten(0, 1)
        experts_NK, weights_NK = self.router(x_NE)
        y_NE = torch.zeros_like(x_NE)
        for expert in range($N_EXPERTS):
            tokens_M, choices_M = (experts_NK == expert).nonzero(as_tuple=True)
            weights_M1 = weights_NK[tokens_M, choices_M, None]
            #if on_input
            y_NE = y_NE.index_add(0, tokens_M, self.experts(weights_M1 * x_NE[tokens_M], expert))
            #else
            y_NE = y_NE.index_add(0, tokens_M, weights_M1 * self.experts(x_NE[tokens_M], expert))
            #end
        #if shared
        shared_BTE = self.shared(x_BTE)  # the shared expert, used by every token
        #end
        return $result
'''


def experts(spec: ExpertsSpec, context: WritingContext) -> Written:
    """Return the mixture as a class, and its router and experts."""
    form = written_stacked(spec.expert, context, n_experts=spec.n_experts) if context.stacks_linears else None
    if form is None:
        raise NotWrittenError(
            f"feedforward 'experts' cannot be written out with experts {spec.expert.name!r}, which have no stacked form",
            hint="Use gated or mlp as expert, with linear: dense.",
        )
    parts = {"router": written(spec.router, context, n_experts=spec.n_experts), "experts": form}
    if spec.shared is not None:
        parts["shared"] = written(spec.shared, context)
    if spec.output_norm is not None:
        parts["output_norm"] = written(spec.output_norm, context, dim=Name("D_MODEL"))
    result = "y_NE.view_as(x_BTE)"
    if spec.shared is not None:
        result += " + torch.sigmoid(self.shared_gate(x_BTE)) * shared_BTE" if spec.shared_gate else " + shared_BTE"
    if spec.scale != 1:
        result = f"$EXPERTS_SCALE * ({result})" if spec.shared is not None else f"$EXPERTS_SCALE * {result}"
    if spec.output_norm is not None:
        result = f"self.output_norm({result})"
    text = fill(
        _CLASS,
        shared=spec.shared is not None,
        gate=spec.shared_gate,
        on_input=spec.weights_on == "input",
        result=result,
        normed=spec.output_norm is not None,
    )
    settings = {"N_EXPERTS": Setting(spec.n_experts, "experts of a layer")}
    if spec.scale != 1:
        settings["EXPERTS_SCALE"] = Setting(spec.scale, "factor of the mixture's output")
    fields = ("n_experts", "router", "expert", "shared", "shared_gate", "weights_on", "scale", "output_norm")
    return Written("MixtureOfExperts", text, settings=settings, parts=parts, section="feedforward", fields=fields)
