"use strict";
// Errors of layers that depend on earlier ones: what they read exists, and is computed once in a forward pass.

const Between = (() => {
  /** A block and the blocks within it. */
  function blocksOf(part) {
    return [part, ...(part.block ? blocksOf(part.block) : [])];
  }

  function headBlocks(head) { return [...(head.block ? blocksOf(head.block) : []), ...(head.head ? headBlocks(head.head) : [])]; }

  /** The attentions of a layer in the order in which they are built: {attention, position, path}. */
  function attentionsOf(attention, position, path) {
    if (attention.name !== "hybrid") return [{attention, position, path}];
    const inner = attentionsOf(attention.attention, position, [...path, "attention"]);
    return [...inner, ...attentionsOf(attention.recurrence, {name: "none"}, [...path, "recurrence"])];
  }

  /** The errors of attentions that read what earlier layers compute: {path, message}; one for each field. */
  function* problems(spec) {
    const {model} = spec, headed = headBlocks(model.head), sources = new Map(), seen = new Set();
    const layers = spec.layers.map(each => ({...each, blocks: blocksOf(each.block)}));
    if (headed.length) layers.push({...model, blocks: headed, paths: {attention: ["model", "attention"]}});
    let indexed = false, first = true;
    for (const [index, layer] of layers.entries()) {
      const repeating = layer.blocks.find(block => block.name === "hierarchical") || null;
      for (let time = 0; time < (repeating ? 2 : 1); time += 1) {
        for (const {attention: a, position, path} of attentionsOf(layer.attention, layer.position, layer.paths.attention)) {
          let field = "", message = "";
          if (a.name === "sparse-latent") {
            if (a.indexer === "own") indexed = true;
            else if (!indexed) [field, message] = ["indexer", `${first ? "the first layer has no previous one" : "no earlier layer has an indexer"}; set indexer: own`];
          }
          first = false;
          if (["multi-head", "grouped-query", "block-sparse", "pooled-sparse"].includes(a.name)) {
            const form = Attentions.form(a, position), source = a.reuse_kv ? sources.get(form) : undefined;
            if (source === undefined) sources.set(form, {index, repeating});
            else if (source.repeating) {
              const whose = source.index === index ? "its own layer" : `layer ${source.index}`;
              field = "reuse_kv";
              message = `reads the keys and values of ${whose}, whose block ${source.repeating.name} computes them several times; remove reuse_kv, or choose another block there`;
            }
          }
          const at = [...path, field];
          if (message && !seen.has(at.join("."))) { seen.add(at.join(".")); yield {path: at, message}; }
        }
      }
    }
  }

  return {problems};
})();
