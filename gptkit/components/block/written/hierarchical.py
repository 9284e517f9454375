"""Template of block `hierarchical`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, walk, written

if TYPE_CHECKING:
    from gptkit.components.block.hierarchical import HierarchicalSpec

__all__ = ["hierarchical"]

_BLOCK = '''
class $class_name(nn.Module):
    """Two stacks of blocks in nested cycles, each applied several times with the same weights."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.low = nn.ModuleList($block for _ in range($N_BLOCKS))
        self.low_norm = $low_norm
        self.high = nn.ModuleList($block for _ in range($N_BLOCKS))
        self.high_norm = $high_norm
        self.start = nn.Parameter(torch.zeros(D_MODEL)$fixed)

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Transform the tokens at these positions, (B, T, E) to (B, T, E)."""
        high_BTE, low_BTE = x_BTE, self.start.expand_as(x_BTE)
        #if stops
        for high, n_gradients in enumerate($GRADIENT_CYCLES):
        #else
        for high in range($HIGH_CYCLES):
        #end
            for low in range($LOW_CYCLES):
                low_BTE = low_BTE + high_BTE
                for layer, block in enumerate(self.low):
                    low_BTE = block(low_BTE, positions_T, cache.part(f"low {high} {low} {layer}"))
                low_BTE = self.low_norm(low_BTE)
                #if stops
                if low < $LOW_CYCLES - n_gradients:
                    low_BTE = low_BTE.detach()
                #end
            high_BTE = high_BTE + low_BTE
            for layer, block in enumerate(self.high):
                high_BTE = block(high_BTE, positions_T, cache.part(f"high {high} {layer}"))
            high_BTE = self.high_norm(high_BTE)
        return high_BTE
'''


def hierarchical(spec: HierarchicalSpec, context: WritingContext) -> Written:
    """Return the block as a class.

    Raises:
        NotWrittenError: a part has other sizes in each copy of the block within.
    """
    block = written(spec.block, context)
    single = next((part.name for part in walk(block) if part.single), None)
    if single is not None:
        raise NotWrittenError(
            f"block {spec.name!r} cannot be written out with {spec.block.name!r}: each of its blocks has {single} of other "
            "sizes",
            hint="Choose another block within it.",
        )
    gradients = spec.gradients()
    stops = any(number < spec.low_cycles for number in gradients)
    settings = {
        "N_BLOCKS": Setting(spec.blocks, "blocks of each stack"),
        "LOW_CYCLES": Setting(spec.low_cycles, "times that the low stack is applied before each high one"),
    }
    if stops:
        settings["GRADIENT_CYCLES"] = Setting(gradients, "last low cycles with gradients, for each high cycle")
    else:
        settings["HIGH_CYCLES"] = Setting(spec.high_cycles, "times that the high stack is applied")
    norms = {name: written(context.parts.norm, context, dim=Name("D_MODEL")) for name in ("low_norm", "high_norm")}
    return Written(
        "HierarchicalBlock",
        fill(_BLOCK, stops=stops, fixed="" if spec.start == "learned" else ", requires_grad=False"),
        settings=settings,
        parts={"block": block, **norms},
        section="block",
        fields=("blocks", "high_cycles", "low_cycles", "gradient_cycles", "start", "block"),
        calls={"times block": str(spec.blocks * spec.high_cycles * (spec.low_cycles + 1))},
    )
