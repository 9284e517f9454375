"""What copied modules need in a written file: the context of a call, and what a layer keeps of earlier tokens.

The classes have the methods of gptkit's forward context that copied sources may call, for one text with a dictionary as
cache, and for batches with the caches of transformers.
"""

from __future__ import annotations

from gptkit.kinds.written import Written, fill

__all__ = [
    "ATTENTION_ENTRY",
    "BLOCK_ENTRY",
    "FEEDFORWARD_ENTRY",
    "FORWARD_NAMES",
    "batched_context",
    "context_part",
    "layer_cache",
]

_STATE = '''
class State:
    """What a module keeps of earlier tokens in the cache of its layer."""

    def __init__(self, cache: Any, name: str, n_tensors: int, parts: dict[str, int] | None = None) -> None:
        self.cache, self.name, self.parts = cache, name, parts or {}
        self.names = [f"{name}{index}" for index in range(n_tensors)]

    def __getitem__(self, part: str) -> State:
        """Return one of several states."""
        return State(self.cache, f"{self.name}_{part}", self.parts[part])

    @property
    def tensors(self) -> tuple[Tensor, ...] | None:
        """What `update` stored last."""
        kept = tuple(self.cache.get(name, None) for name in self.names)
        return None if any(tensor is None for tensor in kept) else kept

    def update(self, n_tokens: int, *tensors: Tensor) -> None:
        """Store tensors as they are after these tokens."""
        for name, tensor in zip(self.names, tensors, strict=True):
            self.cache[name] = tensor
    #if plain

    def append(self, *new_BHTD: Tensor) -> tuple[int, tuple[Tensor, ...]]:
        """Append to what is kept of earlier tokens, each (B, H, T, D) to (B, H, S, D)."""
        for index, tensor in enumerate(new_BHTD):
            name = str(index)
            kept = [self.cache[name]] if name in self.cache else []
            self.cache[name] = torch.cat([*kept, tensor], dim=2)
        return 0, tuple(self.cache[str(index)] for index in range(len(new_BHTD)))
    #else

    def append(self, *new_BHTD: Tensor) -> tuple[int, tuple[Tensor, ...]]:
        """Append to what is kept of earlier tokens, each (B, H, T, D) to (B, H, S, D)."""
        first_BHTD, *others = new_BHTD
        if len(others) == 1:
            return 0, self.cache.append(first_BHTD, others[0])
        # A cache has two tensors for each layer, so that the others are one tensor of one head.
        packed_BTX = torch.cat([x.transpose(1, 2).flatten(2) for x in others], dim=-1)
        first_BHSD, packed_B1SX = self.cache.append(first_BHTD, packed_BTX[:, None])
        sizes = [x.shape[1] * x.shape[3] for x in others]
        kept = [
            part.unflatten(-1, (x.shape[1], -1)).transpose(1, 2).to(x.dtype)
            for x, part in zip(others, packed_B1SX[:, 0].split(sizes, dim=-1), strict=True)
        ]
        return 0, (first_BHSD, *kept)
    #end
'''

_MASK = '''
class Mask:
    """Which keys each query may attend."""

    def __init__(self, allowed: Tensor) -> None:
        self.allowed = allowed

    def dense(self) -> Tensor:
        """Return truth values, (T, S) or (B, 1, T, S)."""
        return self.allowed

    def additive(self, dtype: torch.dtype) -> Tensor:
        """Return a term of the scores: 0, or -inf for excluded keys."""
        zeros = torch.zeros_like(self.allowed, dtype=dtype)
        return zeros.masked_fill(~self.allowed, -torch.inf)
'''

_CONTEXT = '''
class $class_name:
    """What copied modules read of a call: positions, earlier tokens, and values of other layers."""

    offset = 0
    weights = None
    #if plain
    valid_BT = None
    counted_BT = None
    #end
    left_padding_B = None
    documents_BT = None
    last_only = False

    def __init__(self, positions_T: Tensor, cache: Any, x_BTE: Tensor | None = None) -> None:
        self.positions_T = positions_T
        self.cache = cache
        self.x_BTE = x_BTE  # the input of a block
        self.kept: dict[Any, Any] = {}  # values that accompany its result
        self.calls: dict[str, int] = {}
        self.made: dict[Any, Any] = {}

    @property
    def ids_BT(self) -> Tensor:
        """The ids of these tokens."""
        ids_BT: Tensor = self.cache.shared["ids"]
        return ids_BT

    #if not plain
    @property
    def valid_BT(self) -> Tensor | None:
        """Which of these tokens are not padding; None if only attention functions receive that."""
        valid_BS: Tensor | None = getattr(self.cache, "valid_BS", None)
        return None if valid_BS is None else valid_BS[:, -self.n_tokens :]

    @property
    def counted_BT(self) -> Tensor | None:
        """The same: which of these tokens are not padding."""
        return self.valid_BT

    #end
    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.positions_T.device

    @property
    def n_tokens(self) -> int:
        """Number of these tokens."""
        return self.positions_T.shape[-1]

    @property
    def positions(self) -> Tensor:
        """Positions of these tokens, $shape."""
        return self.positions_T$row

    @property
    def query_positions(self) -> Tensor:
        """Positions of these tokens, $shape."""
        return self.positions_T$row

    def key_positions(self, offset: Any, n_keys: int) -> Tensor:
        """Return the positions of all tokens so far$padding."""
        #if plain
        return torch.arange(n_keys, device=self.device)
        #else
        return self.cache.key_positions
        #end

    def queries_in_view(self, offset: Any) -> Tensor:
        """Return the indices of these tokens among all so far, (T,)."""
        #if plain
        return self.positions_T
        #else
        n_keys = self.cache.keys_B11S.shape[-1]
        return torch.arange(n_keys - self.n_tokens, n_keys, device=self.device)
        #end

    def mask(self, offset: Any, n_keys: int, *, window: int | None = None) -> Mask:
        """Return which keys each query may attend: its own and earlier ones, within the window."""
        #if plain
        keys_S = torch.arange(n_keys, device=self.device)
        distance_TS = self.positions_T[:, None] - keys_S
        #else
        distance_TS = self.positions_T[..., None] - self.cache.keys_B11S
        #end
        allowed_TS = distance_TS >= 0
        return Mask(allowed_TS if window is None else allowed_TS & (distance_TS < window))

    def state(self, module: nn.Module, n_tensors: int = 0, parts: dict[str, int] | None = None) -> State:
        """Return what a module keeps of earlier tokens: keys and values, tensors of fixed size, or parts of either form."""
        return State(self.cache, type(module).__name__, n_tensors, parts)

    def part(self, name: str) -> Any:
        """Return the cache of a module that a layer calls several times, or beside others."""
        self.calls[name] = self.calls.get(name, -1) + 1
        return self.cache.part(f"{name}{self.calls[name]}")

    def once(self, key: Any, make: Any) -> Any:
        """Return a value that is computed once."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def publish(self, module: nn.Module, key: Any, value: Any) -> None:
        """Make a value available to later layers of this call."""
        self.cache.shared[key] = value

    def read(self, module: nn.Module, key: Any) -> Any:
        """Return what an earlier layer of this call published."""
        return self.cache.shared[key]

    def carry(self, module: nn.Module, key: Any, value: Any) -> None:
        """Let a value accompany what the block returns."""
        self.kept[key] = value

    def carried(self, module: nn.Module, key: Any) -> Any:
        """Return the value that accompanies the block's input; None without one."""
        vectors, values = self.cache.shared.get("carried", (None, {}))
        return values.get(key) if vectors is self.x_BTE else None

    def returned(self, y_BTE: Tensor) -> Tensor:
        """Return what a block returns, with the values that accompany it."""
        if self.kept:
            self.cache.shared["carried"] = (y_BTE, self.kept)
        return y_BTE

    def keep_weights(self, layer: int, weights_BHTS: Tensor) -> None:
        """Do nothing: attention weights are not requested."""
'''

_LAYER_CACHE = '''
class LayerCache(dict[str, Tensor]):
    """What a layer keeps of earlier tokens, and what layers pass to one another in a call."""

    def __init__(self, shared: dict[Any, Any]) -> None:
        super().__init__()
        self.shared = shared
        #if has_parts
        self.parts: dict[str, LayerCache] = {}

    def part(self, name: str) -> LayerCache:
        """Return the cache of a part of the layer."""
        return self.parts.setdefault(name, LayerCache(self.shared))
        #end
'''

FORWARD_NAMES = frozenset(
    {
        "cache",
        "carried",
        "carry",
        "counted_BT",
        "device",
        "documents_BT",
        "ids_BT",
        "keep_weights",
        "key_positions",
        "last_only",
        "left_padding_B",
        "mask",
        "n_tokens",
        "offset",
        "once",
        "part",
        "positions",
        "positions_T",
        "publish",
        "queries_in_view",
        "query_positions",
        "read",
        "state",
        "valid_BT",
        "weights",
    }
)
"""Attributes of the forward context that copied sources may use."""

_ENTRY = '''
def forward(self, x_BTE: Tensor, positions_T: Tensor, cache: Any) -> Tensor:
    """$summary, (B, T, E) to (B, T, E)."""
    #if block
    context = Context(positions_T, cache, x_BTE)
    return context.returned(self.mixed(x_BTE, context))
    #else
    return self.mixed(x_BTE, Context(positions_T, cache))
    #end
'''

ATTENTION_ENTRY = fill(_ENTRY, block=False, summary="Mix the tokens at these positions with earlier ones")
BLOCK_ENTRY = fill(_ENTRY, block=True, summary="Transform the tokens at these positions")
FEEDFORWARD_ENTRY = fill(_ENTRY, block=False, summary="Transform each token")


def context_part() -> Written:
    """Return the context of a call as a class of the file."""
    return _context(plain=True)


def batched_context() -> Written:
    """Return the context of a call in code for transformers, where rows have their own positions."""
    return _context(plain=False)


def _context(plain: bool) -> Written:
    shape = "(T,)" if plain else "(B, T)"
    text = fill(
        _CONTEXT,
        plain=plain,
        shape=shape,
        row="" if plain else "[:, 0]",
        padding="" if plain else "; that of padding is negative",
    )
    text = text if plain else text.replace("positions_T", "positions_B1T").replace("_TS", "_B1TS")
    state, mask = fill(_STATE, plain=plain), fill(_MASK)
    return Written("Context", f"{state}\n\n{mask}\n\n{text}", section="position", copied=True)


def layer_cache(has_parts: bool) -> str:
    """Return the class of the decoding cache of a layer that exchanges values with others.

    Args:
        has_parts: whether a component calls another one several times, each time with a cache of its own.
    """
    return fill(_LAYER_CACHE, has_parts=has_parts)
