// The page of `gptkit generate --trace`.
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const ENDS = {length: "maximum length", stop: "stop string or token", end: "end token", interrupted: "interrupted", error: "error"};
const body = el("div");

main.append(el("p", {class: "brand"}, "gptkit generate --trace"), el("h1", {}, data.model || "Generated text"));
if (data.texts.length > 1) {
  const choice = el("select", {onchange: event => draw(data.texts[Number(event.target.value)])},
    data.texts.map((text, index) => el("option", {value: index}, `text ${index + 1}`)));
  main.append(el("div", {class: "controls", style: {margin: "12px 0 0"}}, el("label", {}, "Show", choice)));
}
main.append(body);

function draw(text) {
  const tokens = text.tokens, offset = text.prompt.length;
  const surprise = tokens.reduce((sum, token) => sum - Math.log2(Math.max(token.probability, 1e-45)), 0);
  const chain = tokens.length ? tokens[0].steps.map(step => [step.name, fields(step)].filter(Boolean).join(" ")).join(" → ") : "";
  const detail = el("section", {class: "card", "aria-live": "polite"});
  const running = runningText([...text.prompt.map(piece => ({text: piece, prompt: true})),
    ...tokens.map(token => ({text: token.text, title: `${percent(token.probability)} under the model, drawn with ${percent(token.drawn_with)}`}))],
    "Generated text, colored by probability", choose);
  tokens.forEach((token, index) => running.paint(offset + index, doubt(token)));
  body.replaceChildren(
    el("ul", {class: "facts"}, fact(count(tokens.length), tokens.length === 1 ? "token" : "tokens"),
      fact(tokens.length ? (surprise / tokens.length).toFixed(2) : "–", "bits per token under the model"),
      fact(text.seed, "seed"), fact(ENDS[text.finish], "ended by")),
    el("section", {class: "card"}, el("header", {}, el("h2", {}, "Text"),
      el("span", {class: "legend"}, "certain", el("i", {class: "heat"}), "unlikely draw")),
      running.node, el("p", {class: "note", style: {"margin-top": "10px"}}, chain ? `Samplers: ${chain}` : "No sampler: drawn from the model's distribution")),
    detail);
  function choose(at) {
    const index = at - offset;
    if (index < 0 || index >= tokens.length) return;
    const focused = detail.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    running.select(at);
    const token = tokens[index];
    const step = (by, name, sign) => el("button", {onclick: () => choose(at + by), disabled: index + by < 0 || index + by >= tokens.length, "aria-label": name}, sign);
    detail.replaceChildren(el("header", {}, el("h2", {}, `Token ${index + 1}  `, el("span", {class: "label"}, label(token.text))),
      el("div", {class: "controls"}, step(-1, "previous token", "←"), step(1, "next token", "→"))),
      el("p", {class: "note", style: {"margin-bottom": "10px"}}, tokenFacts(token)), chainTable(token));
    if (focused) detail.querySelector(`[aria-label="${focused}"]`).focus();
  }
  if (tokens.length) choose(offset); else detail.append(el("p", {class: "note"}, "No token was generated."));
}
draw(data.texts[0]);
