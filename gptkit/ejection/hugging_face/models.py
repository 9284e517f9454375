"""The classes of a model in generated code for transformers: base model and causal model."""

from __future__ import annotations

__all__ = ["CAUSAL_MODEL", "MODEL"]

MODEL = '''
class GptkitPreTrainedModel(PreTrainedModel):
    """What the models below have in common: how transformers loads and runs them."""

    config_class = GptkitConfig
    base_model_prefix = "model"
    _no_split_modules = [$no_split]
    _supports_sdpa = True
    #if interface
    _supports_attention_backend = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _can_compile_fullgraph = $full_graph
    #end
    #if recurrent
    _is_stateful = True
    #end
    #if selection_bias
    _keep_in_fp32_modules_strict = ["selection_bias"]
    #end

    def _init_weights(self, module: nn.Module) -> None:
        """Modules set their initial weights when they are constructed."""


class GptkitModel(GptkitPreTrainedModel):
    """The model without its head: embedding, blocks$final_words."""

    #if sources
    # Layers that attend to the keys and values of an earlier one, by their indices.
    kv_sources = {$sources}

    #end
    def __init__(self, config: GptkitConfig) -> None:
        super().__init__(config)
        self.embedding = $embedding
        #if shared_modules
        self.shared = nn.ModuleDict({$shared_modules})
        #end
        $blocks
        #if references
        $references
        #end
        #if final_norm
        self.final_norm = $final_norm
        #end
        #if interface
        attentions = [each for each in self.modules() if hasattr(each, "num_key_value_groups")]
        for layer, attention in enumerate(attentions):
            attention.config, attention.layer_idx = config, layer
        #end
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.$table

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.$table = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> BaseModelOutputWithPast | tuple:
        """Return the vectors of tokens, which continue those in the cache; mask 0 is padding."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        #if needs_ids
        if input_ids is None:
            raise ValueError("this model needs input_ids, which its modules read")
        x_BTE = self.$table(input_ids)
        #else
        x_BTE = self.$table(input_ids) if inputs_embeds is None else inputs_embeds
        #end
        use_cache = self.config.use_cache and not self.training if use_cache is None else use_cache
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        n_past = 0 if past_key_values is None else past_key_values.get_seq_length()
        #if interface
        if position_ids is None:
            position_ids = (n_past + torch.arange(x_BTE.shape[1], device=x_BTE.device))[None]
            if isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
                # Positions begin at the first token of a row, after its padding.
                position_ids = attention_mask.long().cumsum(dim=1)[:, n_past:] - 1
                position_ids = position_ids.clamp(min=0)
        masks = self.masks(x_BTE, attention_mask, position_ids, past_key_values)
        shared = (masks, options$more_shared)
        #else
        layers = [] if past_key_values is None else past_key_values.layers
        if any(isinstance(layer, StaticLayer) for layer in layers):
            raise ValueError("this model needs a cache that grows, such as DynamicCache")
        keys_BS = self.key_positions(attention_mask, n_past, x_BTE)
        if position_ids is None:
            position_ids = keys_BS[:, n_past:].masked_fill(keys_BS[:, n_past:] == keys_BS.shape[1], 0)
        shared = $shared
        #end
        #if counted
        if past_key_values is not None:
            # transformers counts the tokens in a cache by keys, which no layer of this model has.
            empty_B1T1 = x_BTE.new_zeros(len(x_BTE), 1, x_BTE.shape[1], 1)
            past_key_values.update(empty_B1T1, empty_B1T1, 0)
        #end
        #if entries
        entries = itertools.count()
        #end
        #if embed
        x_BTE = self.embedding($embed)
        #end
        states = [x_BTE]
        #if layer_inputs
        inputs_BTLP = self.shared["$layer_inputs"](input_ids, x_BTE)
        #end
        #if sources
        caches: list[LayerCache] = []
        #end
        #if by_layer
        for layer, block in enumerate(self.blocks):
        #else
        for block in self.blocks:
        #end
            #if passes
            cache = LayerCache(past_key_values, $entry, *shared)
            #if sources
            if layer in self.kv_sources:
                cache.source = caches[self.kv_sources[layer]]
            caches.append(cache)
            #end
            #if layer_inputs
            cache.layer_input = inputs_BTLP[:, :, layer]
            #end
            x_BTE = block(x_BTE, position_ids[:, None], cache)
            #else
            x_BTE = block(x_BTE, position_ids[:, None], LayerCache(past_key_values, $entry, *shared))
            #end
            states.append(x_BTE)
        #if final_norm
        x_BTE = self.final_norm(x_BTE)
        states[-1] = x_BTE
        #end
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        output = BaseModelOutputWithPast(
            last_hidden_state=x_BTE,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=tuple(states) if output_hidden_states else None,
        )
        return output.to_tuple() if return_dict is False else output
    #if interface

    def masks(
        self, x_BTE: Tensor, mask: Any, position_ids: Tensor, cache: Cache | None
    ) -> dict[int | None, Any]:
        """Return the masks of attention by window; None is the mask without a window."""
        if isinstance(mask, dict):  # made by generate
            return {$given_masks}
        arguments = {
            "config": self.config,
            "inputs_embeds": x_BTE,
            "attention_mask": mask,
            "past_key_values": cache,
            "position_ids": position_ids,
        }
        return {$made_masks}
    #else

    def key_positions(self, mask: Any, n_past: int, x_BTE: Tensor) -> Tensor:
        """Return the position of each token in its row, (B, S); that of padding is S, the last."""
        n_keys = n_past + x_BTE.shape[1]
        if mask is None:
            return torch.arange(n_keys, device=x_BTE.device)[None]
        if not isinstance(mask, Tensor) or mask.shape[1:] != (n_keys,):
            raise ValueError(f"attention_mask must be (rows, {n_keys}): 1 for tokens, 0 for padding")
        return (mask.long().cumsum(dim=1) - 1).masked_fill(mask == 0, n_keys)
    #end
    #if recurrent

    def starts(self, keys_BS: Tensor, n_past: int, mask: Any) -> tuple[Tensor, Any, Any]:
        """Return the positions of keys, which tokens are padding, and which are the first of a row."""
        keys_B11S = keys_BS[:, None, None]
        if mask is None:
            return keys_B11S, None, None
        keys_BT = keys_BS[:, n_past:]
        return keys_B11S, (keys_BT == keys_BS.shape[1])[..., None], keys_BT == 0
    #end
'''

CAUSAL_MODEL = '''
class GptkitForCausalLM(GptkitPreTrainedModel, GenerationMixin):
    """The model with its head, which returns the logits of the next token after each."""

    #if tied
    _tied_weights_keys = {"lm_head.weight": "model.$table.weight"}
    #end
    #if plan
    _tp_plan = {"lm_head": "colwise_gather_output"}
    #end

    def __init__(self, config: GptkitConfig) -> None:
        super().__init__(config)
        self.model = GptkitModel(config)
        #if project
        self.head_projection = nn.Linear(D_MODEL, $d_head, bias=False)
        #end
        self.lm_head = nn.Linear($d_head, config.vocab_size$no_bias)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        **options: Any,
    ) -> CausalLMOutputWithPast | tuple:
        """Return the logits, (B, T) to (B, T, V), and with labels the loss."""
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **options,
        )
        x_BTE = output.last_hidden_state
        # Generation needs the logits of the last token only.
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        #if project
        logits_BTV = self.lm_head(self.head_projection(x_BTE[:, kept]))
        #else
        logits_BTV = self.lm_head(x_BTE[:, kept])
        #end
        #if scale
        logits_BTV = $scale * logits_BTV
        #end
        #if bounded
        logits_BTV = $bounded
        #end
        loss = None
        if labels is not None:
            options.pop("output_hidden_states", None)
            loss = self.loss_function(
                logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size, **options
            )
        result = CausalLMOutputWithPast(
            loss=loss,
            logits=logits_BTV,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
        )
        return result.to_tuple() if return_dict is False else result
'''
