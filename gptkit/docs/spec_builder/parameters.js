"use strict";
// The parameters of the model that a spec builds: their names and numbers, projections that can have adapters, stacked projections
// of experts, and terms of the training loss. Patterns of freezing, groups and adapters refer to the names. A component of a
// plugin has no formula here; nothing is known then. Tests compare names and numbers with those of built models.

const Parameters = (() => {
  const {own, normSize, Unknown} = Names;
  const MATRICES = {gated: ["gate_up", "down"], mlp: ["up", "down"], "single-layer": ["projection"]};

  function feedforward(walk, name, c, layer, width = walk.d_model) {
    own("feedforward", c);
    if (MATRICES[c.name]) {
      for (const [each, inputs, outputs] of sizesOf(c, width)) walk.linear(`${name}.${each}`, layer.linear, inputs, outputs, c.bias);
      walk.activation(name + ".activation", c.activation);
      walk.norm(name + ".hidden_norm", c.hidden_norm ?? null, c.d_hidden);
      return;
    }
    if (c.name !== "experts") throw new Unknown("feedforward " + c.name);
    const n = c.n_experts, inner = c.latent || width;
    walk.router(name + ".router", c.router, width, n + c.identity_experts + c.zero_experts);
    if (c.latent) {
      walk.linear(name + ".latent_down", layer.linear, width, c.latent, false);
      walk.linear(name + ".latent_up", layer.linear, c.latent, width, false);
    }
    // Experts with a learned activation or a norm have one each, so they are not stacked.
    const separate = (c.expert.hidden_norm ?? null) !== null || c.expert.name === "single-layer";
    if (MATRICES[c.expert.name] && !separate && own("activation", c.expert.activation).name !== "xielu") {
      own("feedforward", c.expert);
      for (const [each, inputs, outputs] of sizesOf(c.expert, inner)) walk.stack(`${name}.experts.${each}`, n, inputs, outputs, c.expert.bias);
    } else for (let index = 0; index < n; index += 1) feedforward(walk, `${name}.experts.each.${index}`, c.expert, layer, inner);
    if (c.shared !== null) feedforward(walk, name + ".shared", c.shared, layer, width);
    if (c.shared_gate) walk.matrix(name + ".shared_gate", width);
    if (c.output_bias) walk.add(name + ".output_bias", width);
    walk.norm(name + ".output_norm", c.output_norm, width);
    for (const each of c.shared === null ? ["routed"] : ["routed", "shared"]) {
      for (const end of ["norm", "output_norm"]) walk.norm(`${name}.${each}_${end}`, c.branch_norm, width);
    }
  }

  /** The projections of a feed-forward: name, inputs and outputs. */
  function sizesOf(c, width) {
    const [up, down] = MATRICES[c.name];
    if (c.name === "single-layer") return [[up, width, width]];
    return [[up, width, (c.name === "gated" ? 2 : 1) * c.d_hidden], [down, c.d_hidden, width]];
  }

  const BOTH = ["attention_norm", "feedforward_norm"], AFTER = ["attention_output_norm", "feedforward_output_norm"];
  const NORMS = {"pre-norm": BOTH, "post-norm": BOTH, "deep-norm": BOTH, "output-norm": AFTER, "sandwich": [...BOTH, ...AFTER],
    "laurel": [...BOTH, ...AFTER, "laurel_norm"], "manifold-hyper-connections": BOTH,
    "attention-residuals": BOTH, "channel-mixing": BOTH, "gated-hyper-connections": []};

  /** The gated embedding of a layer; layers with equal fields share the table of all layers. */
  function layerEmbedding(walk, name, layer, c) {
    const shared = walk.share("per-layer-embedding", JSON.stringify([c.d_embedding, c.n_ids, c.projection, c.norm]));
    const outputs = walk.n_layers * c.d_embedding;
    if (shared !== null) {
      walk.matrix(shared + ".table", Math.min(c.n_ids ?? walk.vocab_size, walk.vocab_size) * outputs);
      if (c.projection) walk.linear(shared + ".projection", layer.linear, walk.d_model, outputs, false);
      if (c.projection) walk.norm(shared + ".norm", c.norm, c.d_embedding);
    }
    walk.linear(name + ".gate", layer.linear, walk.d_model, c.d_embedding, false);
    walk.activation(name + ".activation", c.activation);
    walk.linear(name + ".output", layer.linear, c.d_embedding, walk.d_model, false);
    walk.norm(name + ".norm", c.norm, walk.d_model);
  }

  /** What a block with streams has beside the block of the first one: maps of the first and last layer, too. */
  function streams(walk, name, layer, c, index) {
    const n = c.streams, ends = [];
    walk.norm(name + ".router_norm", layer.norm, walk.d_model);
    walk.linear(name + ".router", layer.linear, walk.d_model, n, false);
    walk.matrix(name + ".prediction", n ** 3);
    walk.matrix(name + ".correction", n ** 2);
    if (!walk.first.has(n)) ends.push("expand");
    walk.first.add(n);
    if (index === walk.n_layers - 1) ends.push("merge");
    for (const each of ends) for (let other = 0; other < n - 1; other += 1) walk.linear(`${name}.${each}.${other}`, layer.linear, walk.d_model, walk.d_model, false);
    if (c.d_embedding === null) return;
    layerEmbedding(walk, name + ".embedding", layer, c);
    if (c.correct_scale) walk.add(name + ".correct_scale", walk.d_model);
  }

  /** The weights by which branches, and the output of the last layer, use the streams of hyper-connections. */
  function connections(walk, name, c, index) {
    const n = c.streams, split = c.mixing === "none" ? [n, n] : [n, n, n * n];
    const uses = [["attention_mixing", split], ["feedforward_mixing", split], ...(index >= walk.n_layers - 1 ? [["collapse", [n]]] : [])];
    for (const [each, parts] of uses) {
      const rows = parts.reduce((sum, part) => sum + part, 0);
      walk.matrix(`${name}.${each}`, rows * n * walk.d_model, rows);
      walk.add(`${name}.${each}.scale`, parts.length);
    }
  }

  /** The queries by which a block attends to earlier outputs, and the norms of inputs of keys and values. */
  function sources(walk, name, layer, c, index) {
    if (c.kv_inputs) for (const each of ["key", "value"]) walk.norm(`${name}.${each}_norm`, layer.norm, walk.d_model);
    if (walk.share("attention-residuals", String(c.group)) === null) walk.add(name + ".attention_query", (c.kv_inputs ? 3 : 1) * walk.d_model);
    walk.add(name + ".feedforward_query", walk.d_model);
    if (index >= walk.n_layers - 1) walk.add(name + ".output_query", walk.d_model);
  }

  /** An attention, and the adapters of a branch of attention and feed-forward that layers with equal fields share. */
  function withBranch(walk, name, layer, c) {
    const inner = {...layer, attention: c.attention, position: c.position, feedforward: c.feedforward, d_input: (c.embedding ? 2 : 1) * walk.d_model};
    const key = JSON.stringify([c.group, c.embedding, c.attention, c.position, c.feedforward, c.attention_rank !== null, c.feedforward_rank !== null, layer.norm, layer.linear]);
    const shared = walk.share("shared-branch", key);
    if (shared !== null) {
      const {sources} = walk;
      walk.sources = new Set();  // no layer reads the branch's keys
      walk.norm(shared + ".attention_norm", layer.norm, inner.d_input);
      Attentions.ofLayer(walk, shared + ".attention", inner);
      walk.sources = sources;
      walk.norm(shared + ".feedforward_norm", layer.norm, walk.d_model);
      feedforward(walk, shared + ".feedforward", c.feedforward, inner);
    }
    if (c.attention_rank !== null) adapter(walk, name + ".attention_adapter", layer, c.attention_rank, inner.d_input, Attentions.widths(c.attention));
    adapter(walk, name + ".feedforward_adapter", layer, c.feedforward_rank, walk.d_model, [(c.feedforward.name === "gated" ? 2 : 1) * c.feedforward.d_hidden]);
    walk.linear(name + ".output", layer.linear, walk.d_model, walk.d_model, false);
    walk.norm(name + ".attention_norm", layer.norm, walk.d_model);
    return {attention: walk.measured(() => Attentions.ofLayer(walk, name + ".attention", layer)), feedforward: 0};
  }

  function adapter(walk, name, layer, rank, inputs, widths) {
    if (rank === null) return;
    walk.linear(name + ".down", layer.linear, inputs, rank * widths.length, false);
    widths.forEach((width, index) => walk.linear(`${name}.up.${index}`, layer.linear, rank, width, false));
  }

  /** Add the parameters of a block; return the numbers of its attentions and of its feed-forwards. */
  function block(walk, name, layer, spec, index) {
    own("block", spec);
    if (spec.output_scale) walk.add(name + ".output_scale", 1);
    if (spec.name === "hierarchical") return stacks(walk, name, layer, spec, index);
    if (spec.name === "shortcut-experts") return pair(walk, name, layer, spec);
    if (spec.name === "shared-branch") return withBranch(walk, name, layer, spec);
    if (spec.name === "engram") {
      ngrams(walk, name + ".engram", layer, spec);
      return block(walk, name + ".block", layer, spec.block, index);
    }
    if (spec.name === "altup" || spec.name === "per-layer-embedding") {
      if (spec.name === "altup") streams(walk, name, layer, spec, index);
      else layerEmbedding(walk, name + ".embedding", layer, spec);
      return block(walk, name + ".block", layer, spec.block, index);
    }
    const only = spec.name === "single-branch" ? spec.branch : null;
    const norms = spec.name === "parallel" ? BOTH.slice(0, spec.norms) : only ? [only + "_norm"] : NORMS[spec.name];
    if (!norms) throw new Unknown("block " + spec.name);
    for (const each of norms) {
      if (spec[each.replace("_norm", "_input_norm")] !== false) walk.norm(`${name}.${each}`, spec[each] ?? layer.norm, walk.d_model);
    }
    for (const [place, norm] of [["output", spec.output_norm], ["stream", spec.stream_norm]]) {
      if (spec.name === "pre-norm") for (const each of ["attention", "feedforward"]) walk.norm(`${name}.${each}_${place}_norm`, norm, walk.d_model);
    }
    if (spec.output_conv) for (const each of ["attention", "feedforward"]) walk.matrix(`${name}.${each}_conv`, walk.d_model * spec.output_conv);
    if (spec.name === "laurel") {
      walk.linear(name + ".left", layer.linear, walk.d_model, spec.rank, false);
      walk.linear(name + ".right", layer.linear, spec.rank, walk.d_model, false);
    }
    if (spec.name === "channel-mixing") {
      walk.add(name + ".mix", 2 * walk.d_model);
      walk.linear(name + ".receptance", layer.linear, walk.d_model, walk.d_model, false);
    }
    if (spec.name === "attention-residuals") sources(walk, name, layer, spec, index);
    if (spec.name === "gated-hyper-connections") gates(walk, name, layer, spec, index);
    if (spec.name === "manifold-hyper-connections") connections(walk, name, spec, index);
    return {
      attention: only === "feedforward" ? 0 : walk.measured(() => Attentions.ofLayer(walk, name + ".attention", {...layer, kv_inputs: spec.kv_inputs})),
      feedforward: only === "attention" ? 0 : walk.measured(() => feedforward(walk, name + ".feedforward", layer.feedforward, layer)),
    };
  }

  /** The first primes from a number on. */
  function primes(least, count) {
    const result = [];
    for (let value = Math.max(2, least); result.length < count; value += 1) {
      let divisor = 2;
      while (divisor * divisor <= value && value % divisor) divisor += 1;
      if (divisor * divisor > value) result.push(value);
    }
    return result;
  }

  /** Embeddings of n-grams, in tables whose sizes are primes of their own over all layers. */
  function ngrams(walk, name, layer, c) {
    const tables = (c.max_ngram - 1) * c.heads, width = (c.block.streams || 1) * walk.d_model, skipped = walk.tables || 0;
    const rows = primes(c.table_rows, skipped + tables).slice(skipped).reduce((sum, size) => sum + size, 0);
    walk.tables = skipped + tables;
    walk.add(name + ".tables.table.weight", Math.ceil(rows / c.row_multiple) * c.row_multiple * (c.d_embedding / tables));
    walk.linear(name + ".key", layer.linear, c.d_embedding, width, false);
    walk.linear(name + ".value", layer.linear, c.d_embedding, walk.d_model, false);
    for (const each of ["key_norm", "query_norm", "value_norm"]) walk.norm(`${name}.${each}`, layer.norm, width);
    walk.matrix(name + ".conv", width * c.conv_width);
  }

  /** Norms, gates and weights of residual streams, which the last layer has once more for its output. */
  function gates(walk, name, layer, spec, index) {
    const width = spec.streams * walk.d_model, last = index >= walk.n_layers - 1;
    for (const each of ["attention_gates", "feedforward_gates", ...(last ? ["collapse"] : [])]) {
      walk.norm(`${name}.${each}.norm`, layer.norm, width);
      walk.linear(`${name}.${each}.down`, layer.linear, width, spec.rank, false);
      walk.linear(`${name}.${each}.up`, layer.linear, spec.rank, width, false);
      if (each !== "collapse") walk.matrix(`${name}.${each}.write`, width * spec.streams);
    }
  }

  /** Two stacks of blocks that a layer applies in cycles. */
  function stacks(walk, name, layer, spec, index) {
    const result = {attention: 0, feedforward: 0};
    for (const stack of ["low", "high"]) {
      for (let at = 0; at < spec.blocks; at += 1) {
        const inner = block(walk, `${name}.${stack}.${at}`, layer, spec.block, index);
        for (const part of Object.keys(result)) result[part] += inner[part];
      }
      walk.norm(`${name}.${stack}_norm`, layer.norm, walk.d_model);
    }
    walk.add(name + ".start", walk.d_model);
    return result;
  }

  /** Two attentions, each with a feed-forward, and experts beside them. */
  function pair(walk, name, layer, spec) {
    const result = {attention: 0, feedforward: 0};
    for (const at of [0, 1]) {
      for (const each of BOTH) walk.norm(`${name}.${each}.${at}`, layer.norm, walk.d_model);
      result.attention += walk.measured(() => Attentions.ofLayer(walk, `${name}.attention.${at}`, layer));
      result.feedforward += walk.measured(() => feedforward(walk, `${name}.feedforward.${at}`, layer.feedforward, layer));
    }
    result.feedforward += walk.measured(() => feedforward(walk, name + ".experts", spec.experts, layer));
    return result;
  }

  function head(walk, name, c, model, parts) {
    own("head", c);
    if (c.name === "linear") {
      const {d_embedding} = model.embedding;
      walk.loss("z_loss");
      walk.loss("label_smoothing", 1);
      if (c.linear !== null) walk.linear(name + ".projection", c.linear, walk.d_model, walk.vocab_size, false);
      else if (!c.tied) walk.add(name + ".weight", walk.vocab_size * walk.d_model);
      else if (d_embedding !== walk.d_model) walk.matrix(name + ".project", walk.d_model * d_embedding);
      if (c.bias) walk.add(name + ".bias", walk.vocab_size);
      return;
    }
    head(walk, name + ".head", c.head, model, parts);
    if (c.name === "distillation") { walk.loss("distillation"); return; }
    if (c.name !== "multi-token") throw new Unknown("head " + c.name);
    walk.loss("multi_token");
    for (let index = 0; index < c.depth; index += 1) {
      const each = `${name}.modules_after.${index}`;
      for (const norm of ["hidden_norm", "embedding_norm", "output_norm"]) walk.norm(`${each}.${norm}`, parts.norm, walk.d_model);
      walk.linear(each + ".join", parts.linear, 2 * walk.d_model, walk.d_model, false);
      block(walk, each + ".block", parts, c.block, walk.n_layers);
    }
  }

  /** The parameters of a resolved spec's model with their numbers by part; null if a plugin's component has its own. */
  function walked(spec) {
    const model = spec.model, walk = new Names.Walk(spec), parts = Object.fromEntries(Resolve.PARTS.map(part => [part, model[part]]));
    try {
      const embedding = walk.measured(() => {
        const c = own("embedding", model.embedding);
        walk.matrix("embedding.table", walk.vocab_size * c.d_embedding);
        if (c.d_embedding !== walk.d_model) walk.matrix("embedding.project", c.d_embedding * walk.d_model);
        walk.norm("embedding.norm", c.norm, walk.d_model);
      });
      const position = walk.measured(() => {
        const c = own("position", model.position);
        if (c.name === "learned") walk.matrix("embedding.position.table", (c.size + c.offset) * walk.d_model);
      });
      const layers = spec.layers.map((layer, index) => {
        const result = {norm: normSize(layer.norm, walk.d_model)};
        result.whole = walk.measured(() => Object.assign(result, block(walk, `blocks.${index}`, layer, layer.block, index)));
        return result;
      });
      const final_norm = walk.measured(() => walk.norm("final_norm", model.final_norm, walk.d_model));
      const top = walk.measured(() => head(walk, "head", model.head, model, parts));
      return {walk, counts: {embedding, position, layers, final_norm, head: top, shared: walk.sharedSize, total: walk.size + walk.sharedSize}};
    } catch (error) {
      if (error instanceof Unknown) return null;
      throw error;
    }
  }

  /** {parameters, projections, stacked, losses}; null if they are not known. */
  function names(spec) {
    const result = walked(spec);
    if (result === null) return null;
    const {parameters, projections, stacked, losses} = result.walk;
    return {parameters: [...parameters.keys()], projections, stacked, losses};
  }

  /** Numbers of parameters by part; null if they are not known, or depend on the corpus. */
  function counts(spec) {
    const result = walked(spec);
    return result === null || Number.isNaN(result.counts.total) ? null : result.counts;
  }

  return {names, counts};
})();
