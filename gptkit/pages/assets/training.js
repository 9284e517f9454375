// The page of a training.
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const KEPT = ["gptkit-log", "gptkit-x"];
/** Settings outlive a reload, where the browser allows it. */
function kept(key) { try { return sessionStorage.getItem(key); } catch { return null; } }
function keep(key, value) { try { sessionStorage.setItem(key, value); } catch { /* a private window */ } }
const settings = {log: kept(KEPT[0]) === "1", tokens: kept(KEPT[1]) === "tokens"};

const points = name => data.series[name] || [];
const lastOf = name => points(name).length ? points(name)[points(name).length - 1][1] : null;
function duration(seconds) {
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return Math.round(seconds) + " s";
  return minutes < 90 ? minutes + " min" : (minutes / 60).toFixed(1) + " h";
}
const best = points("validation_loss").reduce((low, point) => low === null || point[1] < low[1] ? point : low, null);
const facts = [fact(`${count(data.step)} / ${count(data.steps)}`, "steps, " + data.state)];
if (lastOf("loss") !== null) facts.push(fact(lastOf("loss").toFixed(3), "training loss"));
if (best) facts.push(fact(best[1].toFixed(3), `lowest validation loss, step ${count(best[0])}`));
if (lastOf("validation_bits_per_byte") !== null) facts.push(fact(lastOf("validation_bits_per_byte").toFixed(3), "bits per byte"));
if (lastOf("tokens") !== null) facts.push(fact(short(lastOf("tokens")), "tokens"));
if (lastOf("tokens_per_second") !== null) facts.push(fact(short(lastOf("tokens_per_second")), "tokens/s"));
if (data.state === "running" && data.seconds_left !== null) facts.push(fact(duration(data.seconds_left), "left"));

const charts = el("div");
main.append(el("p", {class: "brand"}, "gptkit train"), el("h1", {}, data.title), el("ul", {class: "facts"}, facts), charts);

/** The points of a metric, by step or by the number of tokens at that step. */
function shown(name) {
  if (!settings.tokens) return points(name);
  const tokens = points("tokens");
  if (!tokens.length) return points(name);
  let at = 0;
  return points(name).map(([step, value]) => {
    while (at < tokens.length - 1 && tokens[at][0] < step) at++;
    const before = at ? tokens[at - 1] : [0, 0], after = tokens[at];
    const share = after[0] === before[0] ? 1 : (step - before[0]) / (after[0] - before[0]);
    return [before[1] + share * (after[1] - before[1]), value];
  });
}
const TRAINING = "rgb(var(--focus))", VALIDATION = "rgb(var(--map))";
function line(name, title, color, style) { return {name: title, points: shown(name), color, style}; }
/** Colors of layers, from the first to the last. */
function layered(index, n) { return `hsl(${Math.round(265 - 235 * (n < 2 ? 0 : index / (n - 1)))} 70% 52%)`; }

/** The width of a chart in a card, so that its text has the size of the page's. */
function room(columns) { return Math.max(240, (main.clientWidth - 40 - 16 * (columns - 1)) / columns - 38); }

function draw() {
  const xName = settings.tokens ? "tokens" : "step";
  const axis = el("select", {"aria-label": "horizontal axis", onchange: event => { settings.tokens = event.target.value === "tokens"; keep(KEPT[1], event.target.value); draw(); }},
    el("option", {value: "step", selected: !settings.tokens}, "steps"), el("option", {value: "tokens", selected: settings.tokens}, "tokens"));
  const log = el("input", {type: "checkbox", checked: settings.log, onchange: event => { settings.log = event.target.checked; keep(KEPT[0], event.target.checked ? "1" : "0"); draw(); }});
  charts.replaceChildren(el("section", {class: "card"},
    el("header", {}, el("h2", {}, "Loss (nats per token)"), el("div", {class: "controls"},
      el("label", {class: "check"}, log, "logarithmic"), el("label", {}, "over", axis))),
    chart([line("loss", "training", TRAINING), line("validation_loss", "validation", VALIDATION, "marked")], {width: room(1), height: 320, log: settings.log, name: "loss", xName, legend: true})));
  const small = el("div", {class: "charts"});
  const plain = [["validation_bits_per_byte", "Bits per byte (validation)"], ["learning_rate", "Learning rate"],
    ["grad_norm", "Gradient norm"], ["tokens_per_second", "Tokens per second"]];
  for (const [name, title] of plain) if (points(name).length)
    small.append(card(title, [line(name, title, name.startsWith("validation") ? VALIDATION : TRAINING, "marked")], xName));
  const groups = new Map();
  for (const name of Object.keys(data.series)) if (name.includes("/")) {
    const [group, ...rest] = name.split("/");
    groups.set(group, [...(groups.get(group) || []), [name, rest.join("/")]]);
  }
  for (const [group, members] of groups) {
    const words = group.replaceAll("_", " ").replace(/\brms\b/, "RMS"), title = words.charAt(0).toUpperCase() + words.slice(1) + (members.length > 1 ? " by module" : "");
    small.append(card(title, members.map(([name, member], index) => line(name, member, layered(index, members.length))), xName, true));
  }
  charts.append(small);
}
function card(title, lines, xName, legend) {
  return el("section", {class: "card"}, el("header", {}, el("h2", {}, title)), chart(lines, {width: room(main.clientWidth < 900 ? 1 : 2), height: 190, name: title, xName, legend}));
}
draw();
addEventListener("resize", draw);
if (data.state === "running") setTimeout(() => location.reload(), data.refresh * 1000);
