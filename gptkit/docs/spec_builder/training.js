"use strict";
// Errors of data and training: mixtures, stages, and patterns of parameter names (freezing, groups, adapters).

const Training = (() => {
  let data;
  function configure(tables) { data = tables; }

  const COMMON = ["validation", "windows", "stride", "shuffle", "document_mask"];
  const isObject = value => value !== null && typeof value === "object" && !Array.isArray(value);
  const nameOf = value => typeof value === "string" ? value : isObject(value) ? value.name : undefined;
  const listed = value => Array.isArray(value) ? value : [];
  const field = (training, name) => training[name] ?? data.defs.TrainingSpec[name].default;

  /** Errors of single sections, before the model is resolved. */
  function* sections(given) {
    yield* mixture(given.data);
    const training = given.training || {}, stages = listed(training.stages);
    for (const [index, {mixture: weights}] of stages.entries()) {
      if (isObject(weights) && !Object.values(weights).some(Boolean)) {
        yield {path: ["training", "stages", index, "mixture"], message: "no source has a weight; set one above 0, or remove the mixture"};
      }
    }
    const parts = field(training, "grad_accumulation"), batch = field(training, "batch_size"), steps = field(training, "steps");
    if (batch % parts) yield {path: ["training", "grad_accumulation"], message: `a batch of ${batch} has no ${parts} equal parts; choose a divisor`};
    for (const [index, stage] of stages.entries()) {
      const at = ["training", "stages", index];
      if ((stage.steps ?? null) === null && index < stages.length - 1) {
        yield {path: [...at, "steps"], message: "only the last stage lasts to the end; set the number of steps of this one"};
      }
      if (stage.batch_size && stage.batch_size % parts) {
        yield {path: [...at, "batch_size"], message: `a batch of ${stage.batch_size} has no ${parts} equal parts (training.grad_accumulation); choose a multiple of ${parts}`};
      }
    }
    const total = stages.reduce((sum, stage) => sum + (stage.steps || 0), 0), last = stages.length - 1;
    if (stages.length && (stages[last].steps ?? null) !== null && total < steps) {
      yield {path: ["training", "stages", last, "steps"], message: `the stages end at step ${total}, but the training has ${steps} steps; remove steps of the last stage, so that it lasts to the end`};
    }
    for (const [index, callback] of listed(training.callbacks).entries()) {
      const reason = callbackRefusal(nameOf(callback), training);
      if (reason) yield {path: ["training", "callbacks", index], message: `${reason}; remove one of the two`};
    }
  }

  /** Why a callback cannot be used beside the stages; null if it can. */
  function callbackRefusal(name, training) {
    const staged = listed((training || {}).stages).some(stage => (stage.attention_window ?? null) !== null);
    return name === "window-warmup" && staged ? "attention windows are set by training.stages" : null;
  }

  /** Why a corpus cannot be a source of a mixture; null if it can. */
  function sourceRefusal(name) { return name === "mixture" ? "a mixture cannot be a source; list its sources instead" : null; }

  function* mixture(given) {
    if (nameOf(given) !== "mixture" || !isObject(given)) return;
    const sources = listed(given.sources), set = (source, key) => (source[key] ?? null) !== null;
    for (const [index, source] of sources.entries()) {
      const at = ["data", "sources", index], found = [];
      if (sources.slice(0, index).some(other => other.name === source.name)) found.push([["name"], "two sources have this name; choose another"]);
      if (set(source, "weight") && set(source, "epochs")) found.push([["epochs"], "a source has either a weight or epochs; remove one"]);
      if (set(source, "weight") !== set(sources[0], "weight")) found.push([["weight"], "all sources have weights, or none has"]);
      if (sourceRefusal(nameOf(source.data))) found.push([["data"], sourceRefusal("mixture")]);
      const fields = data.kinds.data[nameOf(source.data)].fields;
      for (const key of COMMON) {
        if (isObject(source.data) && key in source.data && JSON.stringify(source.data[key]) !== JSON.stringify(fields[key].default)) {
          found.push([["data", key], "set it for the mixture instead, whose value applies"]);
        }
      }
      if (!found.length) continue;
      yield {path: [...at, ...found[0][0]], message: found[0][1]};   // as gptkit check, which reports the first
      return;
    }
  }

  /** Errors of stages that depend on the data and on the model's context length. */
  function* stages(given, spec) {
    const training = given.training || {}, window = training.window || spec.model.context_length;
    const sources = isObject(given.data) && given.data.name === "mixture" ? listed(given.data.sources).map(source => source.name) : [];
    for (const [index, stage] of listed(training.stages).entries()) {
      const at = ["training", "stages", index];
      if (stage.window > window) yield {path: [...at, "window"], message: `${stage.window} tokens exceed a data window of ${window}; set it to at most ${window}`};
      if (!isObject(stage.mixture)) continue;
      if (!sources.length) yield {path: [...at, "mixture"], message: "the data has no sources; use data: mixture, or remove it"};
      else for (const name of Object.keys(stage.mixture)) {
        if (!sources.includes(name)) yield {path: [...at, "mixture", name], message: `the data has no such source; sources: ${sources.join(", ")}`};
      }
    }
  }

  /** The number of changes of a character that turn one text into another. */
  function distance(a, b) {
    let row = Array.from({length: b.length + 1}, (_, index) => index);
    for (let i = 1; i <= a.length; i += 1) {
      const next = [i];
      for (let j = 1; j <= b.length; j += 1) next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
      row = next;
    }
    return row[b.length];
  }

  /** Which of the names was probably meant: of parameters and modules, with one name for the same part of all blocks. */
  function suggestion(pattern, names) {
    const known = new Set(names.flatMap(name => {
      const parts = name.replaceAll(/\.\d+(?=\.|$)/g, ".*").split(".");
      return parts.map((_, index) => parts.slice(0, index + 1).join(".")).filter(each => !each.endsWith("*"));
    }));
    const near = [...known].map(name => [distance(pattern, name), name]).sort((a, b) => a[0] - b[0]).slice(0, 3).map(each => each[1]);
    return near.length ? `; similar: ${near.join(", ")}` : "";
  }

  const patternsOf = group => typeof group.match === "string" ? [group.match] : listed(group.match);

  /** Errors of names; `known` is what Parameters.names returns. */
  function* named(given, spec, known) {
    const training = given.training || {}, {parameters, projections, stacked, losses} = known;
    const plain = pattern => pattern.replace(/^!/, ""), some = pattern => parameters.some(name => Names.matches(name, pattern));
    const unmatched = pattern => `${JSON.stringify(pattern)} matches no parameter of the model${suggestion(pattern, parameters)}`;
    const patterns = Array.isArray(training.freeze) ? training.freeze : null, adapters = parameters.filter(name => /\.lora_[ab]$/.test(name));
    let frozen = new Set(patterns === null && adapters.length ? parameters.filter(name => !adapters.includes(name)) : []), wrong = false;
    for (const [index, pattern] of (patterns || []).entries()) {
      if (!some(plain(pattern))) { wrong = true; yield {path: ["training", "freeze", index], message: unmatched(plain(pattern))}; }
      for (const name of parameters) {
        if (Names.matches(name, plain(pattern))) { if (pattern.startsWith("!")) frozen.delete(name); else frozen.add(name); }
      }
    }
    if (patterns && patterns.length && !wrong && frozen.size === parameters.length) {
      yield {path: ["training", "freeze"], message: "every parameter is frozen; add !PATTERN at the end to make some trainable"};
    }
    for (const [index, stage] of listed(training.stages).entries()) {
      for (const [name, value] of Object.entries(stage.losses || {})) {
        const path = ["training", "stages", index, "losses", name];
        if (!losses.has(name)) yield {path, message: `unknown term of the training loss; terms: ${[...losses.keys()].join(", ")}`};
        else if (value >= losses.get(name)) yield {path, message: `must be below ${losses.get(name)}`};
      }
    }
    const optimizer = training.optimizer, groups = isObject(optimizer) ? listed(optimizer.groups) : [];
    const trained = parameters.filter(name => !frozen.has(name)), covers = (group, name) => patternsOf(group).some(pattern => Names.matches(name, pattern));
    const used = new Set(trained.map(name => groups.findIndex(group => covers(group, name))));
    for (const [index, group] of groups.entries()) {
      const path = ["training", "optimizer", "groups", index, "match"], missing = patternsOf(group).map((pattern, at) => [pattern, at]).filter(([pattern]) => !some(pattern));
      for (const [pattern, at] of missing) yield {path: [...path, at], message: unmatched(pattern)};
      if (!missing.length && !used.has(index)) {
        const why = trained.some(name => covers(group, name)) ? "belong to earlier groups; move this one before them" : "are frozen (training.freeze)";
        yield {path, message: `all parameters that it matches ${why}`};
      }
    }
    yield* adapted(spec, projections, stacked);
  }

  function* adapted(spec, projections, stacked) {
    const parts = spec.entries.map(layer => [layer.linear, layer.paths.linear]), seen = new Set();
    if (spec.entries.length === 1 && spec.model.head.linear) parts.push([spec.model.head.linear, ["model", "head", "linear"]]);
    for (const [linear, path] of parts) {
      const key = JSON.stringify(linear);
      if (linear.name !== "low-rank" || seen.has(key)) continue;
      seen.add(key);
      for (const [index, pattern] of linear.projections.entries()) {
        const covered = stacked.find(name => Names.matches(name, pattern)), at = [...path, "projections", index];
        if (covered) yield {path: at, message: `${JSON.stringify(pattern)} matches ${covered}, but stacked experts cannot have adapters; name other projections, such as blocks.*.attention`};
        else if (!projections.some(name => Names.matches(name, pattern))) {
          yield {path: at, message: `${JSON.stringify(pattern)} matches no projection of the model${suggestion(pattern, projections)}`};
        }
      }
    }
  }

  /** Whether a spec refers to names of the model. */
  function refersToNames(given, spec) {
    const training = given.training || {}, optimizer = training.optimizer;
    return listed(training.freeze).length > 0 || (isObject(optimizer) && listed(optimizer.groups).length > 0) ||
      listed(training.stages).some(stage => Object.keys(stage.losses || {}).length) ||
      [...spec.entries.map(layer => layer.linear), spec.model.head.linear].some(linear => linear && linear.name === "low-rank");
  }

  /** Errors that depend on the resolved spec. */
  function* whole(given, spec) {
    yield* stages(given, spec);
    if (!refersToNames(given, spec)) return;
    const known = Parameters.names(spec);
    if (known) yield* named(given, spec, known);
  }

  return {configure, sections, whole, callbackRefusal, sourceRefusal};
})();
