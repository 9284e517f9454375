// The page of `gptkit scaling`.
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const LAW = "#3f6fd8", PREDICTED = "#d9822b", MEASURED = "#c2477f";
const digits = value => value === null ? "–" : value.toFixed(4);
function card(title, content, controls) {
  return el("section", {class: "card"}, el("header", {}, el("h2", {}, title), controls || null), content);
}
const prediction = data.prediction, target = data.rows[data.rows.length - 1];
main.append(el("p", {class: "brand"}, "gptkit scaling"), el("h1", {}, data.name), el("ul", {class: "facts"},
  fact(count(data.rows.filter(row => row.fitted).length), "sizes in the fit"), fact(count(data.seeds), data.seeds === 1 ? "seed" : "seeds"),
  data.tokens.length ? fact(data.tokens.map(short).join(" to "), "tokens each") : null, fact(data.law.exponent.toFixed(3), "exponent"),
  fact(digits(prediction.mean), "predicted loss of " + data.target), prediction.measured === null ? null : fact(digits(prediction.measured), "measured loss of " + data.target)));
main.append(card("What was found", el("ul", {class: "plain"}, data.statements.map(text => el("li", {}, text)))));
const charts = el("div");
main.append(charts);
function draw() {
  const width = Math.max(240, main.clientWidth - 78), fitted = data.rows.filter(row => row.fitted);
  const lines = [
    {name: "law", color: LAW, points: data.curve, band: data.band},
    {name: "trained", color: LAW, dots: true, points: fitted.map(row => [row.x, row.loss]), bars: fitted.map(row => [row.x, row.lowest, row.highest])},
    {name: "predicted", color: PREDICTED, dots: true, points: [[target.x, prediction.mean]], bars: prediction.low === null ? [] : [[target.x, prediction.low, prediction.high]]},
    {name: "measured", color: MEASURED, dots: true, points: prediction.measured === null ? [] : [[target.x, prediction.measured]]},
  ];
  charts.replaceChildren(card("Loss by size", [chart(lines, {width, height: 360, logX: true, name: "validation loss", xName: data.unit, legend: true}),
    el("p", {class: "note"}, "The band is the 95 % interval of the law. Lines through trained sizes reach from the lowest to the highest seed; the one through the prediction is the 95 % interval of new trainings.")]));
}
draw();
addEventListener("resize", draw);
main.append(card("Sizes", el("div", {class: "scroll"}, el("table", {class: "listing"},
  el("thead", {}, el("tr", {}, ["size", "parameters", "FLOPs/token", "seeds", "validation loss", "fitted law"].map((title, index) => el("th", {scope: "col", class: index ? "num" : null}, title)))),
  el("tbody", {}, data.rows.map(row => el("tr", {}, el("th", {scope: "row"}, row.size, row.fitted ? null : el("span", {class: "note"}, " predicted")),
    [count(row.parameters), short(row.flops_per_token), row.seeds, digits(row.loss) + (row.half === null ? "" : " ± " + digits(row.half)), digits(row.law)].map(cell => el("td", {class: "num"}, cell))))))),
  el("span", {class: "note"}, "± is the 95 % interval over seeds")));
if (data.omitted.length) main.append(card("Without a result", el("ul", {class: "plain"}, data.omitted.map(text => el("li", {}, text)))));
main.append(card("To repeat it", el("pre", {class: "command"}, data.command)));
