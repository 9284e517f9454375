// What the chain of samplers did to one token: shared by the pages of `generate --trace` and `play`.

function fields(step) {
  return Object.entries(step.fields).map(([name, value]) =>
    `${name} ${typeof value === "object" && value !== null ? JSON.stringify(value) : value}`).join(", ");
}

/** A table: candidates as rows; the model and every sampler as columns. pick(id) is called for a chosen candidate. */
function chainTable(token, pick) {
  const left = token.steps.length ? token.steps[0].n_before : token.n_left;
  const head = el("tr", {}, el("th", {scope: "col"}, "candidate"),
    el("th", {scope: "col"}, "model", el("small", {}, `${count(left)} tokens`)),
    token.steps.map(step => {
      const kept = step.n_before === step.n_after ? `${count(step.n_after)} tokens` : `${count(step.n_before)} → ${count(step.n_after)}`;
      return el("th", {scope: "col"}, step.name, el("small", {}, fields(step) || " "),
        el("small", {}, kept + (step.removed > 0.00005 ? `, −${percent(step.removed)}` : "")));
    }));
  const rows = token.candidates.map((candidate, index) => {
    const chosen = candidate.id === token.id;
    const name = el("span", {class: "label", title: `id ${candidate.id}`}, label(candidate.text));
    return el("tr", {class: chosen ? "chosen" : ""},
      el("th", {scope: "row"}, pick && !chosen ? el("button", {class: "quiet alternative", onclick: () => pick(candidate),
        "aria-label": `continue with ${label(candidate.text)}`}, name) : name),
      el("td", {}, bar(candidate.probability, chosen ? "next" : "")),
      token.steps.map(step => el("td", {}, step.after[index] === null
        ? el("span", {class: "gone"}, step.before[index] === null ? "" : "excluded") : bar(step.after[index], chosen ? "next" : ""))));
  });
  return el("div", {class: "scroll"}, el("table", {class: "steps"}, el("thead", {}, head), el("tbody", {}, rows)));
}

/** One line about a token. */
function tokenFacts(token) {
  return [`id ${token.id}`, `model ${percent(token.probability)}`, `drawn with ${percent(token.drawn_with)}`,
    `rank ${count(token.rank + 1)}`, `entropy ${bits(token.entropy)}`, `${count(token.n_left)} left`].join(" · ");
}

/** How far a token is from certain, as the opacity of its color. */
function doubt(token) { return .85 * (1 - token.drawn_with); }
