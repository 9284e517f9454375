"use strict";
// Errors of a spec: values that the JSON Schema refuses, then the rules about combinations that gptkit's components declare.

const Check = (() => {
  let data;
  function configure(tables) { data = tables; }

  const isObject = value => value !== null && typeof value === "object" && !Array.isArray(value);
  const article = word => (/^[aeiou]/.test(word) ? "an " : "a ") + word;
  const KINDS = {integer: "a whole number", number: "a number", string: "a text", boolean: "true or false", array: "a list", object: "a mapping", null: "nothing"};

  function matches(type, value) {
    if (type === "integer") return Number.isInteger(value);
    if (type === "number") return typeof value === "number" && Number.isFinite(value);
    if (type === "array") return Array.isArray(value);
    if (type === "object") return isObject(value);
    if (type === "null") return value === null;
    return typeof value === type;
  }

  /** Yield the errors of a value below a property of the JSON Schema: {path, message}. */
  function* validate(schema, value, path, section) {
    if (schema.$ref) {
      const name = schema.$ref.replace("#/$defs/", "");
      if (name.startsWith("kind.")) yield* component(name.slice(5), section ? Resolve.withName(section, value) : value, path);
      else yield* object(data.defs[name], value, path);
      return;
    }
    if (schema.anyOf) {
      const options = schema.anyOf;
      if (value === null && options.some(each => each.type === "null")) return;
      const results = options.filter(each => each.type !== "null").map(each => [...validate(each, value, path, section || schema)]);
      if (results.some(each => !each.length)) return;
      // The option whose type fits best is the one that was meant.
      const meant = options.filter(each => each.type !== "null").findIndex(each => each.$ref || (each.type && matches(each.type, value)));
      if (meant < 0 && results.length > 1) {
        const words = options.map(each => each.const ?? KINDS[each.type]).filter(each => each !== undefined && each !== KINDS.null);
        yield {path, message: `should be ${words.join(" or ")}`};
      } else yield* results[Math.max(0, meant)];
      return;
    }
    if (schema.const !== undefined && value !== schema.const) { yield {path, message: `should be ${schema.const}`}; return; }
    if (schema.enum && !schema.enum.includes(value)) { yield {path, message: `should be one of: ${schema.enum.join(", ")}`}; return; }
    if (schema.type && !matches(schema.type, value)) { yield {path, message: `should be ${KINDS[schema.type]}`}; return; }
    if (typeof value === "number") {
      if (schema.minimum !== undefined && value < schema.minimum) yield {path, message: `should be at least ${schema.minimum}`};
      if (schema.exclusiveMinimum !== undefined && value <= schema.exclusiveMinimum) yield {path, message: `should be more than ${schema.exclusiveMinimum}`};
      if (schema.maximum !== undefined && value > schema.maximum) yield {path, message: `should be at most ${schema.maximum}`};
      if (schema.exclusiveMaximum !== undefined && value >= schema.exclusiveMaximum) yield {path, message: `should be less than ${schema.exclusiveMaximum}`};
    }
    if (typeof value === "string") {
      if (schema.minLength !== undefined && [...value].length < schema.minLength) yield {path, message: "should not be empty"};
      if (schema.maxLength !== undefined && [...value].length > schema.maxLength) yield {path, message: `should have at most ${schema.maxLength} characters`};
    }
    if (Array.isArray(value)) {
      if (schema.minItems !== undefined && value.length < schema.minItems) yield {path, message: `should have at least ${schema.minItems} items`};
      if (schema.maxItems !== undefined && value.length > schema.maxItems) yield {path, message: `should have at most ${schema.maxItems} items`};
      if (schema.items) for (const [index, item] of value.entries()) yield* validate(schema.items, item, [...path, index]);
    }
    if (isObject(value) && isObject(schema.additionalProperties)) {
      for (const [key, item] of Object.entries(value)) yield* validate(schema.additionalProperties, item, [...path, key]);
    }
  }

  function* object(fields, value, path) {
    if (!isObject(value)) { yield {path, message: "should be a mapping"}; return; }
    for (const [key, item] of Object.entries(value)) {
      if (key in fields) yield* validate(fields[key], item, [...path, key], fields[key]);
      else yield {path: [...path, key], message: `unknown key; known are: ${Object.keys(fields).join(", ")}`};
    }
    for (const [key, field] of Object.entries(fields)) if (field.required && !(key in value)) yield {path: [...path, key], message: "missing"};
  }

  function* component(kind, value, path) {
    const known = data.kinds[kind], names = Object.keys(known);
    const name = typeof value === "string" ? value : isObject(value) ? value.name : undefined;
    if (typeof value !== "string" && !isObject(value)) { yield {path, message: `should be ${article(kind)}: a name or a mapping`}; return; }
    if (name === undefined) { yield {path, message: `${kind} has no name; choose one of: ${names.join(", ")}`}; return; }
    if (!(name in known)) { yield {path, message: `unknown ${kind} ${JSON.stringify(name)}; choose one of: ${names.join(", ")}`}; return; }
    if (isObject(value)) yield* object(known[name].fields, value, path);
    else for (const [key, field] of Object.entries(known[name].fields)) if (field.required) yield {path: [...path, key], message: "missing"};
  }

  const EFFECTS = {
    rotate: "rotates queries and keys", bias: "adds a bias to the scores", rotated_width: "changes the width of queries and keys",
    content_bias: "adds a term to the scores that depends on the queries", value_bias: "adds a term to the values",
  };

  /** Why an attention does not accept a position; null if it does. */
  function refusal(position, attention) {
    const accepts = data.kinds.attention[attention].accepts;
    const missing = data.kinds.position[position].uses.filter(hook => hook !== "embed" && !accepts.includes(hook));
    if (!missing.length) return null;
    return `position ${position} ${missing.map(hook => EFFECTS[hook] || hook).join(" and ")}, which attention ${attention} does not accept`;
  }

  const flagged = {
    added_term: c => (c.relative_width ?? null) !== null, softcap: c => (c.softcap ?? null) !== null, sinks: c => c.sinks === true, dropout: c => c.dropout > 0, pattern: c => (c.chunk ?? null) !== null,
  };
  const SOFTMAX = ["multi-head", "grouped-query", "convolutional", "latent", "simple", "single-head", "stacked-heads"];

  /** What an attention backend cannot compute in a layer; null if it computes all, or if it is not known. */
  function limitation(backend, layer) {
    if (layer.attention.name === "hybrid") return limitation(backend, {...layer, attention: layer.attention.attention});
    const table = data.kinds["attention-backend"][backend].limits, entry = data.kinds.attention[layer.attention.name];
    if (!entry.builtin || !SOFTMAX.includes(layer.attention.name)) return null;
    const {uses, score_function} = data.kinds.position[layer.position.name];
    const features = Object.keys(flagged).filter(name => (name !== "softcap" && name !== "sinks" && name !== "pattern" || "softcap" in entry.fields) && flagged[name](layer.attention));
    if (uses.includes("bias")) features.push(score_function ? "bias+score_function" : "bias");
    if (uses.includes("content_bias")) features.push("content_term");
    if (uses.includes("value_bias")) features.push("value_term");
    return features.map(name => table[name]).find(Boolean) || null;
  }

  function* layerProblems(layer, spec) {
    const {attention: a, position: p, feedforward: f, paths} = layer, model = spec.model, x = model, built = data.kinds.attention[a.name].builtin;
    const reason = refusal(p.name, a.name), uses = data.kinds.position[p.name].uses;
    if (reason) yield {path: paths.position, message: reason};
    if (uses.includes("embed") && paths.position[1] === "layers") {
      yield {path: paths.position, message: `position ${p.name} is added to the embeddings, so it cannot be set for a layer; set it for the model`};
    }
    const at = (part, field) => [...paths[part], field];
    if (built && ["multi-head", "grouped-query"].includes(a.name)) {
      const kv = a.n_kv_heads ?? a.n_heads;
      if (a.n_heads % kv) yield {path: at("attention", "n_kv_heads"), message: `${a.n_heads} heads are not a multiple of ${kv} key/value heads; choose a divisor`};
      if (a.d_head * a.n_heads !== x.d_model && a.d_head === Math.floor(x.d_model / a.n_heads)) {
        yield {path: at("attention", "n_heads"), message: `d_model ${x.d_model} cannot be split into ${a.n_heads} heads; choose a divisor, or set d_head`};
      }
      if ((a.d_value ?? a.d_head) !== a.d_head) {
        if (a.tie_kv) yield {path: at("attention", "d_value"), message: "values are the projected keys, of d_head features; remove d_value, or tie_kv"};
        if (uses.includes("value_bias")) yield {path: at("attention", "d_value"), message: `position ${p.name} adds ${a.d_head} features to each value; remove d_value`};
      }
      if (a.qk_norm !== null && a.qk_norm_width === "each-head" && a.qk_norm.norm !== undefined) {
        yield {path: at("attention", "qk_norm_width"), message: `norm ${a.qk_norm.name} contains another one and cannot be stacked over heads; choose head`};
      }
      if (a.qk_norm !== null && a.qk_norm_width !== "head" && a.qk_norm_order === "after") {
        yield {path: at("attention", "qk_norm_order"), message: `a norm of width ${a.qk_norm_width} is applied before the rotation`};
      }
    }
    if (built && a.name === "convolutional") {
      if (a.n_heads % a.n_kv_heads) yield {path: at("attention", "n_kv_heads"), message: `n_heads ${a.n_heads} is not a multiple of n_kv_heads ${a.n_kv_heads}; choose one of its divisors`};
      if (a.n_kv_heads * a.d_head % 2) yield {path: at("attention", "d_head"), message: `half of the ${a.n_kv_heads * a.d_head} features of the values are those of the previous token; choose an even d_head, or an even number of key/value heads`};
    }
    if (built && a.name === "single-head" && a.d_head !== x.d_model && !a.output) {
      yield {path: at("attention", "output"), message: `the head of ${a.d_head} features must be projected back to d_model ${x.d_model}`};
    }
    if (built && a.name === "stacked-heads" && x.d_model % a.n_heads) {
      yield {path: at("attention", "n_heads"), message: `d_model ${x.d_model} cannot be split into ${a.n_heads} heads; choose a divisor`};
    }
    if (built && a.name === "gated-delta" && a.n_value_heads % a.n_heads) {
      yield {path: at("attention", "n_value_heads"), message: `${a.n_value_heads} value heads cannot be distributed over ${a.n_heads} heads; choose a multiple`};
    }
    if (built && a.name === "differential") {
      if (a.n_heads % a.n_kv_heads) yield {path: at("attention", "n_kv_heads"), message: `n_heads ${a.n_heads} is not a multiple of n_kv_heads ${a.n_kv_heads}; choose one of its divisors`};
      if (x.d_model % (2 * a.n_heads) && a.d_head === Math.floor(x.d_model / (2 * a.n_heads))) {
        yield {path: at("attention", "n_heads"), message: `d_model ${x.d_model} cannot be split into ${a.n_heads} heads of 2 parts each; choose another number, or set d_head`};
      }
    }
    if (built && a.name === "rg-lru" && a.d_inner % a.n_heads) {
      yield {path: at("attention", "n_heads"), message: `${a.d_inner} features cannot be divided into ${a.n_heads} blocks; choose a divisor`};
    }
    if (built && a.name === "mamba1" && a.d_inner % a.n_heads) {
      yield {path: at("attention", "n_heads"), message: `${a.d_inner} features cannot be divided into ${a.n_heads} heads; choose a divisor`};
    }
    if (built && a.name === "mamba2") {
      if (a.n_heads % a.n_groups) yield {path: at("attention", "n_groups"), message: `${a.n_heads} heads cannot be distributed over ${a.n_groups} groups; choose a divisor`};
      if (a.norm !== "none" && a.n_heads * a.d_head % a.norm_groups) {
        yield {path: at("attention", "norm_groups"), message: `${a.n_heads * a.d_head} features cannot be divided into ${a.norm_groups} groups; choose a divisor`};
      }
      if (a.step_max !== null && a.step_max <= a.step_min) yield {path: at("attention", "step_max"), message: "should be larger than step_min"};
    }
    if (built && p.name === "rotary" && !reason) {
      const size = a.name === "latent" ? a.d_rotary : a.name === "simple" ? x.d_model : a.d_head, rotated = Math.floor(size * p.fraction);
      if (size !== undefined && (rotated % 2 || !rotated)) {
        yield {path: paths.attention, message: `features are rotated in pairs, but the head size ${size} gives ${rotated}; choose n_heads, d_head or fraction so that it is even`};
      }
    }
    if (p.name === "sinusoidal" && x.d_model % 2) yield {path: paths.position, message: `sines and cosines come in pairs, but d_model ${x.d_model} is odd`};
    if (p.name === "t5-bias") {
      if (p.n_buckets % 2) yield {path: at("position", "n_buckets"), message: `half of the buckets are exact, but ${p.n_buckets} is odd; choose an even number`};
      if (p.max_distance <= Math.floor(p.n_buckets / 2)) yield {path: at("position", "max_distance"), message: `must exceed the ${Math.floor(p.n_buckets / 2)} single-distance buckets`};
    }
    yield* experts(f, paths.feedforward);
    yield* blocks(layer.block, paths.block, false, layer.attention);
    const backend = layer.attention_backend || model.attention_backend, limit = limitation(backend.name, layer);
    if (limit) yield {path: layer.attention_backend ? [...paths.attention.slice(0, -1), "attention_backend"] : ["model", "attention_backend"],
      message: `attention backend ${backend.name} cannot compute ${limit}; set auto, or choose another attention or position`};
  }

  function* experts(f, path) {
    if (f.name === "experts") {
      const r = f.router, all = f.n_experts + f.identity_experts + f.zero_experts, n = all - (r.always ?? 0);
      const below = [...path, "router"], size = Math.floor(n / r.n_groups);
      if (n < 1) yield {path: [...below, "always"], message: `is ${r.always}, but the layer has ${all} experts; lower it, or raise n_experts`};
      else if (r.k > n) yield {path: [...below, "k"], message: r.always
        ? `k is ${r.k}, but ${n} experts remain without those of \`always\`; lower k, or raise n_experts`
        : `k is ${r.k}, but the layer has ${n} experts; lower k, or raise n_experts`};
      if (n > 0 && r.n_groups !== undefined && !(r.always && r.k > n)) {
        if (n % r.n_groups) yield {path: [...below, "n_groups"], message: `${n} experts cannot be split into ${r.n_groups} equal groups; choose a divisor`};
        else if (r.top_groups > r.n_groups) yield {path: [...below, "top_groups"], message: `is ${r.top_groups}, but the layer has ${r.n_groups} groups; lower it`};
        else if (r.k > r.top_groups * size) yield {path: [...below, "top_groups"], message: `${r.top_groups} groups of ${size} experts have fewer than ${r.k}; raise top_groups, or lower k`};
        else if (r.group_score === "top-2-sum" && r.n_groups > 1 && size < 2) yield {path: [...below, "group_score"], message: "a group of one expert has no second best; set max"};
      }
      yield* experts(f.expert, [...path, "expert"]);
      if (f.shared !== null) yield* experts(f.shared, [...path, "shared"]);
    }
  }

  /** Rules of blocks that share values between layers, and of stacks in cycles. */
  function* blocks(block, path, inHead, attention) {
    const shares = {altup: "streams", engram: "n-grams", "per-layer-embedding": "embedding"}[block.name];
    if (shares && inHead) yield {path, message: `has no ${shares} for the blocks of a head; choose another block there`};
    const contains = (outer, name) => outer.block && (outer.block.name === name || contains(outer.block, name));
    if (block.name === "altup" && contains(block, "altup")) {
      yield {path: [...path, "block"], message: "a block with streams cannot be within another one; choose another block"};
    }
    if (embedded(block) !== null && within(block).some(inner => embedded(inner) === embedded(block))) {
      yield {path: [...path, "block"], message: "has the embedding of the block around it; choose another d_embedding, or another block"};
    }
    if (block.name === "pre-norm" && block.stream_norm !== null && !block.shortcut) {
      yield {path: [...path, "stream_norm"], message: "nothing is added to the stream without a shortcut; remove it, or set shortcut: true"};
    }
    if (block.name === "engram" && block.d_embedding % ((block.max_ngram - 1) * block.heads)) {
      const message = `${block.d_embedding} features cannot be divided among ${(block.max_ngram - 1) * block.heads} tables, (max_ngram − 1) · heads; choose a multiple`;
      yield {path: [...path, "d_embedding"], message};
    }
    if (block.name === "hierarchical") yield* cycles(block, path, attention);
    if (block.name === "shortcut-experts") yield* experts(block.experts, [...path, "experts"]);
    if (block.block) yield* blocks(block.block, [...path, "block"], inHead, attention);
  }

  /** The blocks within a block. */
  function within(block) {
    return block.block ? [block.block, ...within(block.block)] : [];
  }

  /** The fields that select the table of a block with an embedding for each layer; null without one. */
  function embedded(block) {
    const has = ["altup", "per-layer-embedding"].includes(block.name) && (block.d_embedding ?? null) !== null;
    return has ? JSON.stringify([block.d_embedding, block.n_ids, block.projection, block.norm]) : null;
  }

  function* cycles(block, path, attention) {
    const {gradient_cycles: passing, high_cycles: high, low_cycles: low} = block;
    if (passing.length > high) {
      yield {path: [...path, "gradient_cycles"], message: `has ${passing.length} numbers for ${high} high cycles; remove some`};
    }
    for (const [index, number] of passing.entries()) {
      if (number < 1 || number > low) yield {path: [...path, "gradient_cycles", index], message: `should be from 1 to low_cycles, ${low}`};
    }
    for (const {name} of [attention, attention.attention, attention.recurrence].filter(each => (each?.indexer ?? null) !== null)) {
      yield {path, message: `computes its attention several times, and ${name} publishes its choice once; choose another of both`};
    }
    if (within(block).some(inner => embedded(inner) !== null)) {
      yield {path: [...path, "block"], message: "is computed several times, and a layer has one embedding of each token; choose another block"};
    }
    if (block.start === "learned" && passing[0] < low) {
      yield {path: [...path, "start"], message: "no gradient reaches it with these gradient_cycles; set start: fixed"};
    }
  }

  function* headBlocks(head, path, attention) {
    const inner = head => head.head ? [head.head.name, ...inner(head.head)] : [];
    if (inner(head).includes("distillation")) {
      const message = head.name === "distillation"
        ? "a distillation within another one has a second teacher; choose another head"
        : "is called for every predicted token, and the teacher of a distillation once; make distillation the outer head, and multi-token its head";
      yield {path: [...path, "head"], message};
    }
    if (head.block) yield* blocks(head.block, [...path, "block"], true, attention);
    if (head.head) yield* headBlocks(head.head, [...path, "head"], attention);
  }

  /** Rules of single components, before their values are resolved: both of two fields that exclude each other. */
  function* givenTwice(value, path) {
    if (!isObject(value)) return;
    if ((value.expansion ?? null) !== null && (value.d_hidden ?? null) !== null) yield {path, message: "give either expansion or d_hidden, not both"};
    if (value.shared_gate === true && (value.shared ?? null) === null) yield {path, message: "shared_gate needs a shared feed-forward to gate; set shared"};
    for (const [key, inner] of Object.entries(value)) yield* givenTwice(inner, [...path, key]);
  }

  function* wholeProblems(spec, given) {
    const model = spec.model;
    if (model.position.name === "learned" && model.position.size < model.context_length) {
      yield {path: ["model", "position"], message: `the table has ${model.position.size} positions, fewer than the context length ${model.context_length}`};
    }
    if (model.vocab_size && spec.tokenizerSize > model.vocab_size) {
      yield {path: ["model", "vocab_size"], message: `the tokenizer has ${spec.tokenizerSize} ids, but the model has ${model.vocab_size}`};
    }
    if (model.head.name === "linear" && model.head.tied && model.head.linear !== null) {
      yield {path: ["model", "head", "linear"], message: "a tied head has no projection of its own; remove linear, or set tied: false"};
    }
    if (model.head.name === "multi-token" && model.head.depth >= model.context_length) {
      yield {path: ["model", "head", "depth"], message: `must be below the context length ${model.context_length}`};
    }
    yield* headBlocks(model.head, ["model", "head"], model.attention);
    const window = (given.training || {}).window;
    if (Number.isInteger(window) && window > model.context_length) {
      yield {path: ["training", "window"], message: `a data window of ${window} tokens exceeds the model's context_length of ${model.context_length}`};
    }
  }

  /** A component with the name of the one that it changes, where it has none, and so those inside it. */
  function named(base, value) {
    const name = isObject(base) ? base.name : base;
    const result = value.name === undefined && typeof name === "string" ? {name, ...value} : {...value};
    if (isObject(base) && result.name === base.name) {
      for (const [key, inner] of Object.entries(value)) if (isObject(inner)) result[key] = named(base[key], inner);
    }
    return result;
  }

  /** A spec whose layers name the component that each of their parts changes, which may be the model's. */
  function withNames(given) {
    if (!isObject(given) || !isObject(given.model) || !Array.isArray(given.model.layers)) return given;
    const layers = given.model.layers.map(entry => {
      if (!isObject(entry)) return entry;
      const result = {...entry};
      for (const part of Resolve.PARTS) {
        if (isObject(entry[part])) result[part] = named(given.model[part], entry[part]);
      }
      return result;
    });
    return {...given, model: {...given.model, layers}};
  }

  /** The errors of a spec file's data, each with its path; a resolved spec is returned where the values are valid. */
  function check(given) {
    const errors = [...object(data.root, withNames(given), []), ...givenTwice(given.model, ["model"])];
    if (errors.length) return {errors, spec: null};
    errors.push(...Training.sections(given));
    const spec = Resolve.spec(given);
    for (const layer of new Set(spec.entries)) errors.push(...layerProblems(layer, spec));
    errors.push(...wholeProblems(spec, given), ...Between.problems(spec));
    if (!errors.length) errors.push(...Training.whole(given, spec));
    const seen = new Set(), unique = [];
    for (const error of errors) {
      const key = error.path.join(".") + error.message;
      if (!seen.has(key)) { seen.add(key); unique.push(error); }
    }
    return {errors: unique, spec};
  }

  return {configure, check, refusal, limitation};
})();
