"""Names that other programs have for components."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["own_name"]

_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "optimizer": {
        "adafactor": ("adafactor_8bit",),
        "adamw": (
            *("adam", "adamw_8bit", "adamw_bnb_8bit", "adamw_fused", "adamw_hf", "adamw_torch", "adamw_torch_fused"),
            *("fused_adam", "fused_adamw", "paged_adamw", "paged_adamw_32bit", "paged_adamw_8bit"),
        ),
        "ademamix": ("ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit"),
        "lion": ("lion_32bit", "lion_8bit", "paged_lion", "paged_lion_32bit", "paged_lion_8bit"),
        "schedule-free": (
            *("adamw_schedule_free", "adamwschedulefree", "schedule_free_adamw", "schedule_free_radam", "schedulefree"),
        ),
        "sgd": ("momentum", "nesterov"),
        "soap": ("shampoo",),
    },
    "schedule": {
        "constant": ("constant_with_warmup", "constantlr"),
        "cosine": ("cosine_annealing", "cosine_warmup", "cosine_with_min_lr", "cosineannealinglr"),
        "cosine-restarts": (
            *("cosine_annealing_warm_restarts", "cosine_hard_restarts", "cosine_warm_restarts", "cosine_with_restarts"),
            *("cosineannealingwarmrestarts", "sgdr"),
        ),
        "inverse-sqrt": ("inverse_square_root", "invsqrt", "noam", "rsqrt"),
        "linear": ("linear_decay", "linear_with_warmup", "linearlr"),
        "polynomial": ("poly", "polynomial_decay", "polynomial_with_warmup", "polynomiallr"),
        "wsd": ("infinite_lr", "trapezoid", "trapezoidal", "warmup_stable_decay"),
    },
}
"""Components of gptkit by kind, each with its names in other programs."""


def own_name(kind: str, name: str, known: Collection[str]) -> str | None:
    """Return the known component that another program's name means: ``cosine-restarts`` for ``cosine_with_restarts``."""
    other = name.casefold().replace("-", "_").replace(" ", "_")
    return next((own for own, others in _NAMES.get(kind, {}).items() if other in others and own in known), None)
