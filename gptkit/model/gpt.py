"""`GPT`: embedding, blocks, final norm, head. Generic: it depends on kinds, never on a component.

Shapes: B batch, T tokens, E model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.core.errors import GptkitError, StateError
from gptkit.files import validate_data
from gptkit.kinds.precision import PrecisionSpec
from gptkit.model.cache import Cache
from gptkit.model.initialize import initialize
from gptkit.model.inputs import check_ids, check_length, check_remaining
from gptkit.model.materialize import WithoutInitialization, materialize
from gptkit.model.sharing import own_shared
from gptkit.model.spec import ModelSpec
from gptkit.model.tree import tree, tree_html
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.hidden import HiddenVectors
from gptkit.nn.cache.state import Stateful
from gptkit.nn.cache.store import States
from gptkit.nn.embedding import publish_embedding
from gptkit.nn.exchange import check_declarations
from gptkit.nn.forward import Forward
from gptkit.nn.head import IGNORED
from gptkit.nn.linear import AdaptedLinear
from gptkit.nn.packed import PackedMatrix
from gptkit.nn.recompute import Recompute
from gptkit.nn.tensor_parallel import TensorShard

__all__ = ["GPT", "Output"]


@dataclass
class Output:
    """Result of a forward pass.

    Attributes:
        logits: (B, T, V), or (B, 1, V) with `last_only`; None with targets, unless requested.
        loss: mean cross-entropy in nats plus auxiliary losses, a scalar in fp32; None without targets.
        losses: auxiliary losses by name.
        weights: attention weights (B, H, T, S) by layer and call, with `keep_weights`: ``weights[layer, call]``. `call` is 0
            where a layer calls one attention once; further calls within the layer (looped depth, several attentions) follow
            in the order of execution. Attentions in a head have the number of layers as their layer.
    """

    logits: Tensor | None = None
    loss: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[tuple[int, int], Tensor] | None = None


class GPT(nn.Module):
    """A GPT language model assembled from a spec.

    Attributes:
        stateful: the modules that have a state in a cache, in the order of their `state_index`.
        recompute: activation checkpointing: what the backward pass computes again instead of keeping it.
        tensor_shards: the parameters of which this process holds a part, by name (tensor parallelism).
        precision: the precision for inference that was applied (`gptkit.model.packing`), or None.

    ::

        model = GPT({"d_model": 64, "n_layers": 2}, vocab_size=256)
        logits = model(torch.randint(256, (1, 16))).logits       # (1, 16, 256)

    Args:
        spec: the model part of a spec, validated or as plain data.
        vocab_size: number of token ids if the spec does not set it.
        seed: initial values depend on it, on names and on shapes only; None skips initialization (weights are loaded).
        device: the device of the weights; ``"meta"`` for a model without memory, to be measured or loaded.
        dtype: the dtype of the weights.

    Raises:
        SpecError: the spec, given as plain data, is invalid.
        GptkitError: neither the spec nor `vocab_size` sets the number of token ids.
    """

    def __init__(
        self,
        spec: ModelSpec | Mapping[str, Any],
        vocab_size: int | None = None,
        *,
        seed: int | None = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if not isinstance(spec, ModelSpec):
            spec = validate_data(spec, ModelSpec)
        size = spec.vocab_size or vocab_size
        if size is None:
            raise GptkitError("the model's vocabulary is not known", hint="Set model.vocab_size, or pass vocab_size.")
        self.spec = spec
        self.vocab_size = size
        self.context_length = spec.context_length
        self.recompute: Recompute = "none"
        self.tensor_shards: Mapping[str, TensorShard] = {}
        self.precision: PrecisionSpec | None = None
        device = torch.device(device)
        with torch.device("meta"), WithoutInitialization():
            self._assemble()
        if device.type != "meta":
            if any(True for _ in self.buffers()):
                # A component computed a buffer in its constructor, so the model must be built on a real device.
                with torch.device(device), WithoutInitialization():
                    self._assemble()
            materialize(self, device, dtype)
            if seed is not None:
                initialize(self, spec.initializer, spec.context(size), seed)

    def _assemble(self) -> None:
        spec, context = self.spec, self.spec.context(self.vocab_size)
        self.embedding = spec.embedding.build(context)
        self.blocks = nn.ModuleList(
            layer.block.build(context.replace(layer=layer.parts(index))) for index, layer in enumerate(spec.layer_specs())
        )
        self.final_norm = nn.Identity() if spec.final_norm is None else spec.final_norm.build(context, dim=spec.d_model)
        self.head = spec.head.build(context.replace(layer=spec.head_parts()), embedding=self.embedding)
        self._head_mixes_tokens = self.head.mixes_tokens
        self.shared = own_shared(self, context.shared)
        for name, module in self.named_modules():
            if isinstance(module, AdaptedLinear):
                module.placed(name)
        publish_embedding(self.embedding, self)
        check_declarations(self)
        self._carries = any(getattr(module, "carries", ()) for module in self.modules())
        self._by_length = [layer.position for layer in spec.layer_specs() if layer.position.depends_on_length]
        decoding = (*self.embedding.modules(), *self.blocks.modules(), *self.shared.modules(), *self.head.decoding_modules())
        self.stateful = [module for module in decoding if isinstance(module, Stateful)]
        for index, module in enumerate(self.stateful):
            module.state_index = index

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the activations: that of the weights, or of a precision that was applied."""
        if self.precision is not None:
            return next(module.dtype for module in self.modules() if isinstance(module, PackedMatrix))
        return next(self.parameters()).dtype

    def forward(
        self,
        ids_BT: Tensor,
        targets_BT: Tensor | None = None,
        *,
        cache: Cache | None = None,
        left_padding_B: Tensor | None = None,
        documents_BT: Tensor | None = None,
        prefix_B: Tensor | None = None,
        last_only: bool = False,
        with_logits: bool = False,
        keep_weights: bool = False,
    ) -> Output:
        """Compute the logits of the next token at every position; with targets, the loss instead.

        Args:
            ids_BT: token ids.
            targets_BT: the target ids; -100 is ignored by the loss.
            cache: continue the cached tokens, and add these tokens to the cache.
            left_padding_B: number of padding tokens at the start of each row; with a cache, given to `new_cache`.
            documents_BT: the document id of each token in packed rows, negative for padding; attention stays within
                documents.
            prefix_B: number of tokens at the start of each row, padding not counted, that attend one another in both
                directions (a prefix language model); with a cache, given to `new_cache`.
            last_only: logits of the last position only.
            with_logits: return logits in addition to the loss, which needs more memory.
            keep_weights: return the attention weights; slower, since they are computed explicitly.

        Raises:
            StateError: more tokens than the context length or the cache's capacity.
            GptkitError: the ids are not rows of tokens, or (on the CPU) an id is outside the vocabulary.
        """
        check_ids(ids_BT, targets_BT, self.vocab_size, decoding=cache is not None)
        n_tokens, last_only = ids_BT.shape[1], last_only and targets_BT is None
        if prefix_B is not None:
            self._check_prefix()
        if cache is not None:
            ids_BT = cache.begin(ids_BT)
        else:
            check_length(ids_BT, self.context_length)
        context = Forward(
            ids_BT,
            offset=0 if cache is None else cache.offset,
            left_padding_B=left_padding_B if cache is None else cache.left_padding_B,
            prefix_B=prefix_B if cache is None else cache.prefix_B,
            documents_BT=documents_BT,
            states=None if cache is None else cache.states,
            keep_weights=keep_weights,
            last_only=last_only and not (cache is not None and cache.keeps_hidden),
            recomputes=self.recompute == "blocks" and cache is None and torch.is_grad_enabled(),
            carries=self._carries,
        )
        x_BTE, context = self._through_blocks(context)
        n_wanted = 1 if last_only else n_tokens
        check_remaining(self.blocks, context.n_tokens, n_wanted)
        x_BTE = self.final_norm(x_BTE)
        if cache is not None and cache.keeps_hidden:
            cache.keep_hidden(x_BTE)
        if not self._head_mixes_tokens and context.n_tokens > n_wanted:
            context, x_BTE = context.tail(n_wanted), x_BTE[:, -n_wanted:]
        loss = None
        if targets_BT is not None:
            loss = self.head.loss(x_BTE, F.pad(targets_BT, (context.n_tokens - n_tokens, 0), value=IGNORED), context)
            loss = sum(context.losses.values(), loss)
        logits_BTV = self.head(x_BTE, context)[:, -n_wanted:] if targets_BT is None or with_logits else None
        if cache is not None:
            cache.advance(ids_BT.shape[1])
        return Output(logits_BTV, loss, context.losses, context.weights)

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        left_padding_B: Tensor | None = None,
        documents_BT: Tensor | None = None,
        prefix_B: Tensor | None = None,
    ) -> tuple[Tensor, Forward]:
        """The vectors that the head receives, and the context to call it with.

        ::

            x_BTE, context = model.hidden(ids)
            logits = model.head(x_BTE, context)          # those of model(ids)

        Args:
            ids_BT, left_padding_B, documents_BT, prefix_B: as for a call of the model.

        Returns:
            (B, T, E), after the final norm, and the context.
        """
        check_ids(ids_BT, None, self.vocab_size, decoding=False)
        check_length(ids_BT, self.context_length)
        if prefix_B is not None:
            self._check_prefix()
        context = Forward(
            ids_BT,
            left_padding_B=left_padding_B,
            documents_BT=documents_BT,
            prefix_B=prefix_B,
            recomputes=self.recompute == "blocks" and torch.is_grad_enabled(),
            carries=self._carries,
        )
        x_BTE, context = self._through_blocks(context)
        return self.final_norm(x_BTE), context

    def _through_blocks(self, context: Forward) -> tuple[Tensor, Forward]:
        """The last block's output, and the context of the tokens that it has."""
        x_BTE = self.embedding(context.ids_BT, context)
        for block in self.blocks:
            x_BTE = block(x_BTE, context)
            if x_BTE.shape[1] != context.n_tokens:
                context = context.tail(x_BTE.shape[1])
        return x_BTE, context

    def new_cache(
        self,
        batch: int,
        capacity: int | None = None,
        left_padding_B: Tensor | None = None,
        dtype: torch.dtype | None = None,
        prefix_B: Tensor | None = None,
        static: bool = False,
        keep_hidden: bool = False,
    ) -> Cache:
        """Return an empty cache for `batch` rows of `capacity` tokens (the context length by default).

        Args:
            left_padding_B: number of padding tokens at the start of each row, for prompts of uneven length.
            dtype: the dtype of the cache; that of the weights by default.
            prefix_B: number of tokens at the start of each row, padding not counted, that attend one another in both
                directions. A prefix that arrives in several calls is computed again as a whole with each of them.
            static: fixed shapes and a tensor offset, so that a step compiles to one graph for all tokens
                (``torch.compile(model, fullgraph=True, dynamic=False)``) and can be captured as a CUDA graph. Attention then
                computes over the whole capacity at every step, a layer with an attention window over its window. A
                bidirectional prefix must be whole in the first call, which is not compiled.
            keep_hidden: keep the vectors that the head receives (`Cache.hidden`), for drafting with its prediction modules.

        Raises:
            StateError: the model does not support a bidirectional prefix or a static cache.
        """
        capacity = self.context_length if capacity is None else capacity
        if prefix_B is not None:
            self._check_prefix()
        if static and self._by_length:
            raise StateError(
                f"a static cache cannot be used with position {self._by_length[0].name!r} as it is configured here: its "
                "effect on earlier tokens changes with the length of the text, and they would be computed again",
                hint="Remove static=True, or choose a scaling that does not depend on the length (yarn, linear).",
            )
        vectors = HiddenVectors(self.spec.d_model, len(self.stateful)) if keep_hidden else None
        stateful = [*self.stateful, vectors] if vectors is not None else self.stateful

        def allocate(rows: int, size: int, offset: Tensor | None) -> States:
            return States(stateful, Allocation(rows, size, dtype or self.dtype, self.device, offset))

        return Cache(
            allocate,
            batch,
            capacity,
            device=self.device,
            static=static,
            left_padding_B=left_padding_B,
            prefix_B=prefix_B,
            changes=self._changes_between if self._by_length else None,
            vectors=vectors,
        )

    def _changes_between(self, old: int, new: int) -> bool:
        return any(position.changes_between(old, new, self.spec.context()) for position in self._by_length)

    def _check_prefix(self) -> None:
        for attention in self.attentions():
            reason = attention.prefix_problem
            if reason is not None:
                raise StateError(f"a bidirectional prefix cannot be used: {reason}", hint="Call the model without prefix_B.")

    @torch.no_grad()
    def attention_weights(self, ids_BT: Tensor) -> dict[tuple[int, int], Tensor]:
        """Return the attention weights of every call of an attention, (B, H, T, S), for plots.

        Returns:
            The weights by layer and call, as in `Output.weights`: ``weights[3, 0]`` is the first call in layer 3.
        """
        return self(ids_BT, keep_weights=True).weights or {}

    def tree(self) -> str:
        """Return the model's modules with their parameter counts, as indented text."""
        return tree(self)

    def _repr_html_(self) -> str:
        return tree_html(self)

    def attentions(self) -> list[Attention]:
        """Return the attention modules in the order of layers."""
        return [module for module in self.modules() if isinstance(module, Attention)]
