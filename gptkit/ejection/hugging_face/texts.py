"""The parts of generated code for transformers that are the same for every composition: configuration, imports, cache."""

from __future__ import annotations

__all__ = ["ATTENTION_FUNCTION", "CONFIGURATION", "HEADER", "LAYER_CACHE"]

CONFIGURATION = '''
"""Configuration of $name, $generator."""

from transformers import PreTrainedConfig


class GptkitConfig(PreTrainedConfig):
    """Sizes of the model for the programs that read them, such as transformers' caches and vLLM.

    The code of this model (modeling_gptkit.py) has its sizes as constants: except `vocab_size`,
    other values here do not change the model.
    """

    model_type = "gptkit"
    keys_to_ignore_at_inference = ["past_key_values"]
    #if plan
    base_model_tp_plan = {
        $plan
    }
    #end

    def __init__(
        self,
        $fields
        use_cache=True,
        **others,
    ):
        $assignments
        self.use_cache = use_cache
        super().__init__(**others)
'''

HEADER = '''
"""$name: a language model for transformers, $generator.

$parameters parameters. Suffixes of tensors name their dimensions:
B rows, T tokens, S tokens so far (keys), E features of a token, H heads, D features of a head,
$shapes
"""

from __future__ import annotations

#if several
import copy
#end
#if entries
import itertools
#end
#if math
import math
#end
#if entries
from collections.abc import Iterator
#end
from typing import Any

import torch
#if functional
import torch.nn.functional as F
#end
from torch import Tensor, nn
#if functional_call
from torch.func import functional_call
#end
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache$static_layer
from transformers.generation import GenerationMixin
#if masks
from transformers.masking_utils import $masks
#end
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
#if interface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
#end

from .configuration_gptkit import GptkitConfig
'''

LAYER_CACHE = '''
class LayerCache:
    #if interface
    """What one layer keeps of earlier tokens; masks and options of its attention function."""

    def __init__(
        self,
        cache: Cache | None,
        #if entries
        entries: Iterator[int],
        #else
        layer: int,
        #end
        masks: dict[int | None, Any],
        options: dict[str, Any],
        #if context
        shared: dict[Any, Any],
        #end
    ) -> None:
        self.cache = cache
        #if entries
        self.entries = entries  # numbers of entries of the cache, in the order of their use
        self.numbers: dict[str, int] = {}  # those of this layer, by what they keep
        #else
        self.layer = layer
        #end
        self.masks = masks  # by window; None is the mask without one
        self.options = options
        #if context
        self.shared = shared  # what layers pass to one another
        #end
        #if reused
        self.source: LayerCache | None = None  # that of the layer whose keys and values are attended to
        self.appended: tuple[Tensor, Tensor] | None = None  # all keys and values of this layer
        #end
        #if layer_inputs
        self.layer_input: Tensor | None = None  # vectors of the tokens for this layer
        #end
    #else
    """What one layer keeps of earlier tokens, and the positions of all tokens so far."""

    def __init__(self, cache: Cache | None, $number, keys_B11S: Tensor$more_parameters) -> None:
        self.cache = cache
        #if entries
        self.entries = entries  # numbers of entries of the cache, in the order of their use
        self.numbers: dict[str, int] = {}  # those of this layer, by what they keep
        #else
        self.layer = layer
        #end
        self.keys_B11S = keys_B11S  # positions of the keys; that of padding is after all others
        #if recurrent
        self.padding_BT1 = padding_BT1  # whether a token is padding; None without padding
        self.first_BT = first_BT  # whether a token is the first of its row
        #if bare
        self.convolved = False  # whether the layer has a convolution
        #end
        #end
        #if context
        self.shared = shared  # what layers pass to one another
        #end
        #if reused
        self.source: LayerCache | None = None  # that of the layer whose keys and values are attended to
        self.appended: tuple[Tensor, Tensor] | None = None  # all keys and values of this layer
        #end
        #if layer_inputs
        self.layer_input: Tensor | None = None  # vectors of the tokens for this layer
        #end
    #if key_positions

    @property
    def key_positions(self) -> Tensor:
        """The positions of the keys, (B, S); that of padding is negative."""
        keys_BS = self.keys_B11S[:, 0, 0]
        return keys_BS.masked_fill(keys_BS == keys_BS.shape[1], -1)

    @property
    def valid_BS(self) -> Tensor:
        """Which tokens so far are not padding, (B, S)."""
        return self.key_positions >= 0
    #end
    #end
    #if entries

    @property
    def layer(self) -> int:
        """The entry of this layer for keys and values, or for the state of a recurrence."""
        return self.number("layer")

    def number(self, name: str) -> int:
        """Return the number of an entry of this layer."""
        if name not in self.numbers:
            self.numbers[name] = next(self.entries)
        return self.numbers[name]
    #end
    #if several

    def part(self, name: str) -> LayerCache:
        """Return the cache of an attention that the layer calls several times, or beside others."""
        part = copy.copy(self)
        part.numbers = {}
        return part
    #end
    #if more

    def append_more(self, k_BHTD: Tensor) -> Tensor:
        """Append to a further entry of the cache, (B, H, T, D) to (B, H, S, D)."""
        if self.cache is None:
            return k_BHTD
        return self.cache.update(k_BHTD, k_BHTD[..., :0], next(self.entries))[0]
    #end
    #if attention

    def append(self, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values of these tokens to earlier ones, (B, H, T, D) to (B, H, S, D)."""
        #if reused
        self.appended = k_BHTD, v_BHTD
        if self.cache is not None:
            self.appended = self.cache.update(k_BHTD, v_BHTD, self.layer)
        return self.appended
        #else
        if self.cache is None:
            return k_BHTD, v_BHTD
        return self.cache.update(k_BHTD, v_BHTD, self.layer)
        #end
    #end
    #if recurrent

    def get(self, name: str, default: Any) -> Any:
        """Return what is kept of earlier tokens: a state, or the last inputs of a convolution."""
        if self.cache is None:
            return default
        if name == "inputs":
            kept = self.cache.get_conv_state(self.layer)
            return default if kept is None else kept.transpose(1, 2)
        #if own
        entry = self.layer if name == "state" else self.number(name)
        #else
        entry = self.layer
        #end
        kept = self.cache.get_recurrent_state(entry)
        # A copy, since transformers writes the next state in place.
        return default if kept is None else kept.clone()

    def __setitem__(self, name: str, value: Tensor) -> None:
        if self.cache is None:
            return
        if name == "inputs":
            #if bare
            self.convolved = True
            #end
            self.cache.update_conv_state(value.transpose(1, 2), self.layer)
            return
        #if own
        entry = self.layer if name == "state" else self.number(name)
        #else
        entry = self.layer
        #end
        self.cache.update_recurrent_state(value, entry)
        #if bare
        if name != "state" or not self.convolved:
            # transformers returns a state only beside inputs of a convolution.
            self.cache.update_conv_state(value.new_zeros(value.shape[0], 1, 1), entry)
        #end

    def without_padding(self, x_BTC: Tensor) -> Tensor:
        """Replace the features of padding by zeros, as before the start of a row."""
        return x_BTC if self.padding_BT1 is None else x_BTC.masked_fill(self.padding_BT1, 0.0)

    def started(self, state: Tensor, t: int) -> Tensor:
        """Return the state before token t, which is empty before the first token of a row."""
        if self.first_BT is None:
            return state
        first_B = self.first_BT[:, t]
        return state.masked_fill(first_B.reshape(-1, *[1] * (state.dim() - 1)), 0.0)
    #end
'''

ATTENTION_FUNCTION = '''
def eager_attention(
    module: nn.Module,
    q_BHTD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Compute attention step by step; transformers has faster functions with this signature."""
    k_BHSD = k_BHSD.repeat_interleave(module.num_key_value_groups, dim=1)
    v_BHSD = v_BHSD.repeat_interleave(module.num_key_value_groups, dim=1)
    scores_BHTS = q_BHTD @ k_BHSD.mT * scaling
    if mask is not None:
        scores_BHTS = scores_BHTS + mask
    weights_BHTS = scores_BHTS.softmax(dim=-1, dtype=torch.float32).to(q_BHTD.dtype)
    weights_BHTS = nn.functional.dropout(weights_BHTS, dropout, module.training)
    return (weights_BHTS @ v_BHSD).transpose(1, 2).contiguous(), weights_BHTS
'''
