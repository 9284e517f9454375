// Line charts as SVG.
const SVG = "http://www.w3.org/2000/svg";
function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {}))
    // Set as properties: the page's policy does not allow attributes with styles.
    if (name === "style") for (const [key, each] of Object.entries(value)) node.style.setProperty(key, each);
    else node.setAttribute(name, value);
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}

/** A number with about four significant digits. */
function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  for (const [limit, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (size >= limit) return trim((value / limit).toPrecision(4)) + unit;
  return size < 1e-3 ? value.toExponential(2) : trim(value.toPrecision(4));
}
function trim(text) { return text.includes(".") ? text.replace(/\.?0+$/, "") : text; }

/** Round values between two numbers, about `wanted` of them. */
function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(each => each * power).find(each => each >= rough) || power;
  const values = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) values.push(at * step);
  return values;
}
function logTicks(low, high) {
  const values = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const digit of [1, 2, 3, 5]) if (digit * 10 ** power >= low && digit * 10 ** power <= high) values.push(digit * 10 ** power);
  return values.length >= 2 ? values : ticks(low, high, 4);
}

/**
 * A chart of lines: [{name, points: [[x, y], …], style: "line" | "marked", color, band: [[x, low, high], …]}]; with `dots`, of
 * points alone, and `bars` are vertical intervals: [[x, low, high], …].
 * The readout below it shows the values at the pointer, or with the arrow keys. `marks` are labelled verticals: [[x, label], …].
 */
function chart(lines, options) {
  const {width = 640, height = 240, log = false, logX = false, name = "", xName = "step", marks = []} = options || {};
  const node = el("div", {class: "chart"}), readout = el("p", {class: "note readout", "aria-live": "polite"});
  const drawn = lines.filter(line => line.points.length && (!log || line.points.some(point => point[1] > 0)));
  node.append(readout);
  if (!drawn.length) { readout.textContent = "no values yet"; return node; }
  const legend = drawn.length > 1 || options && options.legend;
  const left = 58, right = 10, top = 8, bottom = 24;
  const all = drawn.flatMap(line => line.points).filter(point => !log || point[1] > 0);
  const bands = drawn.flatMap(line => [...line.band || [], ...line.bars || []]).flatMap(([, low, high]) => [low, high]).filter(y => !log || y > 0);
  const xs = all.map(point => point[0]), ys = [...all.map(point => point[1]), ...bands];
  let [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  if (x0 === x1) x1 = x0 + 1;
  if (y0 === y1) { const pad = Math.abs(y0) * .05 || 1; y0 = log ? y0 / 1.05 : y0 - pad; y1 += pad; }
  else if (!log) { const pad = (y1 - y0) * .05; y0 -= pad; y1 += pad; }
  const scale = log ? Math.log : value => value;
  const scaleX = logX ? Math.log : value => value;
  const px = x => left + (scaleX(x) - scaleX(x0)) / (scaleX(x1) - scaleX(x0)) * (width - left - right);
  const py = y => top + (scale(y1) - scale(y)) / (scale(y1) - scale(y0)) * (height - top - bottom);
  const plot = svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": name + " over " + xName + "; arrow keys show values"});
  for (const y of log ? logTicks(y0, y1) : ticks(y0, y1, 4))
    plot.append(svg("line", {x1: left, x2: width - right, y1: py(y), y2: py(y), class: "grid"}),
      svg("text", {x: left - 7, y: py(y) + 4, "text-anchor": "end"}, short(y)));
  for (const x of logX ? logTicks(x0, x1) : ticks(x0, x1, Math.min(10, width / 80)))
    plot.append(svg("text", {x: px(x), y: height - 7, "text-anchor": px(x) > width - 24 ? "end" : "middle"}, short(x)));
  for (const [x, label] of marks) if (x >= x0 && x <= x1)
    plot.append(svg("line", {x1: px(x), x2: px(x), y1: top, y2: height - bottom, class: "mark"}),
      svg("text", {x: px(x) + (px(x) > width * .6 ? -5 : 5), y: top + 11, "text-anchor": px(x) > width * .6 ? "end" : "start"}, label));
  for (const line of drawn) if (line.band && line.band.length > 1) {
    const low = line.band.filter(point => !log || point[1] > 0).map(point => [point[0], point[1]]), high = line.band.map(point => [point[0], point[2]]);
    plot.append(svg("polygon", {points: [...low, ...high.reverse()].map(([x, y]) => px(x).toFixed(1) + "," + py(y).toFixed(1)).join(" "), class: "band", style: {fill: line.color}}));
  }
  for (const line of drawn) {
    const points = line.points.filter(point => !log || point[1] > 0);
    if (!line.dots) plot.append(svg("polyline", {points: points.map(point => px(point[0]).toFixed(1) + "," + py(point[1]).toFixed(1)).join(" "), class: "curve", style: {stroke: line.color}}));
    for (const [x, low, high] of line.bars || []) plot.append(svg("line", {x1: px(x), x2: px(x), y1: py(low), y2: py(high), class: "curve", style: {stroke: line.color}}));
    if (line.dots || line.style === "marked" && points.length <= 60 || points.length === 1)
      for (const point of points) plot.append(svg("circle", {cx: px(point[0]), cy: py(point[1]), r: line.dots ? 4.5 : 3, style: {fill: line.color}}));
  }
  const cursor = svg("line", {y1: top, y2: height - bottom, class: "cursor", visibility: "hidden"});
  plot.append(cursor);
  const steps = [...new Set(xs)].sort((a, b) => a - b);
  let at = steps.length - 1;
  function nearest(points, x) {
    let best = null;
    for (const point of points) if (point[0] <= x) best = point; else break;
    return best;
  }
  function show(index, pointed) {
    at = Math.max(0, Math.min(steps.length - 1, index));
    const x = steps[at];
    cursor.setAttribute("x1", px(x)); cursor.setAttribute("x2", px(x));
    cursor.setAttribute("visibility", pointed ? "visible" : "hidden");
    const parts = drawn.map(line => [line, nearest(line.points, x)]).filter(pair => pair[1]);
    readout.replaceChildren(el("b", {}, xName + " " + (logX ? short(x) : count(Math.round(x)))), ...parts.map(([line, point]) => el("span", {class: "key"},
      legend ? el("i", {style: {background: line.color}}) : null, (legend ? line.name + " " : "") + short(point[1]))));
  }
  plot.addEventListener("pointermove", event => {
    const box = plot.getBoundingClientRect(), share = ((event.clientX - box.left) / box.width * width - left) / (width - left - right);
    const x = logX ? x0 * (x1 / x0) ** share : x0 + share * (x1 - x0);
    let low = 0, high = steps.length - 1;
    while (low < high) { const middle = (low + high) >> 1; if (steps[middle] < x) low = middle + 1; else high = middle; }
    show(low > 0 && x - steps[low - 1] < steps[low] - x ? low - 1 : low, true);
  });
  plot.addEventListener("pointerleave", () => show(steps.length - 1, false));
  plot.addEventListener("keydown", event => {
    const move = {ArrowLeft: -1, ArrowRight: 1, Home: -steps.length, End: steps.length}[event.key];
    if (!move) return;
    event.preventDefault();
    show(at + move, true);
  });
  plot.addEventListener("blur", () => show(steps.length - 1, false));
  show(at, false);
  node.prepend(plot);
  return node;
}
