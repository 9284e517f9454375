"""Template of `experts`.

Shapes in it: B rows, T tokens, E features, N = B · T, K experts chosen for a token, M tokens of an expert.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gptkit.kinds.written import (
    Name,
    NotWrittenError,
    Setting,
    WritingContext,
    Written,
    fill,
    linear,
    written,
    written_stacked,
)

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
        #if latent
        self.latent_down = $latent_down
        self.latent_up = $latent_up
        #end
        #if shared
        self.shared = $shared  # an expert that every token uses
        #end
        #if gate
        self.shared_gate = nn.Linear(D_MODEL, 1, bias=False)
        #end
        #if output_bias
        self.output_bias = nn.Parameter(torch.zeros(D_MODEL))
        #end
        #if normed
        self.output_norm = $output_norm
        #end
        #if branches
        self.routed_norm = $branch_norm
        self.routed_output_norm = $branch_norm
        #if shared
        self.shared_norm = $branch_norm
        self.shared_output_norm = $branch_norm
        #end
        #end

    def forward(self, x_BTE: Tensor$call) -> Tensor:
        """Transform each token by its experts, (B, T, E) to (B, T, E)."""
        x_NE = x_BTE.flatten(0, 1)
        #if routed
        experts_NK, weights_NK = $routed
        #else
        #if $ROUTES_IDS
        experts_NK, weights_NK = self.router(x_NE, cache.shared["ids"].flatten())
        #else
        experts_NK, weights_NK = self.router(x_NE)
        #end
        #end
        #if branches
        x_NE = self.routed_norm(x_NE)
        #end
        #if latent
        x_NE = self.latent_down(x_NE)  # experts transform narrower vectors
        #end
        #if only_zeros
        y_NE = torch.zeros_like(x_NE)  # what the experts after the last one return
        #else
        y_NE = torch.zeros_like(x_NE)
        #end
        for expert in range($N_EXPERTS):
            tokens_M, choices_M = (experts_NK == expert).nonzero(as_tuple=True)
            weights_M1 = weights_NK[tokens_M, choices_M, None]
            #if on_input
            y_NE = y_NE.index_add(0, tokens_M, self.experts(weights_M1 * x_NE[tokens_M], expert))
            #else
            y_NE = y_NE.index_add(0, tokens_M, weights_M1 * self.experts(x_NE[tokens_M], expert))
            #end
        #if identities
        #if zeros
        # The next $N_IDENTITIES experts return their input, and the last ones zeros.
        others_NK = (experts_NK < $N_EXPERTS) | (experts_NK >= $N_EXPERTS + $N_IDENTITIES)
        weights_N1 = weights_NK.masked_fill(others_NK, 0).sum(dim=1, keepdim=True)
        #else
        # The other experts return their input.
        weights_N1 = weights_NK.masked_fill(experts_NK < $N_EXPERTS, 0).sum(dim=1, keepdim=True)
        #end
        y_NE = torch.addcmul(y_NE, weights_N1, x_NE)
        #end
        #if latent
        y_NE = self.latent_up(y_NE)
        #end
        #if branches
        routed_NE = self.routed_output_norm(y_NE)
        #end
        #if shared
        #if branches
        fed_BTE = self.shared(self.shared_norm(x_BTE))
        shared_BTE = self.shared_output_norm(fed_BTE)
        #else
        shared_BTE = self.shared(x_BTE)
        #end
        #end
        return $result
'''


_EXPERT_LIST = '''
class $class_name(nn.Module):
    """Experts, each a feed-forward with weights of its own."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.each = nn.ModuleList($expert for _ in range($N_EXPERTS))

    def forward(self, x_ME: Tensor, expert: int) -> Tensor:
        """Apply one expert to its tokens, (M, E) to (M, E)."""
        y_1ME: Tensor = self.each[expert](x_ME[None])
        return y_1ME[0]
'''


def experts(spec: ExpertsSpec, context: WritingContext) -> Written:
    """Return the mixture as a class, and its router and experts."""
    inner = spec.inner_context("expert", context)
    assert isinstance(inner, WritingContext)
    form = _experts(spec, inner)
    if spec.latent:
        width = Setting(spec.latent, "features of the vectors that experts transform")
        form = _narrowed(form, width)
    parts = {"router": _router(spec, context), "experts": form}
    # Routers of one class, some of which read ids, receive them in all layers.
    routes_ids = spec.router.reads_ids or "BY_ID" in parts["router"].settings
    # A router that shares vectors with those of other layers receives what layers share.
    routed = parts["router"].calls.get("apply", "")
    reads = routes_ids or bool(routed) or _reads_ids(spec, context)
    if spec.shared is not None:
        parts["shared"] = written(spec.shared, context)
    if spec.output_norm is not None:
        parts["output_norm"] = written(spec.output_norm, context, dim=Name("D_MODEL"))
    if spec.branch_norm is not None:
        parts["branch_norm"] = written(spec.branch_norm, context, dim=Name("D_MODEL"))
    result = "y_NE.view_as(x_BTE)" if spec.branch_norm is None else "routed_NE.view_as(x_BTE)"
    if spec.shared is not None:
        result += " + torch.sigmoid(self.shared_gate(x_BTE)) * shared_BTE" if spec.shared_gate else " + shared_BTE"
    if spec.scale != 1:
        result = f"$EXPERTS_SCALE * ({result})" if spec.shared is not None else f"$EXPERTS_SCALE * {result}"
    if spec.output_bias:
        result = f"{result} + self.output_bias"
    if spec.output_norm is not None:
        result = f"self.output_norm({result})"
    text = fill(
        _CLASS,
        shared=spec.shared is not None,
        gate=spec.shared_gate,
        on_input=spec.weights_on == "input",
        result=result,
        routed=routed,
        call=", positions_T: Tensor, cache: dict[str, Tensor]" if reads else "",
        normed=spec.output_norm is not None,
        output_bias=spec.output_bias,
        branches=spec.branch_norm is not None,
        latent=bool(spec.latent),
        identities=spec.identity_experts > 0,
        zeros=spec.zero_experts > 0,
        only_zeros=spec.zero_experts > 0 and not spec.identity_experts,
        latent_down=linear(context, "D_MODEL", "$D_LATENT", bias=False),
        latent_up=linear(context, "$D_LATENT", "D_MODEL", bias=False),
    )
    settings = {
        "N_EXPERTS": Setting(spec.n_experts, "experts of a layer"),
        "ROUTES_IDS": Setting(routes_ids, "whether the router receives the ids of tokens"),
    }
    if spec.identity_experts and spec.zero_experts:
        settings["N_IDENTITIES"] = Setting(spec.identity_experts, "experts that return their input")
    if spec.latent:
        settings["D_LATENT"] = width
    if spec.scale != 1:
        settings["EXPERTS_SCALE"] = Setting(spec.scale, "factor of the mixture's output")
    names = (
        "n_experts identity_experts zero_experts router expert shared shared_gate weights_on scale output_bias output_norm "
        "branch_norm"
    )
    calls = {"apply": "self.feedforward($x, positions_T, cache)"} if reads else {}
    fields = (*names.split(), "latent")
    return Written(
        "MixtureOfExperts", text, settings=settings, parts=parts, calls=calls, section="feedforward", fields=fields
    )


def _router(spec: ExpertsSpec, context: WritingContext) -> Written:
    router = written(spec.router, context, n_experts=spec.n_choices)
    if spec.n_choices == spec.n_experts:
        return router
    settings = {name: setting for name, setting in router.settings.items() if name != "N_EXPERTS"}
    last = "have no weights" if spec.zero_experts else "return their input"
    settings["N_CHOICES"] = Setting(spec.n_choices, f"experts to choose from; the last ones {last}")
    return dataclasses.replace(router, text=router.text.replace("$N_EXPERTS", "$N_CHOICES"), settings=settings)


def _reads_ids(spec: ExpertsSpec, context: WritingContext) -> bool:
    """Return whether the mixture receives the ids of tokens; all do if one of them reads these, to be one class."""
    layers = [layer.feedforward for layer in context.layers]
    any_layer = any(isinstance(each, type(spec)) and each.router.reads_ids for each in layers)
    return any_layer and spec in layers


def _experts(spec: ExpertsSpec, context: WritingContext) -> Written:
    """Return the experts: with stacked weights, or as a list where the feed-forward has no such form."""
    if _is_stacked(spec, context):
        form = written_stacked(spec.expert, context, n_experts=spec.n_experts)
        if form is None:
            raise NotWrittenError(
                f"feedforward 'experts' cannot be written out with experts {spec.expert.name!r}: their stacked form has no "
                "template",
                hint="Use gated or mlp as expert, or define written_stacked (see docs/eject.md).",
            )
        return form
    expert = written(spec.expert, context)
    if "apply" in expert.calls:
        raise NotWrittenError(
            f"feedforward 'experts' cannot be written out with experts {spec.expert.name!r}: they read the call's context",
            hint="Use gated or mlp as expert.",
        )
    settings = {"N_EXPERTS": Setting(spec.n_experts, "experts of a layer")}
    return Written("ExpertList", fill(_EXPERT_LIST), settings=settings, parts={"expert": expert}, section="feedforward")


def _is_stacked(spec: ExpertsSpec, context: WritingContext) -> bool:
    """Return whether the built mixture has stacked experts: decided by its own rule, on modules without storage."""
    import torch

    from gptkit.components.feedforward.modules.experts import stacked_form

    with torch.device("meta"):
        return stacked_form(spec.expert, context.replace(shared={}), spec.n_experts) is not None


def _narrowed(form: Written, width: Setting, outer: str = "D_LATENT") -> Written:
    """Return experts for vectors of another width than the model's.

    Args:
        outer: the placeholder of the width in the class that has the experts.
    """
    # Experts that are mixtures may have a latent width of their own.
    own = "D_LATENT"
    while own in form.settings:
        own = f"OUTER_{own}"
    narrow = {name: _narrowed_size(setting, outer) for name, setting in form.settings.items()}
    if form.copied:  # the sizes in a copied source are those of its module
        return dataclasses.replace(form, settings=narrow)
    parts = {name: _narrowed(part, width, own) for name, part in form.parts.items()}
    text, expression = (source.replace("D_MODEL", f"${own}") for source in (form.text, form.expression))
    needed = text + expression + "".join(str(setting.value) for part in parts.values() for setting in part.settings.values())
    settings = {**narrow, own: width} if f"${own}" in needed else narrow
    return dataclasses.replace(form, text=text, expression=expression, settings=settings, parts=parts)


def _narrowed_size(setting: Setting, outer: str) -> Setting:
    """Return a setting whose expression has the width of the vectors instead of the model's."""
    if not isinstance(setting.value, Name):
        return setting
    return dataclasses.replace(setting, value=Name(setting.value.replace("D_MODEL", f"${outer}")))
