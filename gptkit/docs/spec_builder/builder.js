"use strict";
// The spec builder: a form at the left, the diagram, errors, sizes and text of the spec beside it.

(() => {
  const {el} = Form, data = window.gptkitBuilderData, root = document.getElementById("gptkit-builder");
  if (!root || !data) return;
  for (const each of [Outline, Resolve, Names, Training, Check]) each.configure(data);

  const TITLES = {sizes: "Model", parts: "Parts of the model", tokens: "Tokenizer and generation", training: "Data and training"};
  const SIZES = ["context_length", "d_model", "n_layers", "vocab_size"];
  const MAIN = ["embedding", "position", "attention", "norm", "feedforward", "block", "head", "layers"];
  const state = {data: start(), open: new Set(["group.sizes", "group.parts"]), errors: [], changed, mark, reason};
  Form.configure(data, state);

  /** The data of a new spec: a small model with its sizes written out. */
  function start() { return {gptkit: 1, name: "my-model", model: {context_length: 256, d_model: 256, n_layers: 6}}; }

  /** Why a component cannot be chosen at a path; null if it can. */
  function reason(kind, name, path) {
    if (kind === "callback" && path[0] === "training") return Training.callbackRefusal(name, state.data.training);
    if (kind === "data" && path.length > 1) return Training.sourceRefusal(name);
    if (path[0] !== "model" || path.includes("head")) return null;
    const spec = state.spec, part = path[path.length - 1], index = path[1] === "layers" ? path[2] : null;
    if (!spec || (part !== kind && !(part === "attention_backend"))) return null;
    const layer = index === null ? {position: spec.model.position, attention: spec.model.attention} : spec.entries[index] || spec.entries[0];
    if (kind === "position") {
      if (index !== null && data.kinds.position[name].uses.includes("embed") && name !== spec.model.position.name) return "it is added to the embeddings, so it is set for the whole model";
      return Check.refusal(name, layer.attention.name);
    }
    if (kind === "attention") return Check.refusal(layer.position.name, name);
    if (kind === "attention-backend") {
      const limit = Check.limitation(name, layer);
      return limit && `cannot compute ${limit}`;
    }
    return null;
  }

  const form = el("form", {class: "sb-form", onsubmit: event => event.preventDefault(), "aria-label": "Spec"});
  const status = el("p", {class: "sb-status", role: "status"});
  const errors = el("ul", {class: "sb-errors"});
  const drawing = el("div", {class: "sb-drawing"});
  const text = el("pre", {class: "sb-yaml", tabindex: "0", "aria-label": "Spec as YAML"});
  const note = el("span", {class: "sb-note", role: "status"});
  const presets = el("select", {id: "sb-preset", onchange: event => { if (event.target.value) load(event.target.value); }},
    el("option", {value: ""}, "Start from a preset …"), groups());

  function groups() {
    const names = new Map();
    for (const [name, preset] of Object.entries(data.presets)) names.set(preset.group, [...(names.get(preset.group) || []), name]);
    return [...names].map(([group, members]) => el("optgroup", {label: group}, members.map(name => el("option", {value: name}, name))));
  }

  function load(name) {
    state.data = structuredClone(data.presets[name].spec);
    delete state.data.$schema;
    changed(true);
  }

  function section(key, content) {
    const node = Form.details(["group", key], TITLES[key], content);
    node.classList.add("sb-group");
    return node;
  }

  const pick = (definitions, names) => Object.fromEntries(names.filter(name => name in definitions).map(name => [name, definitions[name]]));

  function drawForm() {
    const focused = document.activeElement && document.activeElement.id, others = Object.keys(data.model).filter(name => !SIZES.includes(name) && !MAIN.includes(name));
    form.replaceChildren(
      section("sizes", () => [...Form.fields(pick(data.root, ["name"]), []), ...Form.fields(pick(data.model, SIZES), ["model"])]),
      section("parts", () => [...Form.fields(pick(data.model, MAIN), ["model"]), Form.details(["group", "more"], "Further parts", () => Form.fields(pick(data.model, others), ["model"]))]),
      section("tokens", () => Form.fields(pick(data.root, ["tokenizer", "sampler", "decoding"]), [])),
      section("training", () => [...Form.fields(pick(data.root, ["data"]), []), ...Form.fields(data.defs.TrainingSpec, ["training"])]),
    );
    if (focused && document.getElementById(focused)) document.getElementById(focused).focus({preventScroll: true});
  }

  /** Show the result of the data; `redraw` the form too, if other fields may have appeared. */
  function changed(redraw) {
    const {errors: found, spec} = Check.check(state.data);
    state.errors = found;
    if (spec) state.spec = spec;
    if (redraw) drawForm();
    const counts = spec && !found.length ? Parameters.counts(spec) : null;
    if (spec) { drawing.innerHTML = Diagram.svg(Outline.outline(spec, counts)); }
    drawing.classList.toggle("sb-stale", !spec);
    const size = counts ? `${counts.total.toLocaleString("en-US")} parameters` : found.length ? "parameters: –" : "parameters: unknown here";
    status.replaceChildren(el("strong", {id: "sb-count"}, size),
      el("span", {class: found.length ? "sb-bad" : "sb-good", id: "sb-verdict"}, found.length ? `${found.length} error${found.length > 1 ? "s" : ""}` : "no errors"));
    status.title = counts || found.length ? "" : "A plugin's component, or a vocabulary that depends on the corpus; run gptkit show";
    errors.replaceChildren(...found.map(error => el("li", {}, el("button", {type: "button", onclick: () => reveal(error.path)},
      el("code", {}, error.path.join(".")), " ", error.message))));
    text.textContent = Yaml.text(state.data);
    mark();
    const packed = btoa(String.fromCharCode(...new TextEncoder().encode(JSON.stringify(state.data)))).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
    history.replaceState(null, "", "#" + packed);
  }

  /** Mark the controls of the paths that have errors. */
  function mark() {
    const paths = new Set(state.errors.map(error => error.path.join(".")));
    for (const control of form.querySelectorAll("[data-path]")) {
      if (paths.has(control.dataset.path)) control.setAttribute("aria-invalid", "true"); else control.removeAttribute("aria-invalid");
    }
  }

  /** Open the parts that contain a field, and focus it. */
  function reveal(path) {
    const group = path[0] === "model" ? (SIZES.includes(path[1]) ? "sizes" : "parts") : path[0] === "training" || path[0] === "data" ? "training" : path[0] === "name" ? "sizes" : "tokens";
    state.open.add(`group.${group}`);
    if (path[0] === "model" && ![...SIZES, ...MAIN].includes(path[1])) state.open.add("group.more");
    for (let length = 1; length < path.length; length += 1) state.open.add(path.slice(0, length).join("."));
    changed(true);
    for (let length = path.length; length; length -= 1) {
      const control = document.getElementById(Form.idOf(path.slice(0, length)));
      if (control) { control.focus(); control.scrollIntoView({block: "center"}); return; }
    }
  }

  async function copy(value, done) {
    try { await navigator.clipboard.writeText(value); note.textContent = done; }
    catch { note.textContent = "The browser refused to copy."; }
  }

  function download(name, type, content) {
    const link = el("a", {href: URL.createObjectURL(new Blob([content], {type})), download: name});
    link.click();
    URL.revokeObjectURL(link.href);
  }

  /** Set the data from the address: a packed spec, or `preset=NAME`. */
  function fromHash() {
    const hash = location.hash.slice(1), preset = hash.startsWith("preset=") ? decodeURIComponent(hash.slice(7)) : null;
    if (preset && data.presets[preset]) { presets.value = preset; state.data = structuredClone(data.presets[preset].spec); return; }
    if (!hash || preset) return;
    try {
      const bytes = Uint8Array.from(atob(hash.replaceAll("-", "+").replaceAll("_", "/")), char => char.charCodeAt(0));
      const value = JSON.parse(new TextDecoder().decode(bytes));
      if (value && typeof value === "object" && !Array.isArray(value)) state.data = value;
    } catch { note.textContent = "The address does not contain a spec."; }
  }

  const button = (label, action, id) => el("button", {type: "button", onclick: action, id}, label);
  const fileName = () => `${String(state.data.name || "spec").replace(/[^\w.-]+/g, "-")}`;
  const side = el("div", {class: "sb-side"}, status, errors,
    el("div", {class: "sb-buttons"},
      button("Copy YAML", () => copy(Yaml.text(state.data), "YAML copied."), "sb-copy"),
      button("Download YAML", () => download(fileName() + ".yaml", "text/yaml", Yaml.text(state.data)), "sb-download"),
      button("Copy link", () => copy(location.href, "Link copied.")),
      button("Download SVG", () => { if (state.spec) download(fileName() + ".svg", "image/svg+xml", Diagram.svg(Outline.outline(state.spec, Parameters.counts(state.spec)), true)); }),
      note),
    el("details", {class: "sb-text", open: true}, el("summary", {}, "YAML"), text), drawing);
  const top = el("div", {class: "sb-top"}, el("label", {for: "sb-preset", class: "sb-hidden"}, "Start from a preset"), presets,
    button("New spec", () => { state.data = start(); presets.value = ""; changed(true); }));
  root.replaceChildren(top, el("div", {class: "sb-columns"}, form, side));
  fromHash();
  changed(true);
  window.addEventListener("hashchange", () => { fromHash(); changed(true); });
})();
