"use strict";
// Names in the model that a spec builds: parameters, projections that can have adapters, stacked projections of experts, and terms
// of the training loss. Patterns of freezing, groups and adapters refer to them. Tests compare them with built models.

const Names = (() => {
  let kinds = {};
  class Unknown extends Error {}

  function configure(data) { kinds = data.kinds; }

  function own(kind, component) {
    if (!kinds[kind][component.name].builtin) throw new Unknown(`${kind} ${component.name}`);
    return component;
  }

  const compiled = new Map();

  /** A glob pattern of Python's fnmatch as a regular expression. */
  function expression(pattern) {
    if (compiled.has(pattern)) return compiled.get(pattern);
    let text = "";
    for (let at = 0; at < pattern.length; at += 1) {
      const end = pattern[at] === "[" ? pattern.indexOf("]", pattern[at + 1] === "!" ? at + 3 : at + 2) : -1;
      if (pattern[at] === "*") text += ".*";
      else if (pattern[at] === "?") text += ".";
      else if (end > 0) {
        const inside = pattern.slice(at + 1, end).replaceAll(/[\\\]^]/g, "\\$&");
        text += `[${inside.startsWith("!") ? "^" + inside.slice(1) : inside}]`;
        at = end;
      } else text += pattern[at].replaceAll(/[.+^${}()|[\]\\]/g, "\\$&");
    }
    let result = /[^\s\S]/;
    try { result = new RegExp(`^(?:${text})$`, "s"); } catch { /* a reversed range matches nothing */ }
    compiled.set(pattern, result);
    return result;
  }

  /** Whether a pattern matches a dotted name, or that of a module that contains it. */
  function matches(name, pattern) { return expression(pattern).test(name) || expression(pattern + ".*").test(name); }

  /** Collects the names of a model. */
  class Walk {
    constructor(spec) {
      this.parameters = []; this.projections = []; this.stacked = []; this.losses = new Map();
      this.shared = new Map(); this.sources = new Set(); this.first = new Set(); this.n_layers = spec.model.n_layers;
    }

    /** The name of a module that layers share, at its first use; null later. */
    share(base, key) {
      const keys = this.shared.get(base) || [];
      if (keys.includes(key)) return null;
      this.shared.set(base, [...keys, key]);
      return `shared.${base}${keys.length ? "-" + (keys.length + 1) : ""}`;
    }

    matrix(name, bias) { this.parameters.push(name + ".weight", ...(bias ? [name + ".bias"] : [])); }

    linear(name, linear, bias) {
      this.matrix(name, bias);
      if (!linear || own("linear", linear).name === "dense") return;
      if (linear.name !== "low-rank") throw new Unknown("linear " + linear.name);
      this.projections.push(name);
      if (linear.projections.some(pattern => matches(name, pattern))) this.parameters.push(name + ".lora_a", name + ".lora_b");
    }

    stack(name, bias) { this.stacked.push(name); this.matrix(name, bias); }

    norm(name, component) {
      if (component === null || own("norm", component).name === "none") return;
      if (!["rms", "layer"].includes(component.name)) throw new Unknown("norm " + component.name);
      if (component.scale) this.parameters.push(name + ".weight");
      if (component.name === "layer" && component.shift) this.parameters.push(name + ".bias");
    }

    activation(name, component) {
      if (own("activation", component).name === "xielu") for (const each of ["positive", "negative", "beta", "eps"]) this.parameters.push(`${name}.${each}`);
    }

    loss(name, limit = Infinity) { this.losses.set(name, limit); }
  }

  /** Whether a layer attends to the keys and values of an earlier one; otherwise it is added to those that have some. */
  function reusesKeys(c, layer, sources) {
    const form = JSON.stringify([c.n_kv_heads ?? c.n_heads, c.d_head, c.d_value ?? c.d_head, c.window, c.chunk, layer.position]);
    if (c.reuse_kv && sources.has(form)) return true;
    sources.add(form);
    return false;
  }

  /** Whether a layer is the first one with a number of streams. */
  function isFirst(first, streams) {
    const known = first.has(streams);
    first.add(streams);
    return !known;
  }

  function headed(walk, name, c, layer) {
    const reuses = reusesKeys(c, layer, walk.sources);
    if (c.sinks) walk.parameters.push(name + ".sinks");
    walk.norm(name + ".q_norm", c.qk_norm);
    if (!reuses) walk.norm(name + ".k_norm", c.qk_norm);
    if (!reuses) walk.norm(name + ".v_norm", c.v_norm);
    walk.linear(`${name}.${reuses ? "query" : c.tie_kv ? "qk" : "qkv"}`, layer.linear, c.qkv_bias);
    if (c.head_gate) walk.linear(name + ".head_gate", layer.linear, false);
    walk.norm(name + ".output_norm", c.output_norm);
    walk.linear(name + ".output", layer.linear, c.output_bias);
  }

  function latent(walk, name, c, layer) {
    if (c.q_rank) {
      walk.linear(name + ".q_down", layer.linear, c.bias);
      walk.norm(name + ".q_latent_norm", c.norm);
    }
    walk.linear(name + ".q_up", layer.linear, false);
    walk.linear(name + ".kv_down", layer.linear, c.bias);
    walk.norm(name + ".kv_latent_norm", c.norm);
    walk.norm(name + ".rotary_norm", c.rotary_norm);
    walk.matrix(name + ".kv_up", false);
    if (c.head_gate) walk.linear(name + ".head_gate", layer.linear, false);
    if (c.output_gate) walk.linear(name + ".gate", layer.linear, false);
    if (c.sinks) walk.parameters.push(name + ".sinks");
    walk.linear(name + ".output", layer.linear, c.bias);
  }

  const ATTENTION = {
    "multi-head": headed,
    "grouped-query": headed,
    "simple": () => {},
    "single-head": (walk, name, c, layer) => {
      for (const each of ["W_query", "W_key", "W_value"]) walk.linear(`${name}.${each}`, layer.linear, c.qkv_bias);
      if (c.output) walk.linear(name + ".W_output", layer.linear, false);
    },
    "latent": latent,
    "block-sparse": (walk, name, c, layer) => {
      headed(walk, name, c, layer);
      walk.loss("indexer");
      for (const each of ["query", "key"]) walk.linear(`${name}.indexer.${each}`, layer.linear, false);
      for (const each of ["query_norm", "key_norm"]) walk.norm(`${name}.indexer.${each}`, c.index_norm);
    },
    "differential": (walk, name, c, layer) => {
      walk.linear(name + ".qkv", layer.linear, c.qkv_bias);
      walk.norm(name + ".norm", c.norm);
      walk.linear(name + ".output", layer.linear, c.output_bias);
      for (const each of ["q1", "k1", "q2", "k2"]) walk.parameters.push(`${name}.lambda_${each}`);
    },
    "sparse-latent": (walk, name, c, layer) => {
      latent(walk, name, c, layer);
      if (c.indexer !== "own") return;
      walk.loss("indexer");
      for (const each of ["query", "key"]) walk.linear(`${name}.indexer.${each}`, layer.linear, false);
      walk.matrix(name + ".indexer.key_norm", true);
      walk.matrix(name + ".indexer.weights", false);
    },
    "gated-delta": (walk, name, c, layer) => {
      walk.linear(name + ".qkvz", layer.linear, false);
      walk.matrix(name + ".rates", false);
      walk.matrix(name + ".conv", false);
      walk.parameters.push(name + ".decay_log", name + ".decay_bias");
      walk.norm(name + ".norm", c.norm);
      walk.linear(name + ".output", layer.linear, false);
    },
    "kimi-delta": (walk, name, c, layer) => {
      walk.linear(name + ".qkv", layer.linear, false);
      for (const each of ["decay", "gate"]) {
        if (c[each + "_rank"] !== null) walk.linear(`${name}.${each}_down`, layer.linear, false);
        walk.linear(`${name}.${each}`, layer.linear, false);
      }
      walk.matrix(name + ".strength", false);
      walk.matrix(name + ".conv", false);
      walk.parameters.push(name + ".decay_log", name + ".decay_bias");
      walk.norm(name + ".norm", c.norm);
      walk.linear(name + ".output", layer.linear, false);
    },
    "mamba2": (walk, name, c, layer) => {
      walk.linear(name + ".input", layer.linear, c.bias);
      walk.matrix(name + ".conv", c.conv_bias);
      walk.activation(name + ".activation", c.activation);
      walk.parameters.push(name + ".decay_log", name + ".step_bias", name + ".skip", ...(c.norm === "none" ? [] : [name + ".norm_weight"]));
      walk.linear(name + ".output", layer.linear, c.bias);
    },
    "mamba1": (walk, name, c, layer) => {
      walk.linear(name + ".input", layer.linear, c.bias);
      walk.matrix(name + ".conv", c.conv_bias);
      walk.activation(name + ".activation", c.activation);
      walk.linear(name + ".select", layer.linear, false);
      for (const each of ["step", "key", "query"]) walk.norm(`${name}.${each}_norm`, c.norm);
      walk.linear(name + ".step", layer.linear, false);
      walk.parameters.push(name + ".step_bias", name + ".decay_log", name + ".skip");
      walk.linear(name + ".output", layer.linear, c.bias);
    },
    "rg-lru": (walk, name, c, layer) => {
      walk.linear(name + ".input", layer.linear, c.bias);
      walk.matrix(name + ".conv", true);
      for (const each of ["decay_gate", "input_gate"]) walk.parameters.push(`${name}.${each}_weight`, `${name}.${each}_bias`);
      walk.parameters.push(name + ".decay");
      walk.activation(name + ".activation", c.activation);
      walk.linear(name + ".output", layer.linear, c.bias);
    },
    "mlstm": (walk, name, c, layer) => {
      walk.linear(name + ".input", layer.linear, false);
      walk.matrix(name + ".gates", true);
      if (c.norm !== "none") walk.parameters.push(name + ".norm_weight");
      walk.linear(name + ".output", layer.linear, false);
    },
    "lightning": (walk, name, c, layer) => {
      walk.linear(name + ".qkv", layer.linear, false);
      walk.activation(name + ".activation", c.activation);
      walk.norm(name + ".norm", c.norm);
      if (c.output_gate) walk.linear(name + ".gate", layer.linear, false);
      walk.linear(name + ".output", layer.linear, false);
    },
    "hybrid": (walk, name, c, layer) => {
      for (const each of ["attention", "recurrence"]) {
        const inner = ATTENTION[own("attention", c[each]).name];
        if (!inner) throw new Unknown("attention " + c[each].name);
        inner(walk, `${name}.${each}`, c[each], layer);
      }
    },
    "short-conv": (walk, name, c, layer) => {
      walk.linear(name + ".input", layer.linear, c.bias);
      walk.matrix(name + ".conv", c.bias);
      walk.linear(name + ".output", layer.linear, c.bias);
    },
  };

  /** The tables of a layer's relative position: part of its attention, or shared by layers. */
  function relative(walk, name, layer) {
    const {position} = layer, hybrid = layer.attention.name === "hybrid", attention = hybrid ? layer.attention.attention : layer.attention;
    if (hybrid) name += ".attention";
    own("position", position);
    if (position.name === "shaw") {
      walk.parameters.push(name + ".position.keys.weight", ...(position.values ? [name + ".position.values.weight"] : []));
    } else if (position.name === "t5-bias" && !position.shared) walk.parameters.push(name + ".position.table.weight");
    else if (position.name === "t5-bias") {
      const key = JSON.stringify([position, ["single-head", "simple"].includes(attention.name) ? 1 : attention.n_heads]);
      const shared = walk.share("t5-bias", key);
      if (shared !== null) walk.parameters.push(shared + ".table.weight");
    }
  }

  const MATRICES = {gated: ["gate_up", "down"], mlp: ["up", "down"], "single-layer": ["projection"]};

  function feedforward(walk, name, c, layer) {
    own("feedforward", c);
    if (MATRICES[c.name]) {
      for (const each of MATRICES[c.name]) walk.linear(`${name}.${each}`, layer.linear, c.bias);
      walk.activation(name + ".activation", c.activation);
      walk.norm(name + ".hidden_norm", c.hidden_norm ?? null);
      return;
    }
    if (c.name !== "experts") throw new Unknown("feedforward " + c.name);
    walk.matrix(name + ".router.scores", own("router", c.router).bias);
    walk.norm(name + ".router.norm", c.router.norm ?? null);
    if (c.router.expert_scale) walk.parameters.push(name + ".router.expert_scale");
    if (c.router.selection_bias || c.router.bias_rate) walk.parameters.push(name + ".router.selection_bias");
    for (const each of ["load_balance", "router_z"]) walk.loss(each);
    if (c.latent) for (const each of ["latent_down", "latent_up"]) walk.linear(`${name}.${each}`, layer.linear, false);
    // Experts with a learned activation or a norm have one each, so they are not stacked.
    const separate = (c.expert.hidden_norm ?? null) !== null || c.expert.name === "single-layer";
    if (MATRICES[c.expert.name] && !separate && own("activation", c.expert.activation).name !== "xielu") {
      for (const each of MATRICES[c.expert.name]) walk.stack(`${name}.experts.${each}`, c.expert.bias);
    } else for (let index = 0; index < c.n_experts; index += 1) feedforward(walk, `${name}.experts.each.${index}`, c.expert, layer);
    if (c.shared !== null) feedforward(walk, name + ".shared", c.shared, layer);
    if (c.shared_gate) walk.matrix(name + ".shared_gate", false);
    walk.norm(name + ".output_norm", c.output_norm);
    for (const each of c.shared === null ? ["routed"] : ["routed", "shared"]) {
      for (const end of ["norm", "output_norm"]) walk.norm(`${name}.${each}_${end}`, c.branch_norm);
    }
  }

  const BOTH = ["attention_norm", "feedforward_norm"], AFTER = ["attention_output_norm", "feedforward_output_norm"];
  const NORMS = {"pre-norm": BOTH, "post-norm": BOTH, "deep-norm": BOTH, "output-norm": AFTER, "sandwich": [...BOTH, ...AFTER],
    "laurel": [...BOTH, ...AFTER, "laurel_norm"]};

  /** The gated embedding of a layer; layers with equal fields share the table of all layers. */
  function layerEmbedding(walk, name, layer, c) {
    const shared = walk.share("per-layer-embedding", JSON.stringify([c.d_embedding, c.n_ids, c.projection, c.norm]));
    if (shared !== null) {
      walk.matrix(shared + ".table", false);
      if (c.projection) walk.linear(shared + ".projection", layer.linear, false);
      if (c.projection) walk.norm(shared + ".norm", c.norm);
    }
    walk.linear(name + ".gate", layer.linear, false);
    walk.activation(name + ".activation", c.activation);
    walk.linear(name + ".output", layer.linear, false);
    walk.norm(name + ".norm", c.norm);
  }

  /** What a block with streams has beside the block of the first one: maps of the first and last layer, too. */
  function streams(walk, name, layer, c, index) {
    walk.norm(name + ".router_norm", layer.norm);
    walk.linear(name + ".router", layer.linear, false);
    for (const each of ["prediction", "correction"]) walk.matrix(`${name}.${each}`, false);
    const ends = [...(isFirst(walk.first, c.streams) ? ["expand"] : []), ...(index === walk.n_layers - 1 ? ["merge"] : [])];
    for (const each of ends) for (let other = 0; other < c.streams - 1; other += 1) walk.linear(`${name}.${each}.${other}`, layer.linear, false);
    if (c.d_embedding === null) return;
    layerEmbedding(walk, name + ".embedding", layer, c);
    if (c.correct_scale) walk.parameters.push(name + ".correct_scale");
  }

  function block(walk, name, layer, spec, index) {
    own("block", spec);
    own("attention", layer.attention);
    if (spec.output_scale) walk.parameters.push(name + ".output_scale");
    if (spec.name === "altup" || spec.name === "per-layer-embedding") {
      if (spec.name === "altup") streams(walk, name, layer, spec, index);
      else layerEmbedding(walk, name + ".embedding", layer, spec);
      block(walk, name + ".block", layer, spec.block, index);
      return;
    }
    const only = spec.name === "single-branch" ? spec.branch : null;
    const norms = spec.name === "parallel" ? BOTH.slice(0, spec.norms) : only ? [only + "_norm"] : NORMS[spec.name];
    if (!norms || !ATTENTION[layer.attention.name]) throw new Unknown(`block ${spec.name} of attention ${layer.attention.name}`);
    for (const each of norms) {
      if (spec[each.replace("_norm", "_input_norm")] !== false) walk.norm(`${name}.${each}`, layer.norm);
    }
    if (spec.name === "laurel") for (const each of ["left", "right"]) walk.linear(`${name}.${each}`, layer.linear, false);
    if (only !== "feedforward") {
      ATTENTION[layer.attention.name](walk, name + ".attention", layer.attention, layer);
      relative(walk, name + ".attention", layer);
    }
    if (only !== "attention") feedforward(walk, name + ".feedforward", layer.feedforward, layer);
  }

  function head(walk, name, c, model, parts) {
    own("head", c);
    if (c.name === "linear") {
      walk.loss("z_loss");
      walk.loss("label_smoothing", 1);
      if (c.linear !== null) walk.linear(name + ".projection", c.linear, false);
      else if (!c.tied) walk.parameters.push(name + ".weight");
      else if (model.embedding.d_embedding !== model.d_model) walk.matrix(name + ".project", false);
      if (c.bias) walk.parameters.push(name + ".bias");
      return;
    }
    head(walk, name + ".head", c.head, model, parts);
    if (c.name === "distillation") { walk.loss("distillation"); return; }
    if (c.name !== "multi-token") throw new Unknown("head " + c.name);
    walk.loss("multi_token");
    for (let index = 0; index < c.depth; index += 1) {
      const each = `${name}.modules_after.${index}`;
      for (const norm of ["hidden_norm", "embedding_norm", "output_norm"]) walk.norm(`${each}.${norm}`, parts.norm);
      walk.linear(each + ".join", parts.linear, false);
      block(walk, each + ".block", parts, c.block, walk.n_layers);
    }
  }

  /** The names of a resolved spec's model: {parameters, projections, stacked, losses}; null if a plugin's component has its own. */
  function names(spec) {
    const model = spec.model, walk = new Walk(spec), parts = Object.fromEntries(Resolve.PARTS.map(part => [part, model[part]]));
    try {
      const embedding = own("embedding", model.embedding);
      walk.matrix("embedding.table", false);
      if (embedding.d_embedding !== model.d_model) walk.matrix("embedding.project", false);
      walk.norm("embedding.norm", embedding.norm);
      if (own("position", model.position).name === "learned") walk.parameters.push("embedding.position.table.weight");
      for (const [index, layer] of spec.layers.entries()) block(walk, `blocks.${index}`, layer, layer.block, index);
      walk.norm("final_norm", model.final_norm);
      head(walk, "head", model.head, model, parts);
      return {parameters: walk.parameters, projections: walk.projections, stacked: walk.stacked, losses: walk.losses};
    } catch (error) {
      if (error instanceof Unknown) return null;
      throw error;
    }
  }

  return {configure, names, matches, reusesKeys, isFirst};
})();
