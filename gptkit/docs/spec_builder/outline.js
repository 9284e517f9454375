"use strict";
// Content of an architecture diagram, as gptkit/diagrams/{facts,folding,labels,outline}.py. A component is an object with
// `kind`-less plain data: its name and all of its fields, resolved. The results equal those of Python.

const Outline = (() => {
  let phrases = {}, always = [], hidden = [], kinds = {};
  const words = {feedforward: "feed-forward"};

  /** Set the tables that Python exports: phrases of fields, and the components' fields by kind and name. */
  function configure(data) {
    phrases = data.phrases; always = data.always; hidden = data.hidden; kinds = data.kinds;
  }

  function title(kind, component) { return component.name + " " + (words[kind] || kind); }

  /** A number with thousands separators, without an exponent. */
  function number(value) {
    if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en-US");
    if (Math.abs(value) >= 1e6) return Math.round(value).toLocaleString("en-US");
    const text = String(Number(value.toPrecision(6)));
    return /e/.test(text) || Math.abs(value) < 1e-4 ? value.toFixed(10).replace(/\.?0+$/, "") : text;
  }

  /** A number of parameters in words. */
  function parameters(count) {
    for (const [size, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"]]) {
      if (count < size - Math.floor(size / 2000)) continue;
      const digits = 200 * count < 1999 * size ? 2 : 20 * count < 1999 * size ? 1 : 0;
      const scaled = Number((BigInt(count) * BigInt(10 ** digits) * 2n + BigInt(size)) / (2n * BigInt(size)));
      const whole = Math.floor(scaled / 10 ** digits), part = String(scaled % 10 ** digits).padStart(digits, "0");
      return digits ? `${whole}.${part}${letter}` : `${whole}${letter}`;
    }
    return count.toLocaleString("en-US");
  }

  function plainFact(text, value) {
    if (typeof value === "boolean") return value ? text : "no " + text;
    if (typeof value === "number") return text + " " + number(value);
    return typeof value === "string" ? text + " " + value : text;
  }

  function same(a, b) { return JSON.stringify(a) === JSON.stringify(b); }

  function isDefault(kind, value, given) {
    if (given === null || given === undefined) return false;
    const wanted = typeof given === "string" ? {name: given} : given;
    return same(wanted, {name: value.name}) && !facts(kind, value, 0).length;
  }

  /** Phrases about the fields of a component: its sizes, and what differs from the defaults. */
  function facts(kind, component, width) {
    const fields = (kinds[kind] || {})[component.name].fields, names = Object.keys(fields).filter(name => name !== "name");
    const order = Object.keys(phrases).filter(name => names.includes(name)), result = [];
    for (const name of [...order, ...names.filter(name => !(name in phrases))]) {
      const value = component[name], field = fields[name];
      if (hidden.includes(name) || (name === "d_embedding" && value === width)) continue;
      if (["n_groups", "top_groups"].includes(name) && component.n_groups === 1) continue;
      const isComponent = field.kind && !field.list && value !== null && typeof value === "object";
      if (isComponent) {
        if (!always.includes(name) && isDefault(field.kind, value, field.default)) continue;
        const inner = facts(field.kind, value, width).join(", ");
        result.push(`${name.replaceAll("_", " ")}: ${value.name}${inner ? ` (${inner})` : ""}`);
      } else if (name in phrases && Number.isInteger(value)) {
        const phrase = phrases[name].replace("{}", number(value));
        result.push(value === 1 && phrase.startsWith("1 ") && phrase.endsWith("s") ? phrase.slice(0, -1) : phrase);
      } else if (value !== null && value !== undefined && !same(value, field.default)) {
        result.push(plainFact(name.replaceAll("_", " "), value));
      }
    }
    return result;
  }

  function runs(sequence) {
    const result = [];
    for (const item of sequence) {
      const last = result[result.length - 1];
      if (last && last[0] === item) last[1] += 1; else result.push([item, 1]);
    }
    return result;
  }

  /** The shortest description of a sequence of labels with one repeated part. */
  function described(sequence, labels) {
    const listed = parts => parts.map(([item, count]) => `${count}\u00a0×\u00a0${labels[item]}`).join(", ");
    let best = runs(sequence).map(run => listed([run])).join(", then ");
    for (let begin = 0; begin < Math.min(4, sequence.length); begin += 1) {
      const rest = sequence.slice(begin);
      for (let period = 2; period <= Math.floor(rest.length / 2); period += 1) {
        const part = rest.slice(0, period);
        let times = 1;
        while (same(rest.slice(times * period, (times + 1) * period), part)) times += 1;
        if (times < 2) continue;
        const parts = [`${listed(runs(part))}, repeated ${times} times`];
        if (begin) parts.unshift(listed(runs(sequence.slice(0, begin))));
        if (times * period < rest.length) parts.push(listed(runs(rest.slice(times * period))));
        const text = parts.join(", then ");
        if (text.length < best.length) best = text;
      }
    }
    if (best.length <= 110) return best;
    return listed([...new Set(sequence)].map(item => [item, sequence.filter(other => other === item).length]));
  }

  function aspects(layer) {
    const accepts = kinds.attention[layer.attention.name].accepts;
    let reach = "";
    if ("window" in kinds.attention[layer.attention.name].fields) {
      reach = layer.attention.chunk ? "chunked" : layer.attention.window ? "sliding" : "full";
    }
    const position = layer.position.name === "none" ? "no position" : layer.position.name;
    return [layer.attention.name, reach, layer.attention.reuse_kv ? "shared keys" : "", accepts.length ? position : "", layer.feedforward.name, layer.block.name];
  }

  function* combinations(count, size, from = 0) {
    if (!size) { yield []; return; }
    for (let first = from; first < count; first += 1) {
      for (const rest of combinations(count, size - 1, first + 1)) yield [first, ...rest];
    }
  }

  /** A name for each type of layers, from the fewest aspects that differ between all types. */
  function labels(layers) {
    if (layers.length < 2) return layers.map(() => "");
    const of = layers.map(aspects);
    for (let size = 1; size <= 6; size += 1) {
      for (const chosen of combinations(6, size)) {
        const names = of.map(each => chosen.map(index => each[index]).filter(Boolean).join(" "));
        if (new Set(names).size === layers.length && names.every(Boolean)) return names;
      }
    }
    return layers.map((_, index) => String.fromCharCode(65 + index % 26).repeat(1 + Math.floor(index / 26)));
  }

  function box(role, kind, component, width, count = null) {
    return {role, title: title(kind, component), facts: facts(kind, component, width), shapes: "", count};
  }

  const PARTS = ["position", "attention", "norm", "feedforward", "linear", "block"];

  function typesOf(layers, width, counts) {
    const types = [], sequence = [], first = [];
    layers.forEach((layer, index) => {
      const key = JSON.stringify(PARTS.map(part => layer[part]));
      let at = types.findIndex(each => each.key === key);
      if (at < 0) { at = types.length; types.push({key, layer}); first.push(index); }
      sequence.push(at);
    });
    const names = labels(types.map(each => each.layer));
    return [types.map((each, at) => layerType(
      each.layer, names[at], sequence.filter(item => item === at).length, width, counts && counts.layers[first[at]]
    )), sequence];
  }

  function wiring(block) {
    const table = kinds.block[block.name].wiring;
    return table === null ? null : table.steps[JSON.stringify(table.fields.map(name => block[name]))] || null;
  }

  /** The steps of a block and of the blocks within it, each with the block that declares it; null if one declares none. */
  function stepsOf(block) {
    const own = wiring(block), result = [];
    if (own === null) return null;
    for (const each of own) {
      if (each.field === undefined) {
        if (!each.only_with || block[each.only_with] !== null) result.push([each, block]);
        continue;
      }
      const inner = stepsOf(block[each.field]);
      if (inner === null) return null;
      result.push(...inner);
    }
    return result;
  }

  /** Whether a block contains another one, or has parts of its own, so that its fields describe what is drawn. */
  function describes(block) {
    return wiring(block).some(step => step.field !== undefined || (step.only_with && block[step.only_with] === null) ||
      [step.before, ...step.branches].some(branch => branch.some(part => !["norm", "attention", "feedforward"].includes(part))));
  }

  function layerType(layer, label, times, width, count) {
    const block = layer.block, declared = stepsOf(block), steps = declared && declared.map(([step]) => step), notes = [];
    if (steps === null || describes(block)) notes.push(...facts("block", block, 0));
    else if (block.dropout) notes.push(`dropout ${number(block.dropout)}`);
    if (layer.linear.name !== "dense") {
      const inner = facts("linear", layer.linear, 0).join(", ");
      notes.push(`linear: ${layer.linear.name}${inner ? ` (${inner})` : ""}`);
    }
    const attention = box("attention", "attention", layer.attention, 0);
    attention.facts = [...unrotated(layer, attention.facts), ...relative(layer)];
    attention.shapes = heads(layer.attention);
    const feedforward = box("feedforward", "feedforward", layer.feedforward, 0), norm = box("norm", "norm", layer.norm, 0);
    if (Number.isInteger(layer.feedforward.d_hidden)) {
      feedforward.shapes = `${number(width)} → ${number(layer.feedforward.d_hidden)} → ${number(width)}`;
      feedforward.facts = feedforward.facts.filter(phrase => !phrase.startsWith("hidden width"));
    }
    if (count) {
      attention.count = count.attention;
      feedforward.count = count.feedforward;
      norm.count = count.norm;
    }
    const factor = (by, field) => {
      const value = field ? by[field] : 1;
      return value === 1 || value === null || value === undefined ? "" : `× ${number(value)}`;
    };
    return {
      label, title: title("block", block), note: notes.join(" · "), times, steps,
      factors: (declared || []).map(([step, by]) => [factor(by, step.factor), factor(by, step.shortcut_factor)]),
      boxes: {norm, attention, feedforward}, count: count ? count.whole : null,
    };
  }

  /** Phrases of an attention, with other words for the features that the layer's position does not rotate. */
  function unrotated(layer, texts) {
    const size = layer.attention.d_rotary;
    if (!Number.isInteger(size) || kinds.position[layer.position.name].uses.includes("rotate")) return texts;
    const rotated = phrases.d_rotary.replace("{}", number(size));
    return texts.map(text => text === rotated ? `${number(size)} features of a shared key` : text);
  }

  function relative(layer) {
    const uses = kinds.position[layer.position.name].uses.filter(hook => hook !== "embed");
    if (!uses.length) {
      return layer.position.name === "none" && kinds.attention[layer.attention.name].accepts.length ? ["no position"] : [];
    }
    const inner = facts("position", layer.position, 0).join(", ");
    return [`position: ${layer.position.name}${inner ? ` (${inner})` : ""}`];
  }

  function heads(attention) {
    const {n_heads, d_head, d_state} = attention, n_kv_heads = attention.n_kv_heads ?? n_heads;
    if (n_heads === undefined || n_heads === null || d_head === undefined || d_head === null) return "";
    // Keys write to a state, and queries read it.
    const groups = [attention.n_groups ?? n_heads, d_state], state = d_state !== undefined && d_state !== null;
    if (state) return tensors({q: groups, k: groups, v: [n_heads, d_head]});
    return tensors({q: [n_heads, d_head], k: [n_kv_heads, d_head], v: [n_kv_heads, attention.d_value || d_head]});
  }

  /** Tensors (B, heads, T, features) by name, those of one shape together. */
  function tensors(shapes) {
    const names = new Map();
    for (const [name, [n, size]] of Object.entries(shapes)) {
      const shape = `(B, ${n}, T, ${size})`;
      names.set(shape, [...(names.get(shape) || []), name]);
    }
    return [...names].map(([shape, same]) => `${same.join(", ")}: ${shape}`).join(" · ");
  }

  function ofLink(link) {
    const fields = Object.keys(kinds.sampler[link.name].fields).filter(name => name !== "name");
    return fields.map(name => link[name]).filter(value => typeof value === "number").map(number).slice(0, 1);
  }

  const sentence = each => [each.title, ...each.facts].join(", ");

  /**
   * The content of a diagram: spec is {name, tokenizer, sampler, model, layers, tokenizerSize}, resolved; counts may be null.
   */
  function outline(spec, counts) {
    const model = spec.model, width = model.d_model, size = model.vocab_size || spec.tokenizerSize || null;
    const vocabulary = size ? number(size) : "V";
    const before = [box("tokenizer", "tokenizer", spec.tokenizer, 0)];
    if (!model.vocab_size && size) before[0].facts.unshift(`${number(size)} token ids`);
    const embedding = box("embedding", "embedding", model.embedding, width, counts ? counts.embedding : null);
    embedding.shapes = `${vocabulary} × ${number(model.embedding.d_embedding ?? width)}`;
    before.push(embedding);
    const absolute = kinds.position[model.position.name].uses.includes("embed");
    const [types, sequence] = typesOf(spec.layers, width, counts);
    const after = [];
    if (model.final_norm !== null) {
      after.push(box("norm", "norm", model.final_norm, 0, counts ? counts.final_norm : null));
      after[0].title = "final " + after[0].title;
    }
    after.push(box("head", "head", model.head, width, counts ? counts.head : null));
    const chain = spec.sampler.map(link => [link.name, ...ofLink(link)].join(" "));
    after.push({role: "sampler", title: "sampler", facts: chain.length ? chain : ["from the model's distribution"], shapes: "", count: null});
    const sizes = counts ? [`${parameters(counts.total)} parameters`] : [];
    if (counts && counts.shared) sizes.push(`${parameters(counts.shared)} of them shared by layers`);
    sizes.push(`${number(model.n_layers)} ${model.n_layers === 1 ? "layer" : "layers"}`, `width ${number(width)}`,
      `context ${number(model.context_length)}`);
    return {
      title: spec.name, summary: sizes.join(" · "), before,
      position: absolute ? box("position", "position", model.position, width, counts ? counts.position : null) : null,
      types, sequence, after,
      pattern: types.length > 1 ? described(sequence, types.map(each => each.label)) : "",
      shape: `(B, T, ${number(width)})`, logits: `(B, T, ${vocabulary})`, ids: "(B, T)",
    };
  }

  /** The content as sentences, for readers who do not see the diagram. */
  function text(content) {
    const lines = [...content.before, ...(content.position ? [content.position] : [])].map(sentence);
    for (const type of content.types) {
      const name = `${type.label} ${type.title}`.trim();
      lines.push(`${number(type.times)} × ${name}: ` + Object.values(type.boxes).map(sentence).join("; "));
    }
    if (content.pattern) lines.push(`Layers: ${content.pattern}`);
    return [content.summary, ...lines, ...content.after.map(sentence)].join(". ") + ".";
  }

  return {configure, number, parameters, outline, text};
})();
