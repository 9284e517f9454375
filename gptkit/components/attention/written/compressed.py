"""Template of `compressed`. Entries are computed again for every call; the built module keeps those of full blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptkit.components.attention.written.compression import block_settings, compressor, indexer, rotate_last
from gptkit.components.attention.written.parts import relative_position
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import Name, NotWrittenError, Setting, WritingContext, Written, fill, linear, written

if TYPE_CHECKING:
    from gptkit.components.attention.compressed import CompressedSpec

__all__ = ["compressed"]

_CLASS = '''
class $class_name(nn.Module):
    """Attention to the last tokens$and; keys are values too."""

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
        self.output_down = nn.Linear($N_HEADS * $D_KEY // $N_GROUPS, $N_GROUPS * $GROUP_RANK, bias=False)
        #end
        self.output = $projection

    def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: dict[str, Tensor]) -> Tensor:
        """Mix the tokens at these positions with earlier ones, (B, T, E) to (B, T, E)."""
        #if q_rank
        q_BTC = self.q_latent_norm(self.q_down(x_BTE))
        #end
        #if q_norm
        q_BTHD = self.q_norm(self.q_up($source).unflatten(-1, ($N_HEADS, $D_KEY)))
        #else
        q_BTHD = self.q_up($source).unflatten(-1, ($N_HEADS, $D_KEY))
        #end
        #if rotated
        q_BHTD = $rotate_query(q_BTHD.transpose(1, 2), positions_T$rotate_query_arguments)
        k_B1TD = $rotate_last(self.kv_norm(self.kv(x_BTE))[:, None], positions_T$rotate_last_arguments)
        #else
        q_BHTD = q_BTHD.transpose(1, 2)
        k_B1TD = self.kv_norm(self.kv(x_BTE))[:, None]
        #end
        k_B1SD = cache["keys"] = torch.cat((cache.get("keys", k_B1TD[:, :, :0]), k_B1TD), dim=2)
        positions_BT1 = positions_T[:, None].expand(len(x_BTE), -1, -1)
        distance_BTS = positions_BT1 - torch.arange(k_B1SD.shape[2], device=x_BTE.device)
        mask_BTS = (distance_BTS >= 0) & (distance_BTS < $SLIDING_WINDOW)
        #if blocks
        entries_B1ND = self.compressor(x_BTE, cache, "entry")
        k_B1SD = torch.cat((k_B1SD, entries_B1ND), dim=2)
        blocks_N = torch.arange(entries_B1ND.shape[2], device=x_BTE.device)
        chosen_BTN = blocks_N < (positions_BT1 + 1) // $BLOCK_SIZE  # full blocks
        #if indexed
        #if $CHOOSES
        index_B1ND = self.indexer.compressor(x_BTE, cache, "index")
        scores_BTN = self.indexer(x_BTE, $source, index_B1ND, positions_T)
        scores_BTN = scores_BTN.masked_fill(~chosen_BTN, -torch.inf)
        order_BTN = scores_BTN.argsort(dim=-1, descending=True, stable=True)[..., :$TOP_K]
        chosen_BTN = torch.zeros_like(chosen_BTN).scatter(-1, order_BTN, True) & chosen_BTN
        #end
        #end
        mask_BTS = torch.cat((mask_BTS, chosen_BTN), dim=2)
        #end
        scores_BHTS = (q_BHTD @ k_B1SD.mT * $D_KEY**-0.5).masked_fill(~mask_BTS[:, None], -torch.inf)
        #if sinks
        sinks_BHT1 = self.sinks[:, None, None].expand(*scores_BHTS.shape[:3], 1)
        weights_BHTS = torch.cat((scores_BHTS, sinks_BHT1), dim=-1).softmax(dim=-1)[..., :-1]
        #else
        weights_BHTS = scores_BHTS.softmax(dim=-1)
        #end
        #if dropout
        weights_BHTS = F.dropout(weights_BHTS, $ATTENTION_DROPOUT, self.training)
        #end
        #if rotated
        y_BHTD = $rotate_last(weights_BHTS @ k_B1SD, -positions_T$rotate_last_arguments)  # values are rotated as keys are
        #else
        y_BHTD = weights_BHTS @ k_B1SD
        #end
        #if grouped
        y_BTGI = torch.unflatten(y_BHTD.transpose(1, 2).flatten(2), -1, ($N_GROUPS, -1))
        down_GDI = torch.unflatten(self.output_down.weight, 0, ($N_GROUPS, -1))
        return self.output(torch.einsum("btgi,gdi->btgd", y_BTGI, down_GDI).flatten(2))
        #else
        return self.output(y_BHTD.transpose(1, 2).flatten(2))
        #end
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
    if sometimes or (position is not None and not (position.is_function and "key" in position.calls)):
        raise NotWrittenError(
            f"attention {spec.name!r} cannot be written out with position {context.parts.position.name!r}",
            hint="Choose position rotary or none, the same for all layers.",
        )
    blocks = spec.block_size is not None
    # Layers whose blocks are not chosen are written as those with an indexer, so that one class serves both.
    others = (layer.attention for layer in context.layers if isinstance(layer.attention, type(spec)))
    indexed = blocks and (spec.indexed or any(each.indexed for each in others))
    parts = {"kv_norm": written(spec.norm, context, dim=Name("$D_KEY"))}
    if position is not None:
        same = position.calls["query"] == position.calls["key"]
        parts["rotate_last"] = rotate_last(spec, position)
        parts["rotate_query"] = parts["rotate_last"] if same else rotate_last(spec, position, "query")
    settings = {
        "N_HEADS": Setting(spec.n_heads, "heads"),
        "D_KEY": Setting(spec.d_head, "features of a query and of the key that heads share"),
        "SLIDING_WINDOW": Setting(spec.sliding_window, "tokens that a token attends to one by one, itself included"),
    }
    if spec.q_rank is not None:
        settings["Q_RANK"] = Setting(spec.q_rank, "features of the vector that queries are computed from")
        parts["q_latent_norm"] = written(spec.norm, context, dim=Name("$Q_RANK"))
    if spec.q_norm is not None:
        parts["query_norm"] = written(spec.q_norm, context, dim=Name("$D_KEY"))
    if blocks:
        settings |= block_settings(spec)
        parts["compressor"] = compressor(spec, context, position, "D_KEY")
    if indexed:
        settings["CHOOSES"] = Setting(spec.indexed, "whether an indexer chooses blocks")
    if spec.indexed:
        settings["TOP_K"] = Setting(
            spec.top_k, "blocks that a query attends to, with the highest scores; of equal ones, the first"
        )
        parts["indexer"] = indexer(spec, context, position)
    if spec.dropout:
        settings["ATTENTION_DROPOUT"] = Setting(spec.dropout, "share of the attention weights dropped in training")
    d_out = "$N_HEADS * $D_KEY"
    if spec.output_rank is not None:
        settings["N_GROUPS"] = Setting(spec.output_groups, "groups of heads whose outputs are projected apart")
        settings["GROUP_RANK"] = Setting(spec.output_rank, "features that a group's outputs are projected to")
        d_out = "$N_GROUPS * $GROUP_RANK"
    and_blocks = f" and to {'chosen ' if indexed else ''}blocks of earlier ones" if blocks else ""
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
        **{"and": and_blocks},
    )
    variant = "Compressed" if blocks else "Window"
    return Written("Attention", text, settings=settings, parts=parts, section="attention", variant=variant, fields=_FIELDS)
