"use strict";
// Parameters of attentions, and of the relative positions within them.

const Attentions = (() => {
  const {own, Unknown} = Names;

  /** The form of keys and values: what layers that share them have in common. */
  function form(c, position) {
    return JSON.stringify([c.n_kv_heads ?? c.n_heads, c.d_head, c.d_value ?? c.d_head, c.window, c.chunk, c.kv_conv, c.kv_conv_form, position]);
  }

  /** Whether a layer attends to the keys and values of an earlier one; otherwise it is added to those that have some. */
  function reusesKeys(c, layer, sources) {
    const own = form(c, layer.position);
    if (c.reuse_kv && sources.has(own)) return true;
    sources.add(own);
    return false;
  }

  /** Outputs of the parts of the packed projection: queries, keys, values, gates. */
  function widths(c) {
    const kv = c.n_kv_heads ?? c.n_heads, value = c.d_value ?? c.d_head;
    return [c.n_heads * c.d_head, kv * c.d_head, ...(c.tie_kv ? [] : [kv * value]), ...(c.output_gate ? [c.n_heads * value] : [])];
  }

  /** A projection, or one tensor of the matrices of several heads. */
  function projections(walk, name, linear, heads, inputs, outputs) {
    if (heads === 1) walk.linear(name, linear, inputs, outputs, false);
    else walk.matrix(name, heads * inputs * outputs);
  }

  function headed(walk, name, c, layer) {
    const reuses = reusesKeys(c, layer, walk.sources), value = c.d_value ?? c.d_head, heads = c.qk_norm_width === "head" ? 1 : c.n_heads;
    const kv = reuses ? 0 : c.n_kv_heads ?? c.n_heads, values = c.tie_kv ? 0 : kv, gates = c.output_gate ? c.n_heads : 0;
    if (c.sinks) walk.add(name + ".sinks", c.n_heads);
    if (c.output_gate && c.gate_bias) walk.add(name + ".gate_bias", c.n_heads);
    walk.norm(name + ".q_norm", c.qk_norm, heads * c.d_head);
    if (!reuses) walk.norm(name + ".k_norm", c.qk_norm && (c.k_norm ?? c.qk_norm), (c.qk_norm_width === "head" ? 1 : kv) * c.d_head);
    if (!reuses) walk.norm(name + ".v_norm", c.v_norm, value);
    const inputs = layer.d_input ?? walk.d_model;  // those of a branch may be wider
    const separate = layer.kv_inputs && !reuses, all = c.n_kv_heads ?? c.n_heads, sizes = [["key", c.d_head], ["value", value]];
    const packed = (c.n_heads + (separate ? 0 : kv)) * c.d_head + ((separate ? 0 : values) + gates) * value;
    walk.linear(`${name}.${reuses || separate ? "query" : c.tie_kv ? "qk" : "qkv"}`, layer.linear, inputs, packed, c.qkv_bias);
    if (separate) for (const [each, size] of sizes) walk.linear(`${name}.${each}`, layer.linear, inputs, all * size, c.qkv_bias);
    if (c.kv_conv && !reuses) for (const [each, size] of sizes) {
      walk.matrix(`${name}.${each[0]}_conv`, all * size * c.kv_conv);
      if (c.kv_conv_form === "dynamic") walk.linear(`${name}.${each[0]}_conv.dynamic`, layer.linear, inputs, all * c.kv_conv, false);
    }
    if (c.token_sinks) walk.linear(name + ".token_sinks", layer.linear, inputs, c.n_heads, false);
    if (c.relative_width) {
      walk.linear(name + ".relative.features", layer.linear, inputs, c.n_heads * c.relative_width, false);
      walk.add(name + ".relative.table", c.relative_width * c.relative_extent);
      walk.norm(name + ".relative.norm", c.relative_norm ?? null, c.n_heads * c.relative_width);
    }
    if (c.head_gate) walk.linear(name + ".head_gate", layer.linear, inputs, c.n_heads, false);
    walk.norm(name + ".output_norm", c.output_norm ?? null, c.n_heads * value);
    walk.linear(name + ".output", layer.linear, c.n_heads * value, walk.d_model, c.output_bias);
  }

  function latent(walk, name, c, layer) {
    const values = c.n_heads * c.d_value, fused = c.output_gate && c.gate_input === "queries";
    if (c.q_rank) {
      walk.linear(name + ".q_down", layer.linear, walk.d_model, c.q_rank, c.bias);
      walk.norm(name + ".q_latent_norm", c.norm, c.q_rank);
    }
    const source = c.q_rank ? c.q_rank * (c.query_latents === "both" ? 2 : 1) : walk.d_model;
    walk.linear(name + ".q_up", layer.linear, source, c.n_heads * (c.d_nope + c.d_rotary + (fused ? c.d_value : 0)), false);
    walk.linear(name + ".kv_down", layer.linear, walk.d_model, c.kv_rank + c.d_rotary, c.bias);
    walk.norm(name + ".kv_latent_norm", c.norm, c.kv_rank);
    walk.norm(name + ".rotary_norm", c.rotary_norm, c.d_rotary);
    walk.matrix(name + ".kv_up", c.kv_rank * c.n_heads * (c.d_nope + c.d_value));
    if (c.head_gate) walk.linear(name + ".head_gate", layer.linear, walk.d_model, c.n_heads, false);
    if (c.output_gate && !fused) walk.linear(name + ".gate", layer.linear, walk.d_model, values, false);
    if (c.sinks) walk.add(name + ".sinks", c.n_heads);
    walk.linear(name + ".output", layer.linear, values, walk.d_model, c.bias);
  }

  function compressor(walk, name, c, layer, width) {
    const own = (c.overlap ? 2 : 1) * width;
    for (const each of ["content", "gate"]) walk.linear(`${name}.${each}`, layer.linear, walk.d_model, own, false);
    walk.add(name + ".position_bias", c.block_size * own);
    walk.norm(name + ".norm", c.norm, width);
  }

  const ATTENTION = {
    "multi-head": headed,
    "grouped-query": headed,
    "simple": () => {},
    "single-head": (walk, name, c, layer) => {
      for (const each of ["W_query", "W_key", "W_value"]) walk.linear(`${name}.${each}`, layer.linear, walk.d_model, c.d_head, c.qkv_bias);
      if (c.output) walk.linear(name + ".W_output", layer.linear, c.d_head, walk.d_model, false);
    },
    "stacked-heads": (walk, name, c, layer) => {
      for (let head = 0; head < c.n_heads; head++) {
        for (const each of ["W_query", "W_key", "W_value"]) {
          walk.linear(`${name}.stack.${head}.${each}`, layer.linear, walk.d_model, Math.floor(walk.d_model / c.n_heads), c.qkv_bias);
        }
      }
    },
    "latent": latent,
    "block-sparse": (walk, name, c, layer) => {
      headed(walk, name, c, layer);
      walk.loss("indexer");
      walk.linear(name + ".indexer.query", layer.linear, walk.d_model, c.index_heads * c.d_index, false);
      walk.linear(name + ".indexer.key", layer.linear, walk.d_model, c.d_index, false);
      for (const each of ["query_norm", "key_norm"]) walk.norm(`${name}.indexer.${each}`, c.index_norm, c.d_index);
    },
    "pooled-sparse": (walk, name, c, layer) => {
      headed(walk, name, c, layer);
      walk.loss("indexer");
      walk.linear(name + ".indexer.qk", layer.linear, walk.d_model, (c.index_heads + 1) * c.d_index, false);
      for (const each of ["query_norm", "key_norm"]) walk.norm(`${name}.indexer.${each}`, c.index_norm, c.d_index);
    },
    "differential": (walk, name, c, layer) => {
      const heads = 2 * c.n_heads * c.d_head, keys = 2 * c.n_kv_heads * c.d_head;
      walk.linear(name + ".qkv", layer.linear, walk.d_model, heads + 2 * keys, c.qkv_bias);
      walk.norm(name + ".norm", c.norm, 2 * c.d_head);
      walk.linear(name + ".output", layer.linear, heads, walk.d_model, c.output_bias);
      for (const each of ["q1", "k1", "q2", "k2"]) walk.add(`${name}.lambda_${each}`, c.d_head);
    },
    "expert-heads": (walk, name, c, layer) => {
      const heads = c.n_kv_heads * c.d_head;
      walk.router(name + ".router", c.router, walk.d_model, c.n_experts);
      walk.stack(name + ".query", c.n_experts, walk.d_model, heads, false);
      walk.linear(name + ".kv", layer.linear, walk.d_model, 2 * heads, false);
      walk.stack(name + ".output", c.n_experts, heads, walk.d_model, false);
      if (c.output_bias) walk.add(name + ".output_bias", walk.d_model);
    },
    "compressed": (walk, name, c, layer) => {
      const values = c.n_heads * c.d_head, indexed = c.block_size && c.top_k;
      if (c.q_rank) {
        walk.linear(name + ".q_down", layer.linear, walk.d_model, c.q_rank, false);
        walk.norm(name + ".q_latent_norm", c.norm, c.q_rank);
      }
      walk.linear(name + ".q_up", layer.linear, c.q_rank || walk.d_model, values, false);
      walk.norm(name + ".q_norm", c.q_norm ?? null, c.d_head);
      walk.linear(name + ".kv", layer.linear, walk.d_model, c.d_head, false);
      walk.norm(name + ".kv_norm", c.norm, c.d_head);
      if (c.block_size) compressor(walk, name + ".compressor", c, layer, c.d_head);
      if (indexed) {
        walk.loss("indexer");
        walk.linear(name + ".indexer.query", layer.linear, c.q_rank || walk.d_model, c.index_heads * c.d_index, false);
        walk.matrix(name + ".indexer.weights", walk.d_model * c.index_heads);
        compressor(walk, name + ".indexer.compressor", c, layer, c.d_index);
      }
      if (c.sinks) walk.add(name + ".sinks", c.n_heads);
      if (c.output_rank) walk.add(name + ".output_down.weight", values * c.output_rank);
      walk.linear(name + ".output", layer.linear, c.output_rank ? c.output_groups * c.output_rank : values, walk.d_model, false);
    },
    "convolutional": (walk, name, c, layer) => {
      const queries = c.n_heads * c.d_head, keys = c.n_kv_heads * c.d_head, conv = queries + keys;
      walk.linear(name + ".qkv", layer.linear, walk.d_model, conv + keys / 2, c.qkv_bias);
      walk.linear(name + ".previous_value", layer.linear, walk.d_model, keys / 2, c.qkv_bias);
      walk.matrix(name + ".feature_conv", conv * c.feature_width, conv);
      walk.matrix(name + ".head_conv", conv * c.d_head * c.head_width, conv);
      for (const each of ["q_norm", "k_norm"]) walk.norm(`${name}.${each}`, c.norm, c.d_head);
      walk.add(name + ".key_scale", c.n_kv_heads);
      walk.linear(name + ".output", layer.linear, queries, walk.d_model, c.output_bias);
    },
    "sparse-latent": (walk, name, c, layer) => {
      latent(walk, name, c, layer);
      if (c.indexer !== "own") return;
      walk.loss("indexer");
      walk.linear(name + ".indexer.query", layer.linear, c.q_rank || walk.d_model, c.index_heads * c.d_index, false);
      walk.linear(name + ".indexer.key", layer.linear, walk.d_model, c.d_index, false);
      walk.matrix(name + ".indexer.key_norm", c.d_index, c.d_index);
      walk.matrix(name + ".indexer.weights", walk.d_model * c.index_heads);
    },
    "gated-delta": (walk, name, c, layer) => {
      const keys = c.n_heads * c.d_key, values = c.n_value_heads * c.d_value, conv = 2 * keys + values;
      walk.linear(name + ".qkvz", layer.linear, walk.d_model, conv + values, false);
      walk.matrix(name + ".rates", walk.d_model * 2 * c.n_value_heads);
      walk.matrix(name + ".conv", conv * c.conv_width);
      for (const each of ["decay_log", "decay_bias"]) walk.add(`${name}.${each}`, c.n_value_heads);
      walk.norm(name + ".norm", c.norm, c.d_value);
      walk.linear(name + ".output", layer.linear, values, walk.d_model, false);
    },
    "kimi-delta": (walk, name, c, layer) => {
      const keys = c.n_heads * c.d_key, values = c.n_heads * c.d_value, conv = 2 * keys + values;
      walk.linear(name + ".qkv", layer.linear, walk.d_model, conv, false);
      for (const [each, outputs] of [["decay", keys], ["gate", values]]) {
        const rank = c[each + "_rank"];
        if (rank) walk.linear(`${name}.${each}_down`, layer.linear, walk.d_model, rank, false);
        walk.linear(`${name}.${each}`, layer.linear, rank || walk.d_model, outputs, false);
      }
      walk.matrix(name + ".strength", walk.d_model * c.n_heads);
      walk.matrix(name + ".conv", conv * c.conv_width);
      walk.add(name + ".decay_log", c.n_heads);
      walk.add(name + ".decay_bias", keys);
      walk.norm(name + ".norm", c.norm, c.d_value);
      walk.linear(name + ".output", layer.linear, values, walk.d_model, false);
    },
    "mamba2": (walk, name, c, layer) => {
      const values = c.n_heads * c.d_head, conv = values + 2 * c.n_groups * c.d_state;
      walk.linear(name + ".input", layer.linear, walk.d_model, values + conv + c.n_heads, c.bias);
      walk.matrix(name + ".conv", conv * c.conv_width, c.conv_bias ? conv : 0);
      walk.activation(name + ".activation", c.activation);
      for (const each of ["decay_log", "step_bias", "skip"]) walk.add(`${name}.${each}`, c.n_heads);
      if (c.norm !== "none") walk.add(name + ".norm_weight", values);
      walk.linear(name + ".output", layer.linear, values, walk.d_model, c.bias);
    },
    "mamba1": (walk, name, c, layer) => {
      const inner = c.d_inner;
      walk.linear(name + ".input", layer.linear, walk.d_model, 2 * inner, c.bias);
      walk.matrix(name + ".conv", inner * c.conv_width, c.conv_bias ? inner : 0);
      walk.activation(name + ".activation", c.activation);
      projections(walk, name + ".select", layer.linear, c.n_heads, inner / c.n_heads, c.step_rank + 2 * c.d_state);
      for (const [each, width] of [["step", c.step_rank], ["key", c.d_state], ["query", c.d_state]]) walk.norm(`${name}.${each}_norm`, c.norm, width);
      projections(walk, name + ".step", layer.linear, c.n_heads, c.step_rank, inner / c.n_heads);
      for (const [each, size] of [["step_bias", inner], ["decay_log", inner * c.d_state], ["skip", inner]]) walk.add(`${name}.${each}`, size);
      walk.linear(name + ".output", layer.linear, inner, walk.d_model, c.bias);
    },
    "rg-lru": (walk, name, c, layer) => {
      const inner = c.d_inner;
      walk.linear(name + ".input", layer.linear, walk.d_model, 2 * inner, c.bias);
      walk.matrix(name + ".conv", inner * c.conv_width, inner);
      for (const each of ["decay_gate", "input_gate"]) {
        walk.add(`${name}.${each}_weight`, inner * inner / c.n_heads);
        walk.add(`${name}.${each}_bias`, inner);
      }
      walk.add(name + ".decay", inner);
      walk.activation(name + ".activation", c.activation);
      walk.linear(name + ".output", layer.linear, inner, walk.d_model, c.bias);
    },
    "rwkv4": (walk, name, c, layer) => {
      walk.add(name + ".mix", 3 * walk.d_model);
      for (const each of ["key", "value", "receptance"]) walk.linear(`${name}.${each}`, layer.linear, walk.d_model, c.d_inner, false);
      for (const each of ["decay", "bonus"]) walk.add(`${name}.${each}`, c.d_inner);
      walk.linear(name + ".output", layer.linear, c.d_inner, walk.d_model, false);
    },
    "mlstm": (walk, name, c, layer) => {
      const keys = c.n_heads * c.d_key, values = c.n_heads * c.d_value;
      walk.linear(name + ".input", layer.linear, walk.d_model, 2 * keys + 2 * values, false);
      walk.matrix(name + ".gates", 2 * c.n_heads * walk.d_model, 2 * c.n_heads);
      if (c.norm !== "none") walk.add(name + ".norm_weight", values);
      walk.linear(name + ".output", layer.linear, values, walk.d_model, false);
    },
    "lightning": (walk, name, c, layer) => {
      const heads = c.n_heads * c.d_head;
      walk.linear(name + ".qkv", layer.linear, walk.d_model, 3 * heads, false);
      walk.activation(name + ".activation", c.activation);
      walk.norm(name + ".norm", c.norm, heads);
      if (c.output_gate) walk.linear(name + ".gate", layer.linear, walk.d_model, heads, false);
      walk.linear(name + ".output", layer.linear, heads, walk.d_model, false);
    },
    "hybrid": (walk, name, c, layer) => {
      for (const each of ["attention", "recurrence"]) attention(walk, `${name}.${each}`, c[each], layer);
    },
    "short-conv": (walk, name, c, layer) => {
      walk.linear(name + ".input", layer.linear, walk.d_model, 3 * walk.d_model, c.bias);
      walk.matrix(name + ".conv", walk.d_model * c.width, c.bias ? walk.d_model : 0);
      walk.linear(name + ".output", layer.linear, walk.d_model, walk.d_model, c.bias);
    },
  };

  function attention(walk, name, c, layer) {
    const formula = ATTENTION[own("attention", c).name];
    if (!formula) throw new Unknown("attention " + c.name);
    formula(walk, name, c, layer);
  }

  /** The tables of a layer's relative position: part of its attention, or shared by layers. */
  function relative(walk, name, layer) {
    const {position} = layer, hybrid = layer.attention.name === "hybrid", inner = hybrid ? layer.attention.attention : layer.attention;
    if (hybrid) name += ".attention";
    own("position", position);
    const d_head = inner.name === "stacked-heads" ? Math.floor(walk.d_model / inner.n_heads) : inner.d_head ?? 0;
    if (position.name === "shaw") {
      for (const each of position.values ? ["keys", "values"] : ["keys"]) {
        walk.matrix(`${name}.position.${each}`, (position.max_distance + 1) * d_head);
      }
    } else if (position.name === "t5-bias") {
      const n_heads = ["single-head", "simple"].includes(inner.name) ? 1 : inner.n_heads, size = position.n_buckets * n_heads;
      const module = position.shared ? walk.share("t5-bias", JSON.stringify([position, n_heads])) : name + ".position";
      if (module !== null) walk.matrix(module + ".table", size);
    }
  }

  /** The attention of a layer, with its relative position. */
  function ofLayer(walk, name, layer) {
    attention(walk, name, layer.attention, layer);
    relative(walk, name, layer);
  }

  return {ofLayer, form, widths};
})();
