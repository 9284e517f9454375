"use strict";
// Names of parameters in a model: patterns that select them, and a collector of names and sizes.

const Names = (() => {
  let kinds = {};
  class Unknown extends Error {}

  function configure(data) { kinds = data.kinds; }

  /** A component of gptkit itself; those of plugins have parameters that are not known here. */
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

  /** The number of parameters of a norm. */
  function normSize(component, width) {
    if (component === null || own("norm", component).name === "none") return 0;
    if (component.name === "gated") return normSize(component.norm, width) + 2 * component.rank * width;
    if (component.name === "affine") return (component.bias === "none" ? 1 : 2) * (component.shared ? 1 : width);
    if (!["rms", "layer", "l2-clip"].includes(component.name)) throw new Unknown("norm " + component.name);
    return (component.scale ? width : 0) + (component.name === "layer" && component.shift ? width : 0);
  }

  /** Collects the parameters of a model, and what its modules share. */
  class Walk {
    constructor(spec) {
      const {d_model, n_layers, vocab_size} = spec.model;
      Object.assign(this, {d_model, n_layers, vocab_size: vocab_size || spec.tokenizerSize || NaN});
      this.parameters = new Map();   // their sizes by name
      this.projections = []; this.stacked = []; this.losses = new Map();
      this.size = 0; this.sharedSize = 0;
      // What layers share: keys of modules, forms of layers that have keys and values, numbers of streams of earlier layers.
      this.shared = new Map(); this.sources = new Set(); this.first = new Set();
    }

    add(name, size) {
      this.parameters.set(name, size);
      if (name.startsWith("shared.")) this.sharedSize += size; else this.size += size;
    }

    /** The number of parameters that a function adds, without those that layers share. */
    measured(run) {
      const before = this.size;
      run();
      return this.size - before;
    }

    /** The name of a module that layers share, at its first use; null later. */
    share(base, key) {
      const keys = this.shared.get(base) || [];
      if (keys.includes(key)) return null;
      this.shared.set(base, [...keys, key]);
      return `shared.${base}${keys.length ? "-" + (keys.length + 1) : ""}`;
    }

    /** A matrix, or another module with a weight and perhaps a bias. */
    matrix(name, size, bias = 0) {
      this.add(name + ".weight", size);
      if (bias) this.add(name + ".bias", bias);
    }

    /** A projection, with an adapter where it has one. */
    linear(name, linear, inputs, outputs, bias) {
      this.matrix(name, inputs * outputs, bias ? outputs : 0);
      if (!linear || own("linear", linear).name === "dense") return;
      if (linear.name !== "low-rank") throw new Unknown("linear " + linear.name);
      this.projections.push(name);
      if (!linear.projections.some(pattern => matches(name, pattern))) return;
      this.add(name + ".lora_a", linear.rank * inputs);
      this.add(name + ".lora_b", linear.rank * outputs);
    }

    /** The projections of experts as one tensor. */
    stack(name, count, inputs, outputs, bias) {
      this.stacked.push(name);
      this.matrix(name, count * inputs * outputs, bias ? count * outputs : 0);
    }

    /** What chooses among experts. */
    router(name, component, width, choices) {
      if (own("router", component).name === "network") width = this.network(name, component, width);
      this.matrix(name + ".scores", width * choices, own("router", component).bias ? choices : 0);
      this.norm(name + ".norm", component.norm ?? null, width);
      if (component.expert_scale) this.add(name + ".expert_scale", choices);
      if (component.selection_bias || component.bias_rate) this.add(name + ".selection_bias", choices - (component.always ?? 0));
      for (const each of ["load_balance", "router_z"]) this.loss(each);
    }

    /** What a router has beside the projection of the scores; returns the width of its network. */
    network(name, component, width) {
      const hidden = component.d_hidden || Math.max(1, Math.floor(width / 8)), bias = component.hidden_bias ? hidden : 0;
      this.matrix(name + ".down", width * hidden, bias);
      for (let at = 0; at < component.hidden_layers; at += 1) this.matrix(`${name}.hidden.${at}`, hidden * hidden, bias);
      this.activation(name + ".activation", component.activation);
      if (component.reads_previous && !name.startsWith("blocks.0.")) this.add(name + ".previous_scale", hidden);
      return hidden;
    }

    norm(name, component, width) {
      if (!normSize(component, width)) return;
      if (component.name === "gated") {
        this.norm(name + ".norm", component.norm, width);
        for (const each of ["down", "up"]) this.matrix(`${name}.${each}`, component.rank * width);
        return;
      }
      if (component.name === "affine") { const size = component.shared ? 1 : width; this.matrix(name, size, component.bias === "none" ? 0 : size); return; }
      if (component.scale) this.add(name + ".weight", width);
      if (component.name === "layer" && component.shift) this.add(name + ".bias", width);
    }

    activation(name, component) {
      if (own("activation", component).name !== "xielu") return;
      for (const each of ["positive", "negative", "beta", "eps"]) this.add(`${name}.${each}`, 1);
    }

    /** A term of the training loss, whose weight is below a limit. */
    loss(name, limit = Infinity) { this.losses.set(name, limit); }
  }

  return {configure, matches, own, normSize, Unknown, Walk};
})();
