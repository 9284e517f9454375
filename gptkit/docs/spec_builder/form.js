"use strict";
// A form for a spec, drawn from the fields of the JSON Schema. Values are changed in the data of the file itself, in which a
// field that has its default is absent.

const Form = (() => {
  let data, store;
  const mappings = new Set();   // paths of lists of mappings, whose `name` is not that of a component
  const isObject = value => value !== null && typeof value === "object" && !Array.isArray(value);

  /** Create an element; properties that begin with "on" are listeners, the rest are attributes. */
  function el(tag, properties, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter(child => child !== null && child !== undefined));
    return node;
  }

  function get(path) { return path.reduce((value, key) => value === undefined || value === null ? undefined : value[key], store.data); }

  /** Set or (with undefined) remove a value; a mapping that becomes empty is removed with it. */
  function set(path, value) {
    const key = path[path.length - 1], holders = [store.data];
    for (const [index, part] of path.slice(0, -1).entries()) {
      const holder = holders[holders.length - 1];
      if (typeof holder[part] === "string") holder[part] = {name: holder[part]};
      if (!isObject(holder[part]) && !Array.isArray(holder[part])) holder[part] = typeof path[index + 1] === "number" ? [] : {};
      holders.push(holder[part]);
    }
    const last = holders[holders.length - 1];
    if (value !== undefined) last[key] = value;
    else if (Array.isArray(last)) last.splice(key, 1);
    else delete last[key];
    for (let depth = path.length - 2; depth >= 0; depth -= 1) {
      const inner = holders[depth + 1], outer = holders[depth], name = path[depth];
      if (isObject(inner) && !Object.keys(inner).length && name !== "model" && !Array.isArray(outer)) delete outer[name];
      else if (isObject(inner) && Object.keys(inner).length === 1 && typeof inner.name === "string" && depth > 0 && !mappings.has(path.slice(0, depth).join("."))) outer[name] = inner.name;
    }
  }

  const idOf = path => "field-" + path.join("-");
  const said = text => (text || "").replaceAll("`", "");
  const words = name => name.replaceAll("_", " ");
  const textsOf = value => Array.isArray(value) && value.length && value.every(each => typeof each === "string" && !/[",[{]/.test(each)) ? value.join(", ") : null;
  const shown = value => textsOf(value) !== null ? textsOf(value) : value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);

  /** The options of a field with a fixed set of values; null if it has none. */
  function options(field) {
    const parts = field.anyOf || [field];
    if (parts.some(part => part.type === "boolean")) return [true, false];
    const values = parts.flatMap(part => part.enum || (part.const !== undefined ? [part.const] : []));
    return values.length && parts.every(part => part.enum || part.const !== undefined || part.type === "null") ? values : null;
  }

  const accepts = (field, type) => (field.anyOf || [field]).some(part => part.type === type);

  const holdsTexts = field => (field.anyOf || [field]).some(part => part.type === "array" && part.items && part.items.type === "string");

  /** The value of a text field: undefined for the default, numbers where the field takes them, else the text. */
  function parsed(field, text) {
    const plain = text.trim();
    if (plain === "") return undefined;
    if (accepts(field, "integer") || accepts(field, "number")) {
      const number = Number(plain.replaceAll(/[_,](?=\d{3})/g, ""));
      if (Number.isFinite(number)) return number;
    }
    const bare = !/^[[{]/.test(plain);
    if (bare && accepts(field, "string") && !(holdsTexts(field) && plain.includes(","))) return text;
    if (bare && holdsTexts(field)) return plain.split(",").map(each => each.trim()).filter(Boolean);
    try { return JSON.parse(plain); } catch { return text; }
  }

  function row(field, name, path, control, extra) {
    const id = idOf(path);
    control.id = id;
    control.dataset.path = path.join(".");
    control.setAttribute("aria-describedby", id + "-help");
    return el("div", {class: "sb-row"}, el("label", {for: id}, words(name), field.required ? " *" : ""), control,
      el("p", {class: "sb-help", id: id + "-help"}, said(field.description)), extra);
  }

  function selectOf(values, current, fallback, change) {
    const select = el("select", {onchange: event => change(event.target.value === "" ? undefined : JSON.parse(event.target.value))});
    select.append(el("option", {value: ""}, fallback));
    for (const value of values) {
      select.append(el("option", {value: JSON.stringify(value), selected: JSON.stringify(value) === JSON.stringify(current)}, String(value)));
    }
    return select;
  }

  function plainField(name, field, path) {
    const value = get(path), fixed = options(field), fallback = field.default === undefined ? "" : shown(field.default);
    if (fixed) {
      const control = selectOf(fixed, value, fallback === "" ? "default" : `${fallback} (default)`, each => { set(path, each); store.changed(); });
      return row(field, name, path, control);
    }
    const control = el("input", {
      type: "text", value: shown(value), placeholder: fallback || (field.required ? "required" : "default"), autocomplete: "off", spellcheck: "false",
      inputmode: accepts(field, "integer") || accepts(field, "number") ? "decimal" : undefined,
      oninput: event => { set(path, parsed(field, event.target.value)); store.changed(); },
    });
    return row(field, name, path, control);
  }

  function nameOf(field, value) {
    if (typeof value === "string") return value;
    if (isObject(value) && value.name) return value.name;
    return typeof field.default === "string" ? field.default : isObject(field.default) ? field.default.name : null;
  }

  /** A field that takes a component: its name, and below it the component's own fields. */
  function componentField(name, field, path, {inherited = false, remove = null} = {}) {
    const value = get(path), own = inherited && isObject(value) && !value.name && store.spec ? store.spec.model[name].name : null;
    const chosen = own || (value === null || (value === undefined && inherited) ? null : nameOf(field, value));
    const none = value === null || (chosen === null && !inherited);
    const select = el("select", {onchange: event => {
      const wanted = event.target.value;
      set(path, wanted === "" ? undefined : wanted === "null" ? null : wanted);
      store.changed(true);
    }});
    const fallback = field.default === undefined ? null : nameOf(field, field.default);
    if (!remove) {
      const text = inherited ? "as in the model" : fallback ? `${fallback} (default)` : field.required ? "choose one" : "none (default)";
      select.append(el("option", {value: "", selected: value === undefined}, text));
      if (field.nullable && inherited === false && path[1] === "final_norm") select.append(el("option", {value: "null", selected: value === null}, "none"));
    }
    for (const each of Object.keys(data.kinds[field.kind])) {
      const reason = store.reason(field.kind, each, path);
      const current = value !== undefined && chosen === each;
      select.append(el("option", {value: each, selected: current, disabled: reason !== null && !current, title: reason},
        reason && !current ? `${each} – ${reason}` : each));
    }
    const extra = [];
    const entry = chosen === null ? null : data.kinds[field.kind][chosen];
    if (entry && !none) {
      const inner = Object.entries(entry.fields).filter(([key]) => key !== "name");
      if (entry.summary) extra.push(el("p", {class: "sb-summary"}, said(entry.summary)));
      if (inner.length) extra.push(details(path, `${inner.length} field${inner.length > 1 ? "s" : ""} of ${chosen}`, () => fields(Object.fromEntries(inner), path)));
    }
    if (remove) extra.push(el("button", {type: "button", class: "sb-remove", onclick: remove}, `Remove ${name}`));
    const held = row(field, name, path, select, extra);
    held.classList.add("sb-component");
    return held;
  }

  /** A part that is drawn when it is opened, and stays open when the form is drawn again. */
  function details(path, title, content) {
    const key = path.join("."), node = el("details", {open: store.open.has(key)}, el("summary", {}, title));
    const fill = () => { if (node.children.length === 1) node.append(el("div", {class: "sb-inner"}, content())); };
    if (store.open.has(key)) fill();
    node.addEventListener("toggle", () => {
      if (node.open) { store.open.add(key); fill(); store.mark(); } else store.open.delete(key);
    });
    return node;
  }

  function listField(name, field, path) {
    const value = get(path), items = Array.isArray(value) ? value : field.default || [];
    const write = list => { set(path, list); store.changed(true); };
    const rows = items.map((_, index) => {
      if (!Array.isArray(value)) return null;
      return componentField(`${words(name)} ${index + 1}`, {kind: field.kind}, [...path, index], {remove: () => write(items.filter((__, at) => at !== index))});
    });
    if (!Array.isArray(value)) rows.push(el("p", {class: "sb-summary"}, `Default: ${items.map(each => each.name || each).join(", ") || "empty"}`));
    const first = Object.keys(data.kinds[field.kind])[0];
    const buttons = el("div", {class: "sb-buttons"},
      el("button", {type: "button", id: idOf(path), onclick: () => write([...items, first])}, `Add ${field.kind}`),
      Array.isArray(value) ? el("button", {type: "button", onclick: () => { set(path, undefined); store.changed(true); }}, "Use the default") : null);
    return el("div", {class: "sb-wide"}, el("span", {class: "sb-label"}, words(name)), el("p", {class: "sb-help"}, said(field.description)), rows, buttons);
  }

  /** The pattern of layers: entries that override the parts of the model. */
  function layersField(path) {
    const entries = get(path) || [], definition = data.defs.LayerSpec;
    const write = list => { set(path, list.length ? list : undefined); store.changed(true); };
    const rows = entries.map((entry, index) => el("fieldset", {class: "sb-entry"}, el("legend", {}, `Entry ${index + 1}`),
      plainField("repeat", definition.repeat, [...path, index, "repeat"]),
      Object.entries(definition).filter(([, field]) => field.kind).map(([part, field]) => componentField(part, field, [...path, index, part], {inherited: true})),
      el("button", {type: "button", class: "sb-remove", onclick: () => write(entries.filter((__, at) => at !== index))}, "Remove entry")));
    return el("div", {class: "sb-wide"}, el("span", {class: "sb-label"}, "layers"),
      el("p", {class: "sb-help"}, "Layers that differ: each entry overrides parts of the model for its layers; the pattern is repeated up to n_layers."),
      rows, el("div", {class: "sb-buttons"}, el("button", {type: "button", id: idOf(path), onclick: () => write([...entries, {}])}, "Add entry")));
  }

  /** A list of mappings: stages, sources of a mixture, parameter groups. */
  function mappingsField(name, field, definition, path) {
    const entries = get(path) || [], one = words(name).replace(/s$/, "");
    mappings.add(path.join("."));
    const write = list => { set(path, list.length ? list : undefined); store.changed(true); };
    const rows = entries.map((_, index) => el("fieldset", {class: "sb-entry"}, el("legend", {}, `${one} ${index + 1}`),
      fields(definition, [...path, index]),
      el("button", {type: "button", class: "sb-remove", onclick: () => write(entries.filter((__, at) => at !== index))}, `Remove ${one}`)));
    return el("div", {class: "sb-wide"}, el("span", {class: "sb-label"}, words(name), field.required ? " *" : ""), el("p", {class: "sb-help"}, said(field.description)),
      rows, el("div", {class: "sb-buttons"}, el("button", {type: "button", id: idOf(path), onclick: () => write([...entries, {}])}, `Add ${one}`)));
  }

  /** The controls of several fields, by name. */
  function fields(definitions, path) {
    return Object.entries(definitions).map(([name, field]) => {
      const at = [...path, name];
      if (name === "layers" && path.join(".") === "model") return layersField(at);
      if (field.kind && field.list) return listField(name, field, at);
      if (field.kind) return componentField(name, field, at);
      const items = (field.anyOf || [field]).map(part => part.items && part.items.$ref).find(Boolean);
      const each = items && data.defs[items.replace("#/$defs/", "")];
      if (each) return mappingsField(name, field, each, at);
      const reference = (field.anyOf || [field]).map(part => part.$ref).find(Boolean);
      const definition = reference && data.defs[reference.replace("#/$defs/", "")];
      if (definition) return details(at, words(name), () => [el("p", {class: "sb-help"}, said(field.description)), ...fields(definition, at)]);
      return plainField(name, field, at);
    });
  }

  function configure(tables, state) { data = tables; store = state; }

  return {configure, el, fields, componentField, details, get, set, idOf};
})();
