// The page of `gptkit runs`.
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const n = data.runs.length;
const shownRuns = data.runs.map((run, index) => index < 8);
const settings = {log: false, tokens: false};
/** Colors that differ in hue and lightness, in the order of the table. */
function color(index) { return `hsl(${(index * 137.5 + 230) % 360} ${index % 2 ? 62 : 70}% ${[48, 58, 42][index % 3]}%)`; }
const names = [...new Set(data.runs.flatMap(run => Object.keys(run.spec)))];
const number = (value, digits) => value === null ? "–" : value.toFixed(digits);

const charts = el("div");
const columns = ["", "run", "step", "lowest validation loss", "bits per byte", "training loss", "tokens/s", ...names];
const table = el("table", {class: "listing"}, el("thead", {}, el("tr", {}, columns.map(column => el("th", {scope: "col"}, column)))),
  el("tbody", {}, data.runs.map((run, index) => el("tr", {},
    el("td", {}, el("input", {type: "checkbox", "aria-label": "show " + run.run, checked: shownRuns[index],
      onchange: event => { shownRuns[index] = event.target.checked; draw(); }})),
    el("th", {scope: "row"}, el("i", {class: "swatch", style: {background: color(index)}}), run.run, run.problem ? el("span", {class: "note"}, " " + run.problem) : null),
    el("td", {class: "num"}, count(run.step) + (run.steps === null ? "" : " / " + count(run.steps))),
    el("td", {class: "num"}, number(run.lowest_validation_loss, 4)), el("td", {class: "num"}, number(run.validation_bits_per_byte, 4)),
    el("td", {class: "num"}, number(run.loss, 4)), el("td", {class: "num"}, run.tokens_per_second === null ? "–" : short(run.tokens_per_second)),
    names.map(name => el("td", {class: "mono"}, run.spec[name] === undefined ? "–" : run.spec[name]))))));
main.append(el("p", {class: "brand"}, "gptkit runs"), el("h1", {}, data.directory),
  el("ul", {class: "facts"}, fact(count(n), n === 1 ? "run" : "runs"), fact(count(names.length), names.length === 1 ? "field differs" : "fields differ")),
  el("section", {class: "card"}, el("header", {}, el("h2", {}, "Runs"), el("span", {class: "note"}, "lowest validation loss first; checked runs are drawn")), el("div", {class: "scroll"}, table)), charts);

function points(index, name) {
  const own = data.curves[index][name];
  if (!settings.tokens) return own;
  const tokens = data.curves[index].tokens;
  if (!tokens.length) return [];
  const perStep = tokens[tokens.length - 1][1] / tokens[tokens.length - 1][0];
  let at = 0;
  return own.map(([step, value]) => {
    while (at < tokens.length - 1 && tokens[at][0] < step) at++;
    return [tokens[at][0] === step ? tokens[at][1] : Math.round(step * perStep), value];
  });
}
function room(columns) { return Math.max(240, (main.clientWidth - 40 - 16 * (columns - 1)) / columns - 38); }
function draw() {
  const xName = settings.tokens ? "tokens" : "step";
  const axis = el("select", {"aria-label": "horizontal axis", onchange: event => { settings.tokens = event.target.value === "tokens"; draw(); }},
    el("option", {value: "step", selected: !settings.tokens}, "steps"), el("option", {value: "tokens", selected: settings.tokens}, "tokens"));
  const log = el("input", {type: "checkbox", checked: settings.log, onchange: event => { settings.log = event.target.checked; draw(); }});
  const lines = name => data.runs.map((run, index) => ({name: run.run, points: shownRuns[index] ? points(index, name) : [], color: color(index), style: "marked"}));
  charts.replaceChildren(card("Validation loss (nats per token)", chart(lines("validation_loss"), {width: room(1), height: 320, log: settings.log, name: "validation loss", xName, legend: true}),
    el("div", {class: "controls"}, el("label", {class: "check"}, log, "logarithmic"), el("label", {}, "over", axis))));
  const small = el("div", {class: "charts"});
  const half = room(main.clientWidth < 900 ? 1 : 2);
  for (const [name, title] of [["loss", "Training loss"], ["validation_bits_per_byte", "Bits per byte (validation)"], ["grad_norm", "Gradient norm"], ["tokens_per_second", "Tokens per second"]])
    if (data.curves.some(each => each[name].length)) small.append(card(title, chart(lines(name), {width: half, height: 200, log: settings.log && name === "loss", name: title, xName, legend: true})));
  charts.append(small);
}
function card(title, content, controls) {
  return el("section", {class: "card"}, el("header", {}, el("h2", {}, title), controls || null), content);
}
draw();
addEventListener("resize", draw);
