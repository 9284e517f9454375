"use strict";
// Numbers of parameters of gptkit's own components, from their fields. A component of a plugin has no formula here: the count
// is then null, and is not shown. Tests compare these numbers with those of the built models, for every preset.

const Counts = (() => {
  let kinds = {};
  class Unknown extends Error {}

  function configure(data) { kinds = data.kinds; }

  function own(kind, component) {
    if (!kinds[kind][component.name].builtin) throw new Unknown(`${kind} ${component.name}`);
    return component;
  }

  /** A projection; adapters are given to projections by their names, which are those of the built model. */
  function projection(layer, inputs, outputs, bias) {
    if (layer.linear && (own("linear", layer.linear).name !== "dense")) throw new Unknown("linear " + layer.linear.name);
    return inputs * outputs + (bias ? outputs : 0);
  }

  function norm(component, width) {
    own("norm", component);
    if (component.name === "none") return 0;
    if (component.name === "rms") return component.scale ? width : 0;
    if (component.name === "layer") return (component.scale ? width : 0) + (component.shift ? width : 0);
    throw new Unknown("norm " + component.name);
  }

  function activation(component) { return own("activation", component).name === "xielu" ? 4 : 0; }

  const ATTENTION = {
    "multi-head": headed,
    "grouped-query": headed,
    "single-head": (c, x, layer) => 3 * projection(layer, x.d_model, c.d_head, c.qkv_bias) +
      (c.output ? projection(layer, c.d_head, x.d_model, false) : 0),
    "simple": () => 0,
    "latent": (c, x, layer) => {
      let sum = c.q_rank ? projection(layer, x.d_model, c.q_rank, c.bias) + norm(c.norm, c.q_rank) : 0;
      if (c.head_gate) sum += projection(layer, x.d_model, c.n_heads, false);
      if (c.output_gate) sum += projection(layer, x.d_model, c.n_heads * c.d_value, false);
      sum += (c.sinks ? c.n_heads : 0) + (c.rotary_norm === null ? 0 : norm(c.rotary_norm, c.d_rotary));
      sum += projection(layer, c.q_rank || x.d_model, c.n_heads * (c.d_nope + c.d_rotary), false);
      sum += projection(layer, x.d_model, c.kv_rank + c.d_rotary, c.bias) + norm(c.norm, c.kv_rank);
      return sum + c.kv_rank * c.n_heads * (c.d_nope + c.d_value) + projection(layer, c.n_heads * c.d_value, x.d_model, c.bias);
    },
    "block-sparse": (c, x, layer) => headed(c, x, layer) + projection(layer, x.d_model, c.index_heads * c.d_index, false) +
      projection(layer, x.d_model, c.d_index, false) + 2 * norm(c.index_norm, c.d_index),
    "differential": (c, x, layer) => {
      const heads = 2 * c.n_heads * c.d_head, keys = 2 * c.n_kv_heads * c.d_head;
      return projection(layer, x.d_model, heads + 2 * keys, c.qkv_bias) + norm(c.norm, 2 * c.d_head) + 4 * c.d_head +
        projection(layer, heads, x.d_model, c.output_bias);
    },
    "sparse-latent": (c, x, layer) => ATTENTION.latent(c, x, layer) + (c.indexer === "own" ? indexer(c, x, layer) : 0),
    "kimi-delta": (c, x, layer) => {
      const keys = c.n_heads * c.d_key, values = c.n_heads * c.d_value, conv = 2 * keys + values;
      const low = (rank, outputs) => rank ? projection(layer, x.d_model, rank, false) + projection(layer, rank, outputs, false)
        : projection(layer, x.d_model, outputs, false);
      return projection(layer, x.d_model, conv, false) + low(c.decay_rank, keys) + low(c.gate_rank, values) +
        x.d_model * c.n_heads + conv * c.conv_width + c.n_heads + keys + norm(c.norm, c.d_value) +
        projection(layer, values, x.d_model, false);
    },
    "gated-delta": (c, x, layer) => {
      const keys = c.n_heads * c.d_key, values = c.n_value_heads * c.d_value, conv = 2 * keys + values;
      return projection(layer, x.d_model, conv + values, false) + x.d_model * 2 * c.n_value_heads + conv * c.conv_width +
        2 * c.n_value_heads + norm(c.norm, c.d_value) + projection(layer, values, x.d_model, false);
    },
    "mamba2": (c, x, layer) => {
      const values = c.n_heads * c.d_head, conv = values + 2 * c.n_groups * c.d_state;
      return projection(layer, x.d_model, values + conv + c.n_heads, c.bias) + conv * c.conv_width + (c.conv_bias ? conv : 0) +
        activation(c.activation) + 3 * c.n_heads + (c.norm === "none" ? 0 : values) + projection(layer, values, x.d_model, c.bias);
    },
    "mamba1": (c, x, layer) => {
      const inner = c.d_inner, chosen = c.step_rank + 2 * c.d_state;
      return projection(layer, x.d_model, 2 * inner, c.bias) + inner * c.conv_width + (c.conv_bias ? inner : 0) +
        activation(c.activation) + projection(layer, inner, chosen, false) + norm(c.norm, c.step_rank) + 2 * norm(c.norm, c.d_state) +
        projection(layer, c.step_rank, inner, false) + inner * (c.d_state + 2) + projection(layer, inner, x.d_model, c.bias);
    },
    "rg-lru": (c, x, layer) => projection(layer, x.d_model, 2 * c.d_inner, c.bias) + c.d_inner * (c.conv_width + 4) +
      2 * c.d_inner * c.d_inner / c.n_heads + activation(c.activation) + projection(layer, c.d_inner, x.d_model, c.bias),
    "mlstm": (c, x, layer) => {
      const keys = c.n_heads * c.d_key, values = c.n_heads * c.d_value;
      return projection(layer, x.d_model, 2 * keys + 2 * values, false) + 2 * c.n_heads * (x.d_model + 1) +
        (c.norm === "none" ? 0 : values) + projection(layer, values, x.d_model, false);
    },
    "lightning": (c, x, layer) => {
      const heads = c.n_heads * c.d_head;
      return projection(layer, x.d_model, 3 * heads, false) + activation(c.activation) + norm(c.norm, heads) +
        (c.output_gate ? projection(layer, x.d_model, heads, false) : 0) + projection(layer, heads, x.d_model, false);
    },
    "hybrid": (c, x, layer) => inner(c.attention, x, layer) + inner(c.recurrence, x, layer),
    "short-conv": (c, x, layer) => projection(layer, x.d_model, 3 * x.d_model, c.bias) + x.d_model * c.width +
      (c.bias ? x.d_model : 0) + projection(layer, x.d_model, x.d_model, c.bias),
  };

  /** An attention within another one. */
  function inner(c, x, layer) {
    const formula = ATTENTION[own("attention", c).name];
    if (!formula) throw new Unknown("attention " + c.name);
    return formula(c, x, layer);
  }

  function indexer(c, x, layer) {
    return projection(layer, c.q_rank || x.d_model, c.index_heads * c.d_index, false) +
      projection(layer, x.d_model, c.d_index, false) + 2 * c.d_index + x.d_model * c.index_heads;
  }

  function headed(c, x, layer) {
    const reuses = Names.reusesKeys(c, layer, x.sources), value = c.d_value ?? c.d_head, gates = c.output_gate ? c.n_heads : 0;
    const kv = reuses ? 0 : c.n_kv_heads ?? c.n_heads, values = c.tie_kv ? 0 : kv;
    let sum = projection(layer, x.d_model, (c.n_heads + kv) * c.d_head + (values + gates) * value, c.qkv_bias);
    sum += projection(layer, c.n_heads * value, x.d_model, c.output_bias) + (c.sinks ? c.n_heads : 0);
    if (c.head_gate) sum += projection(layer, x.d_model, c.n_heads, false);
    if (c.v_norm !== null && !reuses) sum += norm(c.v_norm, value);
    if (c.output_norm !== null) sum += norm(c.output_norm, c.n_heads * value);
    if (c.qk_norm === null) return sum;
    if (c.qk_norm_width === "head") return sum + (reuses ? 1 : 2) * norm(c.qk_norm, c.d_head);
    if (c.qk_norm_width === "full") return sum + norm(c.qk_norm, c.n_heads * c.d_head) + norm(c.qk_norm, kv * c.d_head);
    return sum + (c.n_heads + kv) * norm(c.qk_norm, c.d_head);
  }

  /** Parameters of a layer's relative position that are part of its attention, and those that layers share, with their key. */
  function relative(layer) {
    const {position} = layer, attention = layer.attention.name === "hybrid" ? layer.attention.attention : layer.attention;
    own("position", position);
    if (position.name === "shaw") {
      return {own: (position.values ? 2 : 1) * (position.max_distance + 1) * (attention.d_head ?? 0)};
    }
    if (position.name === "t5-bias") {
      const n_heads = ["single-head", "simple"].includes(attention.name) ? 1 : attention.n_heads, size = position.n_buckets * n_heads;
      return position.shared ? {own: 0, shared: size, key: JSON.stringify([position, n_heads])} : {own: size};
    }
    return {own: 0};
  }

  function feedforward(c, x, layer) {
    own("feedforward", c);
    if (c.name === "gated") {
      return projection(layer, x.d_model, 2 * c.d_hidden, c.bias) + activation(c.activation) +
        (c.hidden_norm === null ? 0 : norm(c.hidden_norm, c.d_hidden)) + projection(layer, c.d_hidden, x.d_model, c.bias);
    }
    if (c.name === "mlp") {
      return projection(layer, x.d_model, c.d_hidden, c.bias) + activation(c.activation) + projection(layer, c.d_hidden, x.d_model, c.bias);
    }
    if (c.name === "single-layer") return projection(layer, x.d_model, x.d_model, c.bias) + activation(c.activation);
    if (c.name !== "experts") throw new Unknown("feedforward " + c.name);
    const router = own("router", c.router);
    let sum = x.d_model * c.n_experts + (router.bias ? c.n_experts : 0);
    if (router.selection_bias || router.bias_rate) sum += c.n_experts;
    if (router.expert_scale) sum += c.n_experts;
    if (router.norm) sum += norm(router.norm, x.d_model);
    if (c.branch_norm !== null) sum += (c.shared === null ? 2 : 4) * norm(c.branch_norm, x.d_model);
    sum += c.n_experts * feedforward(c.expert, c.latent ? {...x, d_model: c.latent} : x, layer);
    if (c.latent) sum += 2 * projection(layer, x.d_model, c.latent, false);
    if (c.output_norm !== null) sum += norm(c.output_norm, x.d_model);
    if (c.shared !== null) sum += feedforward(c.shared, x, layer);
    return sum + (c.shared_gate ? x.d_model : 0);
  }

  const NORMS = {"pre-norm": 2, "post-norm": 2, "deep-norm": 2, "output-norm": 2, "sandwich": 4, "single-branch": 1, "laurel": 5};

  /** The gated embedding of a layer; layers with equal fields share the table of all layers. */
  function layerEmbedding(layer, x, c) {
    const key = JSON.stringify(["embedding", c.d_embedding, c.n_ids, c.projection, c.norm]), outputs = x.n_layers * c.d_embedding;
    if (!x.shared.has(key)) {
      const projected = projection(layer, x.d_model, outputs, false) + (c.norm === null ? 0 : norm(c.norm, c.d_embedding));
      x.shared.set(key, Math.min(c.n_ids ?? x.vocab_size, x.vocab_size) * outputs + (c.projection ? projected : 0));
    }
    return projection(layer, x.d_model, c.d_embedding, false) + activation(c.activation) +
      projection(layer, c.d_embedding, x.d_model, false) + (c.norm === null ? 0 : norm(c.norm, x.d_model));
  }

  /** What a block with streams has beside the block of the first one: maps of the first and last layer, too. */
  function streams(layer, x, c, index) {
    const n = c.streams, maps = (n - 1) * projection(layer, x.d_model, x.d_model, false);
    const ends = (Names.isFirst(x.first, n) ? 1 : 0) + (index === x.n_layers - 1 ? 1 : 0);
    const embedding = c.d_embedding === null ? 0 : layerEmbedding(layer, x, c) + (c.correct_scale ? x.d_model : 0);
    return norm(layer.norm, x.d_model) + projection(layer, x.d_model, n, false) + n ** 3 + n ** 2 + ends * maps + embedding;
  }

  /** Numbers of a layer: its attention, its feed-forward, one of its norms, and all of it. */
  function block(layer, x, c, index) {
    own("block", c);
    own("attention", layer.attention);
    if (c.name === "altup" || c.name === "per-layer-embedding") {
      const more = c.name === "altup" ? streams(layer, x, c, index) : layerEmbedding(layer, x, c) + (c.output_scale ? 1 : 0);
      const inner = block(layer, x, c.block, index);
      return {...inner, whole: inner.whole + more};
    }
    const unnormed = ["attention_input_norm", "feedforward_input_norm"].filter(each => c[each] === false).length;
    const norms = c.name === "parallel" ? c.norms : NORMS[c.name] - unnormed, formula = ATTENTION[layer.attention.name];
    if (!norms || !formula) throw new Unknown(`block ${c.name} of attention ${layer.attention.name}`);
    const position = relative(layer);
    if (position.shared) x.shared.set(position.key, position.shared);
    const only = c.name === "single-branch" ? c.branch : null;
    const attention = only === "feedforward" ? 0 : formula(layer.attention, x, layer) + position.own;
    const fed = only === "attention" ? 0 : feedforward(layer.feedforward, x, layer);
    const each = norm(layer.norm, x.d_model);
    let whole = attention + fed + norms * each + (c.output_scale ? 1 : 0);
    if (c.name === "laurel") whole += projection(layer, x.d_model, c.rank, false) + projection(layer, c.rank, x.d_model, false);
    return {attention, feedforward: fed, norm: each, whole};
  }

  function head(c, x, model, parts) {
    own("head", c);
    const vocabulary = x.vocab_size;
    if (c.name === "linear") {
      let sum = c.bias ? vocabulary : 0;
      if (c.linear !== null) return sum + projection({linear: c.linear}, x.d_model, vocabulary, false);
      if (!c.tied) return sum + vocabulary * x.d_model;
      if (model.embedding.d_embedding !== x.d_model) sum += x.d_model * model.embedding.d_embedding;
      return sum;
    }
    if (c.name === "distillation") return head(c.head, x, model, parts);
    if (c.name !== "multi-token") throw new Unknown("head " + c.name);
    let sum = head(c.head, x, model, parts);
    for (let index = 0; index < c.depth; index += 1) {
      sum += 3 * norm(parts.norm, x.d_model) + projection(parts, 2 * x.d_model, x.d_model, false) + block(parts, x, c.block, x.n_layers).whole;
    }
    return sum;
  }

  /** The numbers of parameters of a resolved spec's parts; null if the vocabulary or a formula is not known. */
  function counts(spec) {
    const model = spec.model, size = model.vocab_size || spec.tokenizerSize;
    if (!size) return null;
    // What layers share: parameters by key, layers that have keys and values, and the first layer of each number of streams.
    const shared = new Map(), x = {d_model: model.d_model, vocab_size: size, n_layers: model.n_layers, shared, sources: new Set(), first: new Set()};
    try {
      const embedding = own("embedding", model.embedding), width = embedding.d_embedding;
      const parts = Object.fromEntries(Resolve.PARTS.map(part => [part, model[part]]));
      let table = size * width + (width === x.d_model ? 0 : width * x.d_model);
      if (embedding.norm !== null) table += norm(embedding.norm, x.d_model);
      own("position", model.position);
      const position = model.position.name === "learned" ? (model.position.size + model.position.offset) * x.d_model : 0;
      const layers = spec.layers.map((layer, index) => block(layer, x, layer.block, index));
      const final_norm = model.final_norm === null ? 0 : norm(model.final_norm, x.d_model);
      const top = head(model.head, x, model, parts);
      const sharedSize = [...shared.values()].reduce((sum, each) => sum + each, 0);
      const total = table + position + layers.reduce((sum, layer) => sum + layer.whole, 0) + final_norm + top + sharedSize;
      return {embedding: table, position, layers, final_norm, head: top, shared: sharedSize, total};
    } catch (error) {
      if (error instanceof Unknown) return null;
      throw error;
    }
  }

  return {configure, counts};
})();
