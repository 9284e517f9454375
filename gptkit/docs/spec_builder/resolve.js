"use strict";
// A spec with its defaults, as gptkit loads it: defaults of fields, parts of layers, and values that depend on the model.

const Resolve = (() => {
  const PARTS = ["position", "attention", "norm", "feedforward", "linear", "block"];
  const WHOLE = ["embedding", "final_norm", "attention_backend", "head", "initializer"];
  let data;

  function configure(tables) { data = tables; }

  const isObject = value => value !== null && typeof value === "object" && !Array.isArray(value);
  const mapping = value => typeof value === "string" ? {name: value} : value;

  /** Merge a value over a base, by the rule of `extends` and of layers: another name replaces the whole component. */
  function merge(base, over) {
    if (isObject(base) && typeof over === "string") return base.name === over ? base : over;
    if (typeof base === "string" && isObject(over)) base = {name: base};
    if (!isObject(base) || !isObject(over)) return over;
    if (over.name !== undefined && base.name !== undefined && over.name !== base.name) return over;
    const result = {...base};
    for (const [key, value] of Object.entries(over)) result[key] = key in base ? merge(base[key], value) : value;
    return result;
  }

  /** A value of a field that takes components, with the name of the field's default if it names none. */
  function withName(field, value) {
    if (!isObject(value) || value.name !== undefined) return value;
    if (typeof field.default === "string") return {name: field.default, ...value};
    return isObject(field.default) && field.default.name ? {...field.default, ...value} : value;
  }

  function fillField(field, given) {
    let value = given;
    if (value === undefined || (value === null && !field.nullable)) value = field.default;
    if (value === null || value === undefined || !field.kind) return value;
    if (field.list) return (value || []).map(each => fillComponent(field.kind, each));
    return fillComponent(field.kind, withName(field, value));
  }

  /** A component with all of its fields. */
  function fillComponent(kind, value) {
    const given = mapping(value), entry = data.kinds[kind][given.name], result = {name: given.name};
    for (const [name, field] of Object.entries(entry.fields)) {
      if (name !== "name") result[name] = fillField(field, given[name]);
    }
    return result;
  }

  const RESOLVERS = {
    "attention gated-delta": (c, x) => {
      c.n_heads = c.n_heads || Math.max(1, Math.floor(x.d_model / c.d_key));
      c.n_value_heads = c.n_value_heads || c.n_heads;
    },
    "attention multi-head": headed,
    "attention grouped-query": (c, x) => {
      headed(c, x);
      if (c.n_kv_heads !== null) return;
      c.n_kv_heads = Math.max(1, Math.floor(c.n_heads / 4));
      while (c.n_heads % c.n_kv_heads) c.n_kv_heads -= 1;
    },
    "attention convolutional": (c, x) => {
      c.n_heads = c.n_heads || Math.max(1, Math.floor(x.d_model / (2 * c.d_head)));
      if (c.n_kv_heads === null) {
        c.n_kv_heads = Math.max(1, Math.floor(c.n_heads / 4));
        while (c.n_heads % c.n_kv_heads) c.n_kv_heads -= 1;
      }
    },
    "attention differential": (c, x) => {
      c.n_heads = c.n_heads || Math.max(1, Math.floor(x.d_model / (2 * (c.d_head || 64))));
      c.n_kv_heads = c.n_kv_heads || c.n_heads;
      c.d_head = c.d_head || Math.max(1, Math.floor(x.d_model / (2 * c.n_heads)));
    },
    "attention expert-heads": (c, x) => {
      c.n_kv_heads = c.n_kv_heads || Math.max(1, Math.floor(x.d_model / (c.d_head || 64)));
      c.d_head = c.d_head || Math.max(1, Math.floor(x.d_model / c.n_kv_heads));
    },
    "attention block-sparse": (c, x) => {
      RESOLVERS["attention grouped-query"](c, x);
      c.index_heads = c.index_heads || c.n_kv_heads;
      c.d_index = c.d_index || c.d_head;
    },
    "attention pooled-sparse": (c, x) => {
      RESOLVERS["attention grouped-query"](c, x);
      c.d_index = c.d_index || c.d_head;
    },
    "attention compressed": (c, x) => { c.n_heads = c.n_heads || Math.max(1, Math.floor(x.d_model / c.d_head)); },
    "attention latent": (c, x) => {
      c.n_heads = c.n_heads || Math.max(1, Math.floor(x.d_model / 64));
      c.kv_rank = c.kv_rank || Math.max(1, Math.floor(x.d_model / 4));
    },
    "attention lightning": headed,
    "attention mamba1": (c, x) => {
      c.d_inner = c.d_inner || 2 * x.d_model;
      c.step_rank = c.step_rank || Math.ceil(x.d_model / 16);
    },
    "attention mamba2": (c, x) => {
      c.n_heads = c.n_heads || Math.max(1, Math.floor(2 * x.d_model / c.d_head));
      c.norm_groups = c.norm_groups || c.n_groups;
    },
    "attention mlstm": (c, x) => {
      c.d_key = c.d_key || Math.max(1, Math.floor(x.d_model / (2 * c.n_heads)));
      c.d_value = c.d_value || Math.max(1, Math.floor(x.d_model / c.n_heads));
    },
    "attention rg-lru": (c, x) => { c.d_inner = c.d_inner || x.d_model; },
    "attention rwkv4": (c, x) => { c.d_inner = c.d_inner || x.d_model; },
    "attention single-head": (c, x) => {
      c.d_head = c.d_head || x.d_model;
      if (c.output === null) c.output = c.d_head !== x.d_model;
    },
    "attention stacked-heads": (c, x) => { c.n_heads = c.n_heads || Math.max(1, Math.floor(x.d_model / 64)); },
    "feedforward gated": (c, x) => {
      if (c.d_hidden === null) {
        const wanted = c.expansion === null ? 8 * x.d_model / 3 : c.expansion * x.d_model;
        c.d_hidden = c.multiple_of * Math.max(1, Math.ceil(wanted / c.multiple_of));
      }
      c.expansion = null;
    },
    "feedforward mlp": (c, x) => {
      c.d_hidden = c.d_hidden || Math.max(1, halfEven((c.expansion === null ? 4 : c.expansion) * x.d_model));
      c.expansion = null;
    },
    "router network": (c, x) => { c.d_hidden = c.d_hidden || Math.max(1, Math.floor(x.d_model / 8)); },
    "position learned": (c, x) => { c.size = c.size || x.context_length; },
    "embedding token": (c, x) => { c.d_embedding = c.d_embedding || x.d_model; },
    "block deep-norm": (c, x) => {
      if (c.alpha === null) c.alpha = (2 * x.n_layers) ** 0.25;
      if (c.beta === null) c.beta = (8 * x.n_layers) ** -0.25;
      if (c.feedforward_alpha === null) c.feedforward_alpha = c.alpha;
      if (c.feedforward_residual_scale === null) c.feedforward_residual_scale = c.residual_scale;
    },
    "block engram": (c, x) => { c.d_embedding = c.d_embedding || x.d_model; },
    "block hierarchical": c => {
      const given = c.gradient_cycles, cycles = given === null ? Array(c.high_cycles).fill(c.low_cycles) : given;
      c.gradient_cycles = [...Array(Math.max(0, c.high_cycles - cycles.length)).fill(1), ...cycles];
    },
  };

  function headed(c, x) {
    c.n_heads = c.n_heads || Math.max(1, Math.floor(x.d_model / (c.d_head || 64)));
    c.d_head = c.d_head || Math.max(1, Math.floor(x.d_model / c.n_heads));
    if (c.relative_width && !c.relative_extent) c.relative_extent = c.window || 1024;
  }

  /** Round as Python does: halves to the even number. */
  function halfEven(value) {
    const floor = Math.floor(value);
    if (value - floor !== 0.5) return Math.round(value);
    return floor % 2 ? floor + 1 : floor;
  }

  /** Set the values of a filled component, and of those inside it, that depend on the model. */
  function resolve(kind, component, context) {
    const entry = data.kinds[kind][component.name];
    if (entry.builtin && RESOLVERS[`${kind} ${component.name}`]) RESOLVERS[`${kind} ${component.name}`](component, context);
    for (const [name, field] of Object.entries(entry.fields)) {
      const value = component[name];
      if (!field.kind || value === null || value === undefined) continue;
      let within = context;
      if (name === "expert" && component.latent) within = {...context, d_model: component.latent};
      // The branch reads the embedding beside the tokens.
      if (component.name === "shared-branch" && name === "attention" && component.embedding) within = {...context, d_model: 2 * context.d_model};
      for (const inner of field.list ? value : [value]) resolve(field.kind, inner, within);
    }
    return component;
  }

  /**
   * The resolved spec of valid data: {name, tokenizer, tokenizerSize, sampler, model, layers}. `layers` has the parts of each
   * layer; `entries` those of each entry of the pattern, with the paths of the parts in the file.
   */
  function spec(given) {
    const root = data.root, model = given.model || {}, filled = {}, context = {};
    for (const [name, field] of Object.entries(data.model)) {
      if (name !== "layers") filled[name] = fillField(field, model[name]);
    }
    const pattern = Array.isArray(model.layers) ? model.layers : null;
    const repeat = entry => Number.isInteger(entry.repeat) ? entry.repeat : 1;
    if (pattern && model.n_layers === undefined) {
      filled.n_layers = Math.max(1, pattern.reduce((sum, entry) => sum + repeat(entry), 0));
    }
    for (const name of ["d_model", "context_length", "n_layers", "vocab_size"]) context[name] = filled[name];
    for (const part of PARTS) resolve(part, filled[part], context);
    const uniform = {...Object.fromEntries(PARTS.map(part => [part, filled[part]])), repeat: filled.n_layers, paths: {}};
    for (const part of PARTS) uniform.paths[part] = ["model", part];
    const entries = pattern === null ? [uniform] : pattern.map((entry, index) => {
      const layer = {repeat: repeat(entry), paths: {}};
      for (const part of PARTS) {
        const base = model[part] === undefined || model[part] === null ? data.model[part].default : withName(data.model[part], model[part]);
        const merged = part in entry && entry[part] !== null ? merge(base, entry[part]) : base;
        layer[part] = resolve(part, fillComponent(part, withName(data.model[part], merged)), context);
        const inherited = JSON.stringify(layer[part]) === JSON.stringify(filled[part]);
        layer.paths[part] = inherited ? ["model", part] : ["model", "layers", index, part];
      }
      layer.attention_backend = entry.attention_backend ? fillComponent("attention-backend", entry.attention_backend) : null;
      return layer;
    });
    const repeated = entries.flatMap(entry => Array(entry.repeat).fill(entry));
    const layers = Array.from({length: filled.n_layers}, (_, index) => repeated[index % repeated.length]);
    if (model.final_norm === undefined && layers.length) {
      const last = layers[layers.length - 1].block;
      filled.final_norm = finalNorm(last) ? filled.norm : null;
    }
    for (const part of WHOLE) if (filled[part] !== null) resolve(part === "final_norm" ? "norm" : data.model[part].kind, filled[part], context);
    const tokenizer = fillField(root.tokenizer, given.tokenizer);
    return {
      name: given.name === undefined ? root.name.default : given.name, tokenizer, tokenizerSize: tokenizerSize(tokenizer),
      sampler: fillField(root.sampler, given.sampler), model: filled, layers, entries,
    };
  }

  function finalNorm(block) {
    if (block.name === "engram") return finalNorm(block.block);
    const table = data.kinds.block[block.name].wiring;
    return data.kinds.block[block.name].final_norm[table ? JSON.stringify(table.fields.map(name => block[name])) : "[]"] !== false;
  }

  /** The number of a tokenizer's ids, where it does not depend on the corpus. */
  function tokenizerSize(tokenizer) {
    const entry = data.kinds.tokenizer[tokenizer.name];
    if (entry.builtin && tokenizer.name === "byte") {
      const special = [tokenizer.start_token, tokenizer.end_token, ...tokenizer.special_tokens].filter(token => token !== null);
      return 256 + new Set(special).size;
    }
    if (entry.sizes && entry.size_field) return entry.sizes[JSON.stringify(tokenizer[entry.size_field])] ?? null;
    if (entry.size_field) return tokenizer[entry.size_field];
    return entry.size ?? null;
  }

  return {configure, spec, merge, withName, fillComponent, fillField, PARTS};
})();
