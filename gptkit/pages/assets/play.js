// The page of `gptkit play`.
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
main.classList.add("play");
const forms = Object.fromEntries(data.samplers.map(each => [each.name, each]));
const ENDS = {length: "maximum length reached", stop: "a stop token ended it", end: "the model ended it",
  interrupted: "stopped", error: "ended by an error"};

let chain = structuredClone(data.chain);      // [{name, field: value, …}]
let tokens = [];                              // [{id, text, kind: prompt | drawn | forced | ended, trace}]
let past = [];                                // earlier states of `tokens`, for undo
let running = null;                           // AbortController of the current generation
let chosen = -1;

// Parts of the page --------------------------------------------------------------------------------------------------------
const prompt = el("textarea", {id: "prompt", "aria-label": "Prompt", placeholder: "Write the beginning of a text …", spellcheck: "false",
  onkeydown: event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); begin(); } }});
const chat = el("input", {type: "checkbox", id: "chat"});
const start = el("button", {class: "primary", id: "generate", title: "Ctrl+Enter", onclick: begin}, "Generate");
const stop = el("button", {id: "stop", hidden: true, onclick: halt}, "Stop");
const more = el("button", {id: "continue", disabled: true, onclick: () => send({ids: tokens.filter(each => each.kind !== "ended").map(each => each.id)}, true)}, "Continue");
const undo = el("button", {id: "undo", class: "quiet", disabled: true, onclick: back}, "Undo");
const copy = el("button", {id: "copy", class: "quiet", disabled: true, onclick: copyText}, "Copy");
const status = el("span", {class: "status", role: "status"});
const message = el("div", {class: "message", role: "alert", hidden: true});
const placeholder = el("span", {class: "placeholder"}, "The text appears here, token by token. Click a token to see what might have been drawn instead.");
const text = runningText([], "Text, colored by probability", choose);
text.node.append(placeholder);
const detail = el("section", {class: "card", id: "token", hidden: true, "aria-live": "polite"});
const hover = el("div", {class: "hover", hidden: true});
const length = el("input", {type: "number", id: "length", min: "1", max: String(data.most_tokens), value: "120"});
const seed = el("input", {type: "number", id: "seed", min: "0", placeholder: "random"});
const list = el("ol", {class: "chain", "aria-label": "Chain of samplers"});
const choice = el("select", {id: "add", "aria-label": "Sampler to add"}, data.samplers.map(each => el("option", {value: each.name, title: each.summary}, each.name)));

main.append(
  el("p", {class: "brand"}, "gptkit play"), el("h1", {}, data.model),
  el("p", {class: "note"}, `${data.parameters} parameters · context ${count(data.context_length)} tokens · step ${count(data.step)}`),
  el("div", {class: "workbench"},
    el("div", {},
      el("section", {class: "card"}, prompt,
        el("div", {class: "actions"}, start, stop,
          data.chat ? el("label", {class: "check"}, chat, "chat template") : null, status)),
      message,
      el("section", {class: "card"},
        el("header", {}, el("h2", {}, "Text"), el("div", {class: "controls"},
          el("span", {class: "legend"}, "certain", el("i", {class: "heat"}), "unlikely draw"), more, undo, copy)),
        text.node),
      detail),
    el("aside", {}, el("section", {class: "card"},
      el("header", {}, el("h2", {}, "Sampling"), el("button", {class: "quiet", id: "reset", onclick: () => { chain = structuredClone(data.chain); drawChain(); }}, "Reset")),
      el("div", {class: "settings"}, field("Maximum tokens", length), field("Seed", seed)),
      list,
      el("div", {class: "controls"}, choice, el("button", {id: "add-sampler", onclick: add}, "Add"))))),
  hover);

function field(name, input, remark) {
  return el("label", {class: "field", title: remark}, el("span", {}, name), input);
}

// The chain of samplers -----------------------------------------------------------------------------------------------------
function drawChain(focus) {
  list.replaceChildren();
  if (!chain.length) list.append(el("li", {class: "note"}, "No sampler: tokens are drawn from the model's distribution."));
  chain.forEach((sampler, index) => {
    const form = forms[sampler.name];
    const button = (name, sign, action, off) => el("button", {class: "quiet", "aria-label": `${name} ${sampler.name}`, title: name,
      disabled: off, "data-action": `${name} ${index}`, onclick: action}, sign);
    list.append(el("li", {class: "sampler", "data-name": sampler.name},
      el("header", {}, el("b", {}, sampler.name),
        button("move up", "↑", () => move(index, -1), index === 0), button("move down", "↓", () => move(index, 1), index === chain.length - 1),
        button("remove", "✕", () => { chain.splice(index, 1); drawChain(); })),
      form ? el("p", {class: "note"}, form.summary) : null,
      el("div", {class: "fields"}, form ? form.fields.map(each => input(sampler, each)) : null)));
  });
  const target = focus && list.querySelector(`[data-action="${focus}"]`);
  if (target) (target.disabled ? list.querySelector(`[data-action$=" ${focus.split(" ").pop()}"]:not(:disabled)`) : target).focus();
}
function move(index, by) {
  [chain[index], chain[index + by]] = [chain[index + by], chain[index]];
  drawChain(`move ${by < 0 ? "up" : "down"} ${index + by}`);
}
function add() {
  const form = forms[choice.value], sampler = {name: form.name};
  for (const each of form.fields) if (each.default !== undefined) sampler[each.name] = each.default;
  chain.push(sampler);
  drawChain();
  const added = list.lastElementChild.querySelector("input, select, textarea");
  (added || list.lastElementChild.querySelector("button")).focus();
}

/** The input of one field, made from its schema. Its value is set in the sampler while it is typed. */
function input(sampler, form) {
  const value = sampler[form.name], name = form.name.replace(/_/g, " ");
  const set = (each, node) => { node.removeAttribute("aria-invalid"); sampler[form.name] = each; };
  if (form.type === "boolean") {
    return el("label", {class: "check", title: form.description},
      el("input", {type: "checkbox", checked: value === true, "data-field": form.name, onchange: event => set(event.target.checked, event.target)}), name);
  }
  if (form.type === "choice") {
    return field(name, el("select", {"data-field": form.name, onchange: event => set(event.target.value, event.target)},
      form.choices.map(each => el("option", {value: each, selected: each === value}, each))), form.description);
  }
  if (form.type === "number" || form.type === "integer") {
    const step = form.type === "integer" ? "1" : "any", bounds = {min: form.minimum, max: form.maximum};
    const parse = typed => typed.trim() === "" ? (form.nullable ? null : undefined) : Number(typed);
    const box = el("input", {type: "number", step, ...bounds, value: value === null || value === undefined ? "" : String(value),
      placeholder: form.nullable ? "none" : "", "data-field": form.name, "aria-label": `${sampler.name} ${name}`, oninput: event => {
        const typed = parse(event.target.value);
        if (typed === undefined || Number.isNaN(typed)) { event.target.setAttribute("aria-invalid", "true"); delete sampler[form.name]; return; }
        set(typed, event.target);
        if (slider) slider.value = String(typed);
      }});
    const small = form.type === "number" && form.minimum !== undefined && form.maximum !== undefined && form.maximum - form.minimum <= 2;
    const slider = small ? el("input", {type: "range", min: form.minimum, max: form.maximum, step: "0.01", value: String(value),
      "aria-label": `${sampler.name} ${name}, slider`, oninput: event => { box.value = event.target.value; set(Number(event.target.value), box); }}) : null;
    return field(name, slider ? el("span", {class: "pair"}, slider, box) : box, form.description);
  }
  const json = form.type === "json";
  return field(name + (json ? " (JSON)" : ""), el("input", {type: "text", "data-field": form.name, spellcheck: "false",
    value: value === undefined ? "" : json ? JSON.stringify(value) : String(value), oninput: event => {
      if (!json) { set(event.target.value, event.target); return; }
      try { set(JSON.parse(event.target.value), event.target); } catch { event.target.setAttribute("aria-invalid", "true"); }
    }}), form.description);
}

// Generating ------------------------------------------------------------------------------------------------------------------
function begin() { send(data.chat && chat.checked ? {chat: prompt.value} : {prompt: prompt.value}, false); }
function halt() { if (running) running.abort(); }

/** Ask the server to continue a prompt, or the tokens that are there (with `keep`). */
async function send(beginning, keep) {
  halt();
  const control = running = new AbortController();
  if (tokens.length) past.push(tokens.slice());
  message.hidden = true;
  if (keep) tokens = tokens.filter(each => each.kind !== "ended"); else tokens = [];
  drawText();
  refresh();
  status.textContent = "reading the prompt …";
  text.node.classList.add("caret");
  const began = performance.now();
  let first = 0, n = 0;
  try {
    const body = {...beginning, sampler: chain, max_new_tokens: Number(length.value) || 1, seed: seed.value === "" ? null : Number(seed.value)};
    const response = await fetch("generate", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body), signal: control.signal});
    if (!response.ok) throw await response.json();
    for await (const event of events(response.body)) {
      if (running !== control) return;
      if (event.error) throw event.error;
      if (event.prompt && !keep) event.prompt.forEach(each => append({...each, kind: "prompt"}));
      if (event.tokens) {
        first = first || performance.now();
        event.tokens.forEach(trace => append({id: trace.id, text: trace.text, kind: "drawn", trace}));
        n += event.tokens.length;
        const seconds = (performance.now() - first) / 1000;
        status.textContent = `${count(n)} tokens` + (n > 1 && seconds > .2 ? `, ${((n - 1) / seconds).toFixed(0)} tokens/s` : "");
      }
      if (event.finish) {
        if (event.ended) mark();
        status.textContent += `, seed ${event.seed}, ${ENDS[event.finish]}`;
      }
    }
  } catch (error) {
    if (running !== control) return;
    if (error.name === "AbortError") status.textContent += `${n ? ", " : ""}stopped`;
    else {
      status.textContent = "";
      message.textContent = error.message && error.hint ? `${error.message}\n${error.hint}` : error.message || String(error);
      message.hidden = false;
      if (error instanceof TypeError) message.textContent = "The server does not answer. Is gptkit play still running?";
    }
  }
  running = null;
  text.node.classList.remove("caret");
  refresh();
}

/** The events of a response, one JSON object each. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) yield JSON.parse(part.replace(/^data: /, ""));
  }
}

// The text -----------------------------------------------------------------------------------------------------------------
function shownToken(token) {
  return {text: token.text, prompt: token.kind === "prompt", kind: token.kind === "prompt" ? "" : token.kind};
}
function append(token) {
  tokens.push(token);
  placeholder.remove();
  const atEnd = text.node.scrollTop + text.node.clientHeight >= text.node.scrollHeight - 30;
  text.add(shownToken(token));
  if (token.trace) {
    text.paint(tokens.length - 1, token.kind === "forced" ? 0 : doubt(token.trace));
    const span = text.spans[tokens.length - 1];
    span.addEventListener("mouseenter", () => preview(token, span));
    span.addEventListener("mouseleave", () => { hover.hidden = true; });
  }
  if (atEnd) text.node.scrollTop = text.node.scrollHeight;
}
/** The last token ended the text, and is not a part of it. */
function mark() {
  tokens[tokens.length - 1].kind = "ended";
  const span = text.spans[tokens.length - 1];
  span.classList.add("ended");
  span.setAttribute("aria-label", span.getAttribute("aria-label") + ", ended the text");
}
function drawText() {
  const list = tokens;
  text.cut(0);
  tokens = [];
  list.forEach(append);
  if (!tokens.length) text.node.append(placeholder);
  choose(-1);
}
function refresh() {
  const busy = running !== null;
  stop.hidden = !busy;
  start.textContent = busy ? "Restart" : "Generate";
  more.disabled = busy || !tokens.length;
  undo.disabled = busy || !past.length;
  copy.disabled = !tokens.length;
}
function back() {
  tokens = past.pop();
  drawText();
  status.textContent = "";
  message.hidden = true;
  refresh();
}
async function copyText() {
  const whole = tokens.filter(each => each.kind !== "ended").map(each => each.text).join("");
  await navigator.clipboard.writeText(whole);
  status.textContent = "copied";
}
function preview(token, span) {
  const last = token.trace.steps.length - 1;
  const p = index => last < 0 ? token.trace.candidates[index].probability : token.trace.steps[last].after[index];
  const best = token.trace.candidates.map((candidate, index) => [candidate, p(index)]).filter(each => each[1] !== null)
    .sort((one, other) => other[1] - one[1]).slice(0, 5);
  hover.replaceChildren(el("table", {class: "bars"}, el("tbody", {}, best.map(([candidate, value]) =>
    el("tr", {class: candidate.id === token.id ? "chosen" : ""}, el("th", {scope: "row"}, el("span", {class: "label"}, label(candidate.text))),
      el("td", {style: {width: "60%"}}, bar(value, candidate.id === token.id ? "next" : "")))))));
  hover.hidden = false;
  const box = span.getClientRects()[0], height = hover.offsetHeight;
  hover.style.left = Math.max(8, Math.min(innerWidth - 238, box.left)) + "px";
  hover.style.top = (box.bottom + height + 12 > innerHeight ? box.top - height - 6 : box.bottom + 6) + "px";
}
function choose(index) {
  chosen = index;
  text.select(index);
  hover.hidden = true;
  const token = tokens[index];
  detail.hidden = !token || !token.trace;
  if (detail.hidden) return;
  detail.replaceChildren(el("header", {}, el("h2", {}, token.kind === "forced" ? "Chosen by you  " : token.kind === "ended" ? "Ended the text  " : "Token  ",
    el("span", {class: "label"}, label(token.text))), el("span", {class: "note"}, "Click a candidate to continue the text with it.")),
    el("p", {class: "note", style: {"margin-bottom": "10px"}}, tokenFacts(token.trace)), chainTable(token.trace, candidate => branch(index, candidate)));
}
/** Replace a token by another candidate, and continue from there. */
function branch(index, candidate) {
  halt();
  past.push(tokens.slice());
  const before = tokens.slice(0, index).filter(each => each.kind !== "ended"), trace = {...tokens[index].trace, id: candidate.id, text: candidate.text};
  const last = trace.steps.length - 1, at = trace.candidates.findIndex(each => each.id === candidate.id);
  trace.probability = candidate.probability;
  trace.rank = trace.candidates.filter(each => each.probability > candidate.probability).length;
  trace.drawn_with = (last < 0 ? candidate.probability : trace.steps[last].after[at]) || 0;
  tokens = [...before, {id: candidate.id, text: candidate.text, kind: "forced", trace}];
  drawText();
  const kept = past;
  send({ids: tokens.map(each => each.id)}, true);
  past = kept.slice(0, -1);  // one step back is the text before this choice
  refresh();
}

drawChain();
refresh();
prompt.focus();
