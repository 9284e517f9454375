// The page of `gptkit inspect`.
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const n = data.tokens.length;
const word = id => data.vocabulary[id];
const shown = index => index < n ? label(word(data.tokens[index])) : "after the text";
const HOT = 12;  // bits at which the color is full
// The most surprising token is chosen first.
const state = {token: Math.max(Math.min(1, n), data.bits.indexOf(Math.max(...data.bits.slice(1)))), depth: data.lens.depths - 1, map: 0, head: 0, columns: 0};

/** What a depth predicts in the place of a token, from the tokens before it; null for the first token. */
function prediction(depth, token) {
  if (token < 1) return null;
  const at = (depth * n + token - 1), top = data.lens.top;
  const next = token < n ? data.lens.next[depth * (n - 1) + token - 1] : null;
  return {ids: data.lens.ids.slice(at * top, at * top + top), p: data.lens.p.slice(at * top, at * top + top),
    kl: data.lens.kl[at], next};
}
const depthName = depth => depth === 0 ? "embedding" : depth === data.lens.depths - 1 ? `layer ${depth - 1} (output)` : `layer ${depth - 1}`;

main.append(
  el("p", {class: "brand"}, "gptkit inspect"),
  el("h1", {}, data.model),
  el("ul", {class: "facts"}, fact(count(n), n === 1 ? "token" : "tokens"), fact(count(data.layers.length), "layers"),
    fact(data.bits_per_token === null ? "–" : data.bits_per_token.toFixed(2), "bits per token"),
    fact(data.bits_per_byte === null ? "–" : data.bits_per_byte.toFixed(3), "bits per byte")));

// Surprise -----------------------------------------------------------------------------------------------------------
const surprise = runningText(data.tokens.map((id, index) => ({text: word(id),
  title: data.bits[index] === null ? "first token" : bits(data.bits[index])})), "Text, colored by surprise", choose);
data.bits.forEach((value, index) => { if (value !== null) surprise.paint(index, Math.min(1, value / HOT) * .85); });
const detail = el("div", {"aria-live": "polite"});
main.append(el("section", {class: "card"},
  el("header", {}, el("h2", {}, "Surprise"),
    el("span", {class: "legend"}, "0 bits", el("i", {class: "heat"}), `${HOT} or more`)),
  el("div", {class: "columns"}, surprise.node, detail)));

function drawDetail() {
  const token = state.token, last = data.lens.depths - 1, found = prediction(last, token);
  detail.replaceChildren();
  const title = token < n ? el("h2", {}, `Token ${token}  `, el("span", {class: "label"}, shown(token))) : el("h2", {}, "After the text");
  detail.append(title);
  if (!found) {
    detail.append(el("p", {class: "note"}, `id ${data.tokens[token]}; the first token is not predicted`));
    return;
  }
  const facts = token < n ? [`id ${data.tokens[token]}`, bits(data.bits[token]), percent(found.next),
    `rank ${count(data.rank[token] + 1)}`] : [];
  facts.push(`entropy ${bits(data.entropy[token - 1])}`);
  detail.append(el("p", {class: "note"}, facts.join(" · ")), el("h3", {style: {"margin-top": "10px"}}, "The model expected"));
  detail.append(candidates(found, token));
}
function candidates(found, token) {
  const target = token < n ? data.tokens[token] : -1;
  const rows = found.ids.map((id, index) => [id, found.p[index]]);
  if (target >= 0 && !found.ids.includes(target)) rows.push([target, found.next]);
  return el("table", {class: "bars"}, el("tbody", {}, rows.map(([id, p]) =>
    el("tr", {class: id === target ? "chosen" : ""}, el("th", {scope: "row"}, el("span", {class: "label"}, label(word(id)))),
      el("td", {style: {width: "70%"}}, bar(p, id === target ? "next" : ""))))));
}

// Logit lens -------------------------------------------------------------------------------------------------------------
const COLUMNS = 24;
const lensTable = el("div", {class: "scroll"}), lensDetail = el("div", {"aria-live": "polite", style: {"max-width": "560px"}}), lensRange = el("span", {class: "note"});
const earlier = el("button", {onclick: () => { state.columns -= COLUMNS; drawLens(); }}, "← earlier");
const later = el("button", {onclick: () => { state.columns += COLUMNS; drawLens(); }}, "later →");
main.append(el("section", {class: "card"},
  el("header", {}, el("h2", {}, "Logit lens"),
    el("div", {class: "controls"}, lensRange, earlier, later)),
  el("p", {class: "note", style: {"margin-bottom": "8px"}},
    "A column is a token of the text, a row a depth of the model: the token that this depth would predict there, from the ",
    "tokens before it, through the final norm and the head. Color: its probability. Framed: the token of the text."),
  lensTable, lensDetail));

function drawLens() {
  const first = state.columns = Math.max(0, Math.min(state.columns, Math.floor((n - 1) / COLUMNS) * COLUMNS));
  const tokens = [];
  for (let token = first + 1; token <= Math.min(n, first + COLUMNS); token++) tokens.push(token);
  const many = n > COLUMNS;
  earlier.hidden = later.hidden = !many;
  earlier.disabled = first === 0;
  later.disabled = first + COLUMNS >= n;
  lensRange.textContent = many ? `columns ${tokens[0]} to ${tokens[tokens.length - 1]} of ${n}` : "";
  const head = el("tr", {}, el("th", {}), tokens.map(token => el("th", {scope: "col", title: shown(token),
    class: token === state.token ? "selected" : "", onclick: () => choose(token)}, token < n ? shown(token) : "next")));
  const rows = [];
  for (let depth = data.lens.depths - 1; depth >= 0; depth--) {
    rows.push(el("tr", {}, el("th", {scope: "row"}, depthName(depth)), tokens.map(token => {
      const found = prediction(depth, token), hit = token < n && found.ids[0] === data.tokens[token];
      const here = token === state.token && depth === state.depth;
      const cell = el("span", {class: (hit ? "hit" : "") + (here ? " selected" : ""), role: "button", tabindex: here ? "0" : "-1",
        "data-cell": depth + "," + token, title: `${label(word(found.ids[0]))}: ${percent(found.p[0])}, KL ${bits(found.kl)}`,
        onclick: () => pick(depth, token), onkeydown: event => lensKey(event, depth, token)}, label(word(found.ids[0])));
      cell.style.background = `rgba(var(--focus), ${(found.p[0] * .6).toFixed(3)})`;
      return el("td", {}, cell);
    })));
  }
  lensTable.replaceChildren(el("table", {class: "lens"}, el("thead", {}, head), el("tbody", {}, rows)));
  drawLensDetail();
}
function pick(depth, token, focus) {
  state.depth = depth;
  choose(token);
  if (focus) { const cell = lensTable.querySelector(`[data-cell="${depth},${token}"]`); if (cell) cell.focus(); }
}
function lensKey(event, depth, token) {
  const move = {ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
  if (!move) return;
  event.preventDefault();
  pick(Math.max(0, Math.min(data.lens.depths - 1, depth + move[0])), Math.max(1, Math.min(n, token + move[1])), true);
}
function drawLensDetail() {
  const found = prediction(state.depth, state.token);
  lensDetail.replaceChildren();
  if (!found || state.depth === data.lens.depths - 1) return;  // the output is shown above
  lensDetail.append(el("p", {class: "note", style: {margin: "10px 0 4px"}}, `${depthName(state.depth)}, in the place of `,
    el("span", {class: "label"}, shown(state.token)), `: KL to the model's prediction ${bits(found.kl)}`), candidates(found, state.token));
}

// Attention --------------------------------------------------------------------------------------------------------------
const heads = el("div", {class: "scroll", style: {"max-height": "556px"}}), map = el("canvas", {class: "map", tabindex: "0", role: "img"});
const readout = el("p", {class: "readout"}), mapName = el("h3", {}), attended = runningText(
  data.tokens.map(id => ({text: word(id)})), "Text, colored by attention", choose);
const weights = [];  // per map: Float32Array of heads × n × n

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), char => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
async function drawAttention() {
  const section = el("section", {class: "card"}, el("header", {}, el("h2", {}, "Attention")));
  main.append(section);
  if (!data.maps.length) {
    section.append(el("p", {class: "note"}, data.attention_requested
      ? `No layer computes attention weights: ${[...new Set(data.layers.map(layer => layer.attention))].join(", ")}.`
      : "Attention was not requested."));
    return;
  }
  for (const each of data.maps) {
    const stored = await inflated(each.data), values = new Float32Array(stored.length);
    for (let index = 0; index < stored.length; index++) {
      const v = each.signed ? (stored[index] - 128) / 127 : stored[index] / 255;
      values[index] = Math.sign(v) * v * v * each.scale;
    }
    weights.push(values);
  }
  section.append(el("div", {class: "columns"},
    el("div", {}, el("h3", {}, "Layers and heads"), heads),
    el("div", {}, mapName, map, readout)),
    el("p", {class: "note", style: {margin: "8px 0 4px"}, id: "attends"}), attended.node);
  drawHeads();
  drawMap();
}
function drawHeads() {
  const most = Math.max(...data.maps.map(each => each.heads));
  const side = Math.max(34, Math.min(80, Math.floor((heads.clientWidth - 90) / most) - 3));  // few heads get larger maps
  const grid = el("div", {class: "heads", style: {"grid-template-columns": `auto repeat(${most}, ${side}px)`}});
  for (const layer of [...data.layers, ...headMaps()]) {
    const maps = data.maps.map((each, index) => [each, index]).filter(([each]) => each.layer === layer.index);
    const name = layer.index < data.layers.length ? `layer ${layer.index}` : "head";
    if (!maps.length) {
      const why = layer.computes_weights === false ? `${layer.attention} computes no attention weights` : "not requested";
      grid.append(el("span", {class: "row-name"}, name), el("span", {class: "none"}, why));
    }
    for (const [each, index] of maps) {
      grid.append(el("span", {class: "row-name", title: layer.attention}, name + (maps.length > 1 ? `, call ${each.call}` : "")));
      for (let head = 0; head < most; head++) grid.append(head < each.heads ? thumbnail(index, head) : el("span"));
    }
  }
  heads.replaceChildren(grid);
}
function headMaps() {
  const extra = data.maps.filter(each => each.layer >= data.layers.length);
  return extra.length ? [{index: data.layers.length, attention: "head"}] : [];
}
function thumbnail(index, head) {
  const canvas = el("canvas"), name = `layer ${data.maps[index].layer}, head ${head}`;
  paintMap(canvas, index, head);
  return el("button", {title: name, "aria-label": name, "data-head": index + "," + head,
    onclick: () => { state.map = index; state.head = head; drawMap(); },
    onkeydown: event => {
      const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
      if (!move) return;
      event.preventDefault();
      const target = heads.querySelector(`[data-head="${index + move[0]},${head + move[1]}"]`);
      if (target) { target.focus(); target.click(); }
    }}, canvas);
}
function paintMap(canvas, index, head) {
  canvas.width = canvas.height = n;
  const context = canvas.getContext("2d"), image = context.createImageData(n, n), start = head * n * n;
  const color = getComputedStyle(document.documentElement).getPropertyValue("--map").split(",").map(Number);
  for (let at = 0; at < n * n; at++) {
    const value = weights[index][start + at];
    image.data.set(value < 0 ? [63, 81, 181] : color, at * 4);
    image.data[at * 4 + 3] = 255 * Math.min(1, Math.sqrt(Math.abs(value)));
  }
  context.putImageData(image, 0, 0);
}
function drawMap() {
  const each = data.maps[state.map], layer = data.layers[each.layer];
  mapName.textContent = `${layer ? "Layer " + each.layer + ", " + layer.attention : "Head of the model"}` +
    `${each.call ? ", call " + each.call : ""}, head ${state.head}: a row attends to its columns`;
  map.setAttribute("aria-label", mapName.textContent);
  paintMap(map, state.map, state.head);
  heads.querySelectorAll("button").forEach(button =>
    button.classList.toggle("selected", button.dataset.head === state.map + "," + state.head));
  drawAttended();
}
function weight(query, key) { return weights[state.map][(state.head * n + query) * n + key]; }
function drawAttended() {
  if (!weights.length) return;
  const query = Math.min(state.token, n - 1);
  attended.select(query);
  let best = 0;
  for (let key = 0; key < n; key++) if (Math.abs(weight(query, key)) > Math.abs(weight(query, best))) best = key;
  const most = Math.max(1e-9, Math.abs(weight(query, best)));  // colors are relative, so that flat rows can be read
  for (let key = 0; key < n; key++) {
    const value = weight(query, key);
    attended.paint(key, Math.abs(value) / most * (value < 0 ? .6 : .85), value < 0 ? "focus" : "heat");
    attended.spans[key].title = value.toFixed(3);
  }
  document.getElementById("attends").replaceChildren("What ", el("span", {class: "label"}, shown(query)),
    ` attends to, relative to the largest weight (${most.toFixed(3)}); click another token:`);
  describe(query, best);
}
function describe(query, key) {
  readout.replaceChildren(el("span", {class: "label"}, shown(query)), " → ", el("span", {class: "label"}, shown(key)),
    `: ${weight(query, key).toFixed(3)}`);
}
function cellOf(event) {
  const box = map.getBoundingClientRect(), side = box.width;
  const at = value => Math.max(0, Math.min(n - 1, Math.floor(value / side * n)));
  return [at(event.clientY - box.top), at(event.clientX - box.left)];
}
map.addEventListener("mousemove", event => describe(...cellOf(event)));
map.addEventListener("mouseleave", drawAttended);
map.addEventListener("click", event => choose(cellOf(event)[0]));
map.addEventListener("keydown", event => {
  const move = {ArrowUp: -1, ArrowDown: 1}[event.key];
  if (move) { event.preventDefault(); choose(Math.max(0, Math.min(n - 1, state.token + move))); }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (weights.length) { drawHeads(); drawMap(); } });

function choose(token) {
  state.token = token;
  if (token >= 1 && (token <= state.columns || token > state.columns + COLUMNS)) {
    state.columns = Math.floor((token - 1) / COLUMNS) * COLUMNS;
  }
  surprise.select(token);
  drawDetail();
  drawLens();
  drawAttended();
}
choose(state.token);
drawAttention();
