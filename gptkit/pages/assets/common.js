"use strict";
// Parts of all pages. Everything that comes from data is set as text, never as HTML.

/** Create an element. Properties that begin with "on" are listeners, "style" is an object; the rest are attributes. */
function el(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, each] of Object.entries(value)) node.style.setProperty(key, each);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter(child => child !== null && child !== undefined));
  return node;
}

/** Write characters that a page would not show, or that change the direction of text, as escapes. */
function escaped(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, char => "\\u{" + char.codePointAt(0).toString(16) + "}");
}

/** A token on one line, with visible spaces. */
function label(text) {
  if (text === "") return "∅";
  return escaped(text.replace(/ /g, "·").replace(/\n/g, "⏎").replace(/\r/g, "␍").replace(/\t/g, "⇥"));
}

/** Fill a token of a running text; line feeds are shown, and those within the token break the line. */
function fill(node, text) {
  const inner = text.replace(/\n+$/, "");
  for (const part of inner.split(/(\n|\t|\r)/)) {
    if (part === "\n") node.append(el("span", {class: "sign"}, "⏎"), "\n");
    else if (part === "\t") node.append(el("span", {class: "sign"}, "⇥"), "\t");
    else if (part === "\r") node.append(el("span", {class: "sign"}, "␍"));
    else if (part) node.append(escaped(part));
  }
  if (text !== inner) node.append(el("span", {class: "sign"}, "⏎".repeat(text.length - inner.length)));
  if (text === "") node.append(el("span", {class: "sign"}, "∅"));
  return node;
}

function percent(p) {
  if (p === null || p === undefined) return "–";
  if (p > 0 && p < 0.0005) return "< 0.1 %";
  return (100 * p).toFixed(p < 0.0995 ? 2 : 1) + " %";
}
function bits(value) { return value === null || value === undefined ? "–" : value.toFixed(2) + " bits"; }
function count(number) { return number.toLocaleString("en-US"); }
function fact(value, name) { return el("li", {}, el("b", {}, value), el("span", {}, name)); }

/** A horizontal bar with its percentage. */
function bar(p, kind) {
  return el("span", {class: "bar" + (kind ? " " + kind : "")},
    el("i", {style: {width: Math.max(0, Math.min(1, p)) * 100 + "%"}}), el("span", {}, percent(p)));
}

/**
 * A running text whose tokens can be chosen by mouse, touch or keyboard (arrows, Home, End).
 * tokens: [{text, prompt, kind, title}]. The returned object has node, spans, add(token), cut(length), select(index) and
 * paint(index, alpha, color).
 */
function runningText(tokens, name, choose) {
  const node = el("div", {class: "text", role: "group", "aria-label": name}), known = [], spans = [], breaks = [];
  let selected = -1;
  function add(token) {
    const index = known.push(token) - 1;
    const span = fill(el("span", {class: ["token", token.prompt ? "prompt" : "", token.kind || ""].join(" ").trim(), title: token.title}), token.text);
    if (!token.prompt) {
      span.setAttribute("role", "button");
      span.setAttribute("tabindex", "-1");
      span.setAttribute("aria-label", label(token.text) + (token.title ? ", " + token.title : ""));
      span.addEventListener("click", () => choose(index));
      span.addEventListener("keydown", event => key(event, index));
    }
    spans.push(span);
    // The line breaks after a token, outside of its frame.
    breaks.push(document.createTextNode("\n".repeat(token.text.match(/\n*$/)[0].length)));
    node.append(span, breaks[index]);
  }
  function key(event, index) {
    const free = known.map((token, at) => token.prompt ? -1 : at).filter(at => at >= 0);
    const at = free.indexOf(index);
    const target = {ArrowRight: free[at + 1], ArrowLeft: free[at - 1], Home: free[0], End: free[free.length - 1],
      Enter: index, " ": index}[event.key];
    if (target === undefined) return;
    event.preventDefault();
    choose(target);
    spans[target].focus();
  }
  function select(index) {
    if (spans[selected]) {
      spans[selected].classList.remove("selected");
      spans[selected].setAttribute("tabindex", "-1");
      spans[selected].removeAttribute("aria-current");
    }
    selected = index;
    if (spans[selected]) {
      spans[selected].classList.add("selected");
      spans[selected].setAttribute("tabindex", "0");
      spans[selected].setAttribute("aria-current", "true");
    }
  }
  tokens.forEach(add);
  return {
    node, spans, add, select,
    cut(length) {
      if (selected >= length) select(-1);
      known.splice(length);
      for (const each of [...spans.splice(length), ...breaks.splice(length)]) each.remove();
    },
    paint(index, alpha, color) {
      spans[index].style.background = alpha > 0.004 ? `rgba(var(--${color || "heat"}), ${alpha.toFixed(3)})` : "";
    },
  };
}
