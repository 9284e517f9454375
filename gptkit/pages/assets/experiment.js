// The page of `gptkit compare`.
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const settings = {log: false, tokens: false, training: false};
const hidden = new Set();
const PALETTE = ["#3f6fd8", "#d9822b", "#2a9d6f", "#c2477f", "#8a63d2", "#8f6b3d", "#1f9bb5", "#7a8290"];
const order = data.curves.map(each => each.label);
/** The color of a variant, the same in all charts. */
function color(label) {
  const index = Math.max(0, order.indexOf(label));
  return order.length <= PALETTE.length ? PALETTE[index] : `hsl(${Math.round(index * 137.5 + 220) % 360} 58% ${[50, 62, 42][index % 3]}%)`;
}
const swatch = label => el("i", {class: "swatch", style: {background: color(label)}});
const digits = value => value === null ? "–" : value.toFixed(4);
const signed = value => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4);
const within = pair => pair === null ? "–" : digits(pair[0]) + (pair[1] === null ? "" : " ± " + digits(pair[1]));
const number = value => value === null ? "–" : short(value);
function memory(value) {
  if (value === null) return "–";
  for (const [limit, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]])
    if (value >= limit) return trim((value / limit).toPrecision(3)) + " " + unit;
  return trim(value.toPrecision(4)) + " B";
}
const probability = p => p === null ? "" : p < 1e-4 ? "p < 0.0001" : "p = " + p.toPrecision(2);
function verdict(text) {
  const kind = {better: " good", worse: " bad", "does not train": " bad", "trains where the base does not": " good"}[text] || "";
  return el("span", {class: "verdict" + kind}, text);
}
function card(title, content, controls) {
  return el("section", {class: "card"}, el("header", {}, el("h2", {}, title), controls || null), content);
}
const note = text => el("p", {class: "note"}, text);

// Head
const failed = data.failures.filter(each => each.reason !== "not trained yet").length, missing = data.failures.length - failed;
main.append(el("p", {class: "brand"}, "gptkit compare"), el("h1", {}, data.name));
if (data.question) main.append(el("p", {class: "muted"}, data.question));
main.append(el("ul", {class: "facts"},
  fact(count(data.n_variants), data.n_variants === 1 ? "variant" : "variants"), fact(count(data.seeds.length), data.seeds.length === 1 ? "seed" : "seeds"),
  fact(count(data.n_finished) + " / " + count(data.n_trials), "trainings finished" + (failed ? `, ${failed} failed` : "") + (missing ? `, ${missing} missing` : "")),
  data.tokens.length ? fact(data.tokens.map(short).join(" to "), "tokens each") : null,
  data.match ? fact(data.match, "matched") : null, fact(data.measure.title, "compared, in " + data.measure.unit)));
if (data.cautions.length) main.append(card("Read this first", el("ul", {class: "plain"}, data.cautions.map(text => el("li", {}, text)))));

/** Effects as a forest plot: one row each, all intervals on one scale. */
function forest(effects) {
  const known = effects.filter(each => each.mean !== null);
  const ends = known.flatMap(each => [each.mean, each.low === null ? each.mean : each.low, each.high === null ? each.mean : each.high]);
  let low = Math.min(0, ...ends), high = Math.max(0, ...ends);
  const pad = (high - low || 1) * .06; low -= pad; high += pad;
  const width = 420, px = x => (x - low) / (high - low) * width;
  const node = el("div", {class: "forest"});
  effects.forEach((each, index) => {
    if (index) node.append(el("div", {class: "rule"}));
    const fill = each.verdict === "better" ? "var(--good)" : each.verdict === "worse" ? "var(--danger)" : "var(--muted)";
    const plot = svg("svg", {viewBox: `0 0 ${width} 26`, role: "img", "aria-label": each.text}, svg("line", {x1: px(0), x2: px(0), y1: 0, y2: 26, class: "zero"}));
    if (each.low !== null) plot.append(svg("line", {x1: px(each.low), x2: px(each.high), y1: 13, y2: 13, class: "interval", style: {stroke: fill}}));
    if (each.mean !== null) plot.append(svg("circle", {cx: px(each.mean), cy: 13, r: 5, style: {fill}}));
    node.append(
      el("div", {}, el("b", {}, each.value), el("span", {class: "muted"}, " instead of " + each.baseline), el("div", {class: "note mono"}, each.axis + (each.size === null ? "" : ", size " + each.size))),
      el("div", {}, each.mean === null ? null : plot),
      el("div", {}, verdict(each.verdict), each.mean === null ? null : el("div", {class: "amount"}, signed(each.mean), each.relative === null ? null : el("span", {class: "muted"}, ` (${each.relative < 0 ? "−" : "+"}${Math.abs(100 * each.relative).toFixed(1)} %)`)),
        el("div", {class: "note"}, [each.low === null ? "" : `${signed(each.low)} to ${signed(each.high)}`, probability(each.p), each.n === 1 ? "1 seed" : each.n ? each.n + " seeds" : ""].filter(text => text).join(", "))));
  });
  if (known.length) {
    const axis = svg("svg", {viewBox: `0 0 ${width} 18`, "aria-hidden": "true"});
    for (const x of ticks(low, high, 4)) axis.append(svg("text", {x: px(x), y: 12, "text-anchor": px(x) < 20 ? "start" : px(x) > width - 20 ? "end" : "middle"}, short(x)));
    node.append(el("div", {}), el("div", {}, axis), el("div", {}));
  }
  return node;
}
if (data.effects.length) main.append(card("Effects", [forest(data.effects), note("Points left of the line are better. Lines are 95 % intervals of single effects; p is corrected for all effects.")],
  el("span", {class: "note"}, "difference in " + data.measure.title)));
if (data.sizes.length) main.append(card("Does it hold at another size?", data.sizes.flatMap(each => [
  el("h3", {}, `${each.axis}: ${each.value} instead of ${each.baseline} — ${each.statement}`), forest(each.effects)])));

/** The table of results; columns without any value are omitted. */
function results() {
  const bitsFirst = data.measure.bits;
  const columns = [
    ["validation loss ± 95% interval", row => within(row.loss)], ["bits per byte", row => within(row.bits_per_byte), row => row.bits_per_byte],
    ["seeds", row => row.n + (row.n_failed ? ` (${row.n_failed} failed)` : "")],
    ["learning rate", row => row.learning_rate === null ? "–" : short(row.learning_rate), row => row.learning_rate],
    ["beyond", row => row.extrapolation === null ? "–" : signed(row.extrapolation[0]) + (row.extrapolation[1] === null ? "" : " ± " + digits(row.extrapolation[1])), row => row.extrapolation],
    ["parameters", row => number(row.parameters)], ["FLOPs/token", row => number(row.flops_per_token)],
    ["cache/token", row => memory(row.cache_bytes_per_token)], ["training tokens/s", row => number(row.tokens_per_second), row => row.tokens_per_second],
    ["decoding tokens/s", row => number(row.decode_tokens_per_second), row => row.decode_tokens_per_second],
    ["peak memory", row => memory(row.peak_memory), row => row.peak_memory], ["seconds", row => number(row.seconds), row => row.seconds],
  ].filter(column => !column[2] || data.rows.some(row => column[2](row) !== null));
  if (bitsFirst) [columns[0], columns[1]] = [columns[1], columns[0]];
  return el("table", {class: "listing"},
    el("thead", {}, el("tr", {}, el("th", {scope: "col"}, "variant"), columns.map(column => el("th", {scope: "col", class: "num"}, column[0])))),
    el("tbody", {}, data.rows.map(row => el("tr", {},
      el("th", {scope: "row"}, el("label", {class: "check"}, el("input", {type: "checkbox", checked: true, "aria-label": "draw " + row.label, onchange: event => {
        event.target.checked ? hidden.delete(row.label) : hidden.add(row.label); draw(); }}), el("span", {}, swatch(row.label), row.label, row.is_base ? el("span", {class: "note"}, " base") : null)),
        row.matched ? el("div", {class: "note"}, row.matched) : null),
      columns.map(column => el("td", {class: "num"}, column[1](row)))))));
}
main.append(card("Results", el("div", {class: "scroll"}, results()), el("span", {class: "note"}, "best first; ± is the 95 % interval over seeds; checked variants are drawn")));

// Charts
const charts = el("div");
main.append(charts);
function room(columns) { return Math.max(240, (main.clientWidth - 40 - 16 * (columns - 1)) / columns - 38); }
/** Points of a line with its band, below the ceiling of the chart: the steep start would leave no height to differences. */
function below(ceiling, points, x, y) {
  const kept = points.filter(point => ceiling === null || point[y] <= ceiling);
  return {points: kept.map(point => [point[x], point[y]]), band: kept.map(point => [point[x], point[y + 1], Math.min(point[y + 2], ceiling === null ? Infinity : ceiling)])};
}
const visible = list => list.filter(each => !hidden.has(each.label));
function draw() {
  const at = settings.tokens ? 1 : 0, xName = settings.tokens ? "tokens" : "step", name = settings.training ? "training" : "validation";
  const choice = (label, options, value, set) => el("select", {"aria-label": label, onchange: event => { set(event.target.value); draw(); }},
    options.map(option => el("option", {value: option, selected: option === value}, option)));
  const log = el("input", {type: "checkbox", checked: settings.log, onchange: event => { settings.log = event.target.checked; draw(); }});
  const lines = visible(data.curves).map(each => ({name: each.label, color: color(each.label), style: "marked",
    ...below(data.ceilings[name], each[name], at, 2)}));
  charts.replaceChildren(card("Loss curves", chart(lines, {width: room(1), height: 340, log: settings.log, name: name + " loss", xName, legend: true}),
    el("div", {class: "controls"}, choice("loss", ["validation", "training"], name, value => { settings.training = value === "training"; }),
      el("label", {class: "check"}, log, "logarithmic"), el("label", {}, "over", choice("horizontal axis", ["step", "tokens"], xName, value => { settings.tokens = value === "tokens"; })))));
  if (data.positions.some(each => each.points.length)) {
    const own = visible(data.positions).map(each => ({name: each.label, color: color(each.label), ...below(data.ceilings.positions, each.points, 0, 1)}));
    const without = data.positions.filter(each => each.points.length && !each.extrapolates).map(each => each.label);
    charts.append(card("Loss by position in the context", [chart(own, {width: room(1), height: 280, name: "loss", xName: "position", legend: true,
      marks: data.trained_length === null ? [] : [[data.trained_length - .5, "trained length"]]}),
      without.length ? note("No positions beyond the trained length: " + without.join("; ") + ".") : null]));
  }
  if (data.rates.length) charts.append(card("Learning rates", chart(data.rates.map((each, index) => ({name: each.label, color: PALETTE[index % PALETTE.length], style: "marked",
    points: each.points.map(point => [point[0], point[1]]), band: each.points.map(point => [point[0], point[2], point[3]])})),
    {width: room(1), height: 280, name: data.measure.title, xName: "learning rate", logX: true, legend: true})));
}
draw();
addEventListener("resize", draw);

// Samples, specs, failures, command
if (data.samples.length) main.append(card("Samples", el("div", {class: "samples"}, data.samples.map(each => el("div", {},
  el("h3", {}, swatch(each.label), each.label), each.texts.map(text => el("pre", {}, text))))), el("span", {class: "note"}, `the same prompts and seeds; training seed ${[...new Set(data.samples.map(each => each.seed))].join(", ")}`)));
if (data.differences.some(each => each.changes.length)) main.append(card("Differences between the specs", el("div", {class: "scroll"}, el("table", {class: "listing"},
  el("thead", {}, el("tr", {}, ["variant", "field", "base", "variant's value"].map(title => el("th", {scope: "col"}, title)))),
  el("tbody", {}, data.differences.flatMap(each => each.changes.map((change, index) => el("tr", {},
    index ? el("td", {}) : el("th", {scope: "row"}, swatch(each.label), each.label), el("td", {class: "mono"}, change.path), el("td", {class: "mono"}, change.base), el("td", {class: "mono"}, change.variant)))))))));
if (data.failures.length || data.invalid.length) main.append(card("Without a result", el("ul", {class: "plain"},
  data.failures.map(each => el("li", {}, el("b", {}, each.variant), `, seed ${each.seed}: ${each.reason}`)),
  data.invalid.map(each => el("li", {}, el("b", {}, each.variant), ": " + each.reason)))));
main.append(card("How this was measured", [el("ul", {class: "plain"}, data.method.map(text => el("li", {}, text))), note("To repeat it:"), el("pre", {class: "command"}, data.command)]));
