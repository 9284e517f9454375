"use strict";
// Text of a spec as YAML: blocks for sections, one line for components that fit.

const Yaml = (() => {
  const BARE = /^[A-Za-z_./~][\w./+-]*( [\w./+-]+)*$/;
  const TAKEN = new Set(["true", "false", "null", "yes", "no", "on", "off", "y", "n", "~", ".inf", ".nan", "."]);
  const isObject = value => value !== null && typeof value === "object" && !Array.isArray(value);

  function scalar(value) {
    if (typeof value === "string") return BARE.test(value) && !TAKEN.has(value.toLowerCase()) ? value : JSON.stringify(value);
    return JSON.stringify(value);
  }

  function flow(value) {
    if (isObject(value)) return "{" + Object.entries(value).map(([key, item]) => `${scalar(key)}: ${flow(item)}`).join(", ") + "}";
    if (Array.isArray(value)) return "[" + value.map(flow).join(", ") + "]";
    return scalar(value);
  }

  function block(value, indent, lines) {
    for (const [key, item] of Object.entries(value)) {
      const line = `${indent}${scalar(key)}: ${flow(item)}`, short = line.length <= 100;
      if (isObject(item) && Object.keys(item).length && !(item.name !== undefined && short)) {
        lines.push(`${indent}${scalar(key)}:`);
        block(item, indent + "  ", lines);
      } else if (Array.isArray(item) && item.some(isObject)) {
        lines.push(`${indent}${scalar(key)}:`);
        for (const each of item) lines.push(`${indent}  - ${flow(each)}`);
      } else lines.push(line);
    }
    return lines;
  }

  /** The YAML of plain data. */
  function text(data) { return block(data, "", []).join("\n") + "\n"; }

  return {text};
})();
