"""Template of `compressed`. Entries are computed again for every call; the built module keeps those of full blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.attention.written.compression import compressor, indexer
from gptkit.components.attention.written.parts import append_to, position_parts, relative_position
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.compressed import CompressedSpec

__all__ = ["compressed"]

_CLASS = '''
class $class_name(nn.Module):
    """Attention to the last tokens$and. Keys are values too, and all heads share them."""

    def __init__(self$parameters) -> None:
        super().__init__()
        #if q_rank
        self.q_down = $q_down
        self.q_latent_norm = $q_latent_norm
        #end
        self.q_up = $q_up
        #if q_norm
        self.q_norm = $query_norm
        #end
        self.kv = $kv
        self.kv_norm = $kv_norm
        #if blocks
        self.compressor = $compressor
        #end
        #if indexed
        #if $CHOOSES
        self.indexer = $indexer
        #end
        #end
        #if sinks
        self.sinks = nn.Parameter(torch.zeros($N_HEADS))  # a logit that takes a share of attention
        #end
        #if grouped
        self.output_down = $grouped_down
        #end
        self.output = $projection

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens at these positions with earlier ones, (B, T, E) to (B, T, E)."""
        #if q_rank
        q_BTC = self.q_latent_norm(self.q_down(x_BTE))
        #end
        q_BTHD = self.q_up($source).unflatten(-1, ($N_HEADS, $D_KEY))
        #if q_norm
        q_BTHD = self.q_norm(q_BTHD)
        #end
        q_BHTD = q_BTHD.transpose(1, 2)
        k_B1TD = self.kv_norm(self.kv(x_BTE))[:, None]
        #if rotated
        widths = [$D_KEY - $D_SHARED, $D_SHARED]  # the last features are rotated
        q_BHTU, q_BHTR = torch.split(q_BHTD, widths, dim=-1)
        k_B1TU, k_B1TR = torch.split(k_B1TD, widths, dim=-1)
        q_BHTD = torch.cat((q_BHTU, $query), dim=-1)
        k_B1TD = torch.cat((k_B1TU, $key), dim=-1)
        #end
        k_B1SD = $append_to(cache, "keys", k_B1TD)
        distance_TS = positions_T[:, None] - torch.arange(k_B1SD.shape[2], device=positions_T.device)
        mask_BTS = ((distance_TS >= 0) & (distance_TS < $SLIDING_WINDOW)).expand(len(x_BTE), -1, -1)
        #if blocks
        entries_B1ND = self.compressor(x_BTE, cache, "entry")
        blocks_N = torch.arange(entries_B1ND.shape[2], device=positions_T.device)
        #if rotated
        entries_B1NU, entries_B1NR = torch.split(entries_B1ND, widths, dim=-1)
        entries_B1ND = torch.cat((entries_B1NU, $entry), dim=-1)
        #end
        k_B1SD = torch.cat((k_B1SD, entries_B1ND), dim=2)
        chosen_BTN = (blocks_N < (positions_T[:, None] + 1) // $BLOCK_SIZE).expand(len(x_BTE), -1, -1)  # full blocks
        #if indexed
        #if $CHOOSES
        scores_BTN = self.indexer(x_BTE, $source, positions_T, cache).masked_fill(~chosen_BTN, -torch.inf)
        # The blocks with the highest scores; of equal ones, the first.
        order_BTN = scores_BTN.sort(dim=-1, descending=True, stable=True).indices[..., :$TOP_K]
        chosen_BTN = torch.zeros_like(scores_BTN).scatter(-1, order_BTN, 1).bool() & chosen_BTN
        #end
        #end
        mask_BTS = torch.cat((mask_BTS, chosen_BTN), dim=2)
        #end
        scores_BHTS = q_BHTD @ k_B1SD.mT * $D_KEY**-0.5
        scores_BHTS = scores_BHTS.masked_fill(~mask_BTS[:, None], -torch.inf)
        #if sinks
        sinks_BHT1 = self.sinks[:, None, None].expand(*scores_BHTS.shape[:3], 1)
        weights_BHTS = torch.cat((scores_BHTS, sinks_BHT1), dim=-1).softmax(dim=-1)[..., :-1]
        #else
        weights_BHTS = scores_BHTS.softmax(dim=-1)
        #end
        #if dropout
        weights_BHTS = F.dropout(weights_BHTS, $ATTENTION_DROPOUT, self.training)
        #end
        y_BHTD = weights_BHTS @ k_B1SD
        #if rotated
        y_BHTU, y_BHTR = torch.split(y_BHTD, widths, dim=-1)  # values are rotated as keys are
        y_BHTD = torch.cat((y_BHTU, $back), dim=-1)
        #end
        y_BTX = y_BHTD.transpose(1, 2).flatten(2)
        #if grouped
        y_BTX = self.output_down(y_BTX)
        #end
        return self.output(y_BTX)
'''

_GROUPED = '''
class $class_name(nn.Module):
    """A projection of each group of heads' outputs."""

    def __init__(self$parameters) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros($OUTPUT_GROUPS * $OUTPUT_RANK, $N_HEADS * $D_KEY // $OUTPUT_GROUPS))

    def forward(self, x_BTX: Tensor) -> Tensor:
        """Project the groups one by one, (B, T, H D) to (B, T, groups R)."""
        x_BTGI = torch.unflatten(x_BTX, -1, ($OUTPUT_GROUPS, -1))
        weight_GRI = torch.unflatten(self.weight, 0, ($OUTPUT_GROUPS, -1))
        return torch.einsum("btgi,gri->btgr", x_BTGI, weight_GRI).flatten(2)
'''

_FIELDS = (
    "n_heads",
    "d_head",
    "d_rotary",
    "q_rank",
    "sliding_window",
    "block_size",
    "overlap",
    "top_k",
    "index_heads",
    "d_index",
    "index_loss",
    "norm",
    "q_norm",
    "sinks",
    "dropout",
    "output_groups",
    "output_rank",
)


def compressed(spec: CompressedSpec, context: WritingContext) -> Written:
    """Return the attention as a class, and what compresses and chooses blocks. The indexer's loss is not written."""
    assert spec.n_heads is not None
    position, sometimes = relative_position(context, HeadShape(spec.n_heads, 1, spec.d_rotary))
    if sometimes or (position is not None and not position.is_function):
        raise NotWrittenError(
            f"attention {spec.name!r} cannot be written out with position {context.parts.position.name!r}",
            hint="Choose position rotary or none, the same for all layers.",
        )
    blocks = spec.block_size is not None
    # Layers whose blocks are not chosen are written as those with an indexer, so that one class serves both.
    others = (layer.attention for layer in context.layers if isinstance(layer.attention, type(spec)))
    indexed = blocks and (spec.indexed or any(each.indexed for each in others))
    parts = {"append_to": append_to, "kv_norm": written(spec.norm, context, dim=Name("$D_KEY"))}
    calls = {}
    if position is not None:
        parts |= position_parts(position)
        key = position.calls["key"]
        calls = {"query": position.call("query", x="q_BHTR"), "key": position.call("key", x="k_B1TR")}
        calls["entry"] = key.replace("$x", "entries_B1NR").replace("positions_T", "$BLOCK_SIZE * blocks_N")
        calls["back"] = key.replace("$x", "y_BHTR").replace("positions_T", "-positions_T")
    settings = {
        "N_HEADS": Setting(spec.n_heads, "heads"),
        "D_KEY": Setting(spec.d_head, "features of a query and of the key that heads share"),
        "D_SHARED": Setting(spec.d_rotary, "features of a query and key with position"),
        "SLIDING_WINDOW": Setting(spec.sliding_window, "tokens that a token attends to one by one, itself included"),
    }
    if spec.q_rank is not None:
        settings["Q_RANK"] = Setting(spec.q_rank, "features of the vector that queries are computed from")
        parts["q_latent_norm"] = written(spec.norm, context, dim=Name("$Q_RANK"))
    if spec.q_norm is not None:
        parts["query_norm"] = written(spec.q_norm, context, dim=Name("$D_KEY"))
    if blocks:
        settings["BLOCK_SIZE"] = Setting(spec.block_size, "tokens of a compressed block")
        parts["compressor"] = compressor(spec, context, Setting(spec.d_head, "features of a compressed entry"))
    if indexed:
        settings["CHOOSES"] = Setting(spec.indexed, "whether an indexer chooses blocks")
    if spec.indexed:
        settings["TOP_K"] = Setting(spec.top_k, "blocks that a query attends to, those with the highest scores")
        parts["indexer"] = indexer(spec, context, position)
    if spec.dropout:
        settings["ATTENTION_DROPOUT"] = Setting(spec.dropout, "share of the attention weights dropped in training")
    d_out = "$N_HEADS * $D_KEY"
    if spec.output_rank is not None:
        groups = {
            "OUTPUT_GROUPS": Setting(spec.output_groups, "groups of heads whose outputs are projected apart"),
            "OUTPUT_RANK": Setting(spec.output_rank, "features that a group's outputs are projected to"),
        }
        shared = {name: settings[name] for name in ("N_HEADS", "D_KEY")}
        parts["grouped_down"] = Written("GroupedDown", fill(_GROUPED), settings={**groups, **shared}, section="attention")
        settings |= groups
        d_out = "$OUTPUT_GROUPS * $OUTPUT_RANK"
    text = fill(
        _CLASS,
        q_rank=spec.q_rank is not None,
        q_norm=spec.q_norm is not None,
        blocks=blocks,
        indexed=indexed,
        sinks=spec.sinks,
        grouped=spec.output_rank is not None,
        rotated=position is not None,
        dropout=bool(spec.dropout),
        source="x_BTE" if spec.q_rank is None else "q_BTC",
        q_down=linear(context, "D_MODEL", "$Q_RANK", bias=False),
        q_up=linear(context, "D_MODEL" if spec.q_rank is None else "$Q_RANK", "$N_HEADS * $D_KEY", bias=False),
        kv=linear(context, "D_MODEL", "$D_KEY", bias=False),
        projection=linear(context, d_out, "D_MODEL", bias=False),
        **{
            "and": " and to entries of earlier blocks" + (", which an indexer may choose" if indexed else "")
            if blocks
            else ""
        },
        **calls,
    )
    variant = "Compressed" if blocks else "Window"
    return Written("Attention", text, settings=settings, parts=parts, section="attention", variant=variant, fields=_FIELDS)
