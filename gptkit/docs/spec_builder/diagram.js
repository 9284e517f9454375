"use strict";
// Drawing of an outline as SVG text, as gptkit/diagrams/{canvas,sketch,steps,drawing}.py; the bytes equal those of Python.

const Diagram = (() => {
  const WIDTH = 376, LEFT = 8, SPINE = 24, X = 60, BOX = 290, MIDDLE = 205, FEED = 44, RETURN = 361, GAP = 11, SCALE = 1.25;
  const COLORS = {tokenizer: "#e8590c", embedding: "#9c36b5", position: "#c2255c", norm: "#868e96", attention: "#3b5bdb",
    feedforward: "#0b9268", block: "#1098ad", head: "#9c36b5", sampler: "#e8590c"};
  const TYPE_COLORS = ["#3b5bdb", "#e64980", "#0b9268", "#7048e8", "#1098ad", "#868e96"];
  const {number, parameters} = Outline;

  const escape = text => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const at = value => { const text = value.toFixed(1); return text.endsWith(".0") ? text.slice(0, -2) : text; };
  const textWidth = (text, size) => [...text].length * size * 0.56;
  const pathOf = points => "M" + points.map(([x, y]) => `${at(x)} ${at(y)}`).join("L");
  const line = (points, dashed) => `<path d="${pathOf(points)}"${dashed ? ' stroke-dasharray="3 3"' : ""}/>`;

  function wrapped(parts, size, width) {
    const lines = [];
    for (const part of parts) {
      const joined = lines.length ? `${lines[lines.length - 1]} · ${part}` : part;
      if (lines.length && textWidth(joined, size) <= width) { lines[lines.length - 1] = joined; continue; }
      lines.push("");
      for (const word of part.split(" ")) {
        const last = lines[lines.length - 1], longer = last ? `${last} ${word}` : word;
        if (last && textWidth(longer, size) > width) lines.push(word); else lines[lines.length - 1] = longer;
      }
    }
    return lines;
  }

  function arrow(...points) {
    const [bx, by] = points[points.length - 2], [x, y] = points[points.length - 1];
    let wings;
    if (x === bx) { const back = y > by ? y - 4 : y + 4; wings = [[x - 3, back], [x, y], [x + 3, back]]; }
    else { const back = x > bx ? x - 4 : x + 4; wings = [[back, y - 3], [x, y], [back, y + 3]]; }
    return `<path d="${pathOf(points)}${pathOf(wings)}"/>`;
  }

  function plus(x, y) {
    const v = at(y);
    return `<circle cx="${at(x)}" cy="${v}" r="7"/><path d="M${at(x - 4)} ${v}L${at(x + 4)} ${v}M${at(x)} ${at(y - 4)}` +
      `L${at(x)} ${at(y + 4)}"/>`;
  }

  class Sketch {
    constructor() { this.rects = []; this.lines = []; this.texts = []; this.y = 4; }
    text(x, y, text, {size = 11, bold = false, end = false, muted = false} = {}) {
      const more = (bold ? ' font-weight="600"' : "") + (end ? ' text-anchor="end"' : "") + (muted ? ' fill-opacity=".72"' : "");
      this.texts.push(`<text x="${at(x)}" y="${at(y)}" font-size="${at(size)}"${more}>${escape(text)}</text>`);
    }
    box(x, width, box) {
      const top = this.y;
      this.text(x + 9, top + 16, box.title, {size: 12.5, bold: true});
      if (box.count !== null) this.text(x + width - 9, top + 16, parameters(box.count), {muted: true, end: true});
      let y = top + 24;
      for (const [phrases, muted] of [[box.facts, false], [box.shapes ? box.shapes.split(" · ") : [], true]]) {
        for (const text of wrapped(phrases, 11, width - 18)) { this.text(x + 9, y + 7, text, {muted}); y += 15; }
      }
      const height = y - top + (y > top + 24 ? 2 : 0), color = COLORS[box.role];
      this.rects.push(`<rect x="${at(x)}" y="${at(top)}" width="${at(width)}" height="${at(height)}" rx="6" ` +
        `fill="${color}" fill-opacity=".13" stroke="${color}" stroke-opacity=".6"/>`);
      this.y = top + height;
      return height;
    }
    spine(start, end, dashed) { if (end > start) this.lines.push(line([[SPINE, start], [SPINE, end]], dashed)); }
    arrowDown(shape) {
      const height = shape ? 24 : 14;
      this.lines.push(arrow([SPINE, this.y], [SPINE, this.y + height]));
      if (shape) this.text(SPINE + 12, this.y + 15.5, shape, {muted: true});
      this.y += height;
    }
    frame(top, color) {
      const stroke = color ? `stroke="${color}" stroke-width="1.5"` : 'stroke="currentColor" stroke-opacity=".45"';
      this.rects.unshift(`<rect x="2" y="${at(top)}" width="${WIDTH - 4}" height="${at(this.y - top)}" rx="8" ` +
        `fill="currentColor" fill-opacity=".025" ${stroke} stroke-dasharray="5 3"/>`);
    }
  }

  function column(sketch, parts, boxes) {
    sketch.lines.push(arrow([SPINE, sketch.y], [MIDDLE, sketch.y], [MIDDLE, sketch.y + GAP]));
    sketch.y += GAP;
    parts.forEach((part, index) => {
      if (index) { sketch.lines.push(arrow([MIDDLE, sketch.y], [MIDDLE, sketch.y + GAP])); sketch.y += GAP; }
      sketch.box(X, BOX, partOf(boxes, part));
    });
  }

  /** The box of a part; one that is the block's own has its title. */
  function partOf(boxes, part) { return boxes[part] || {role: "block", title: part, facts: [], shapes: "", count: null}; }

  function parallel(sketch, step, boxes) {
    let top;
    if (step.before.length) {
      column(sketch, step.before, boxes);
      top = sketch.y + GAP;
      sketch.lines.push(line([[MIDDLE, sketch.y], [MIDDLE, top], [FEED, top]]));
    } else {
      top = sketch.y;
      sketch.lines.push(line([[SPINE, top], [FEED, top]]));
    }
    sketch.y = top;
    let first = top, feed = top, middle = top;
    step.branches.forEach((branch, number) => {
      sketch.y += GAP;
      if (!branch.length) {
        feed = middle = sketch.y;
        sketch.lines.push(line([[FEED, middle], [X + BOX, middle]]));
      }
      branch.forEach((part, index) => {
        if (index) { sketch.lines.push(arrow([MIDDLE, sketch.y], [MIDDLE, sketch.y + GAP])); sketch.y += GAP; }
        const height = sketch.box(X, BOX, partOf(boxes, part));
        middle = sketch.y - height / 2;
        if (!index) { sketch.lines.push(arrow([FEED, middle], [X, middle])); feed = middle; }
      });
      sketch.lines.push(line([[X + BOX, middle], [RETURN, middle]]));
      if (!number) first = middle;
    });
    const end = sketch.y + GAP;
    sketch.lines.push(line([[FEED, top], [FEED, feed]]), line([[RETURN, first], [RETURN, end]]));
    return end;
  }

  function drawStep(sketch, step, factors, boxes) {
    const start = sketch.y;
    let end, back;
    sketch.y += 6;
    if (step.branches.length === 1) {
      column(sketch, [...step.before, ...step.branches[0]], boxes);
      end = sketch.y + GAP;
      back = [[MIDDLE, sketch.y], [MIDDLE, end]];
    } else {
      end = parallel(sketch, step, boxes);
      back = [[RETURN, end]];
    }
    if (step.shortcut) {
      sketch.spine(start, end - 7);
      sketch.lines.push(plus(SPINE, end), arrow(...back, [SPINE + 7, end]));
    } else {
      sketch.spine(start, start + 6);
      sketch.lines.push(line([...back, [SPINE, end]]));
    }
    if (step.scaled) sketch.text(SPINE + 12, end + 17, step.scaled, {size: 10});
    if (factors[0]) sketch.text(SPINE + 14, end - 4, factors[0], {size: 10});
    if (factors[1]) sketch.text(SPINE + 4, start + 24, factors[1], {size: 9});
    sketch.y = end + 7;
    if (!step.shortcut) sketch.spine(end, end + 7);
    if (step.scaled) {
      sketch.spine(sketch.y, sketch.y + 14);
      sketch.y += 14;
    }
    if (step.after) {
      sketch.lines.push(arrow([SPINE, sketch.y], [SPINE, sketch.y + 12]));
      sketch.y += 12;
      sketch.box(10, 340, boxes.norm);
    }
  }

  function unknown(sketch, type) {
    const start = sketch.y;
    for (const each of Object.values(type.boxes)) { sketch.y += 8; sketch.box(X, BOX, each); }
    sketch.text(X, sketch.y + 15, "This block does not declare how it connects its parts.", {muted: true});
    sketch.y += 22;
    sketch.spine(start, sketch.y, true);
  }

  function position(sketch, box) {
    const start = sketch.y;
    sketch.y += 12;
    const height = sketch.box(60, WIDTH - 68, box), middle = sketch.y - height / 2;
    sketch.spine(start, middle - 7);
    sketch.lines.push(plus(SPINE, middle), arrow([60, middle], [SPINE + 7, middle]));
    sketch.spine(middle + 7, sketch.y);
  }

  function strip(sketch, content) {
    const start = sketch.y, perRow = 41;
    sketch.text(40, sketch.y + 9, `${number(content.sequence.length)} layers`, {bold: true});
    sketch.y += 16;
    content.sequence.slice(0, 8 * perRow).forEach((type, index) => {
      const x = 40 + 8 * (index % perRow), y = sketch.y + 15 * Math.floor(index / perRow);
      sketch.rects.push(`<rect x="${x}" y="${at(y)}" width="7" height="12" rx="1.5" fill="${TYPE_COLORS[type % 6]}"/>`);
    });
    sketch.y += 15 * Math.min(8, Math.floor((content.sequence.length + perRow - 1) / perRow));
    for (const text of wrapped(content.pattern.split(" · "), 11, WIDTH - 48)) {
      sketch.text(40, sketch.y + 11, text, {muted: true});
      sketch.y += 15;
    }
    sketch.spine(start, sketch.y);
    sketch.arrowDown("");
  }

  function layers(sketch, index, type, colored) {
    const top = sketch.y, color = colored ? TYPE_COLORS[index % 6] : "";
    let title = type.title;
    if (colored) {
      sketch.rects.push(`<rect x="40" y="${at(top + 9)}" width="8" height="12" rx="1.5" fill="${color}"/>`);
      title = `${type.label}: ${type.title}`;
    }
    const left = colored ? 54 : 40, times = `× ${number(type.times)}`;
    sketch.y += 11;
    for (const text of wrapped([title], 12.5, WIDTH - 24 - left - textWidth(times, 12.5))) {
      sketch.text(left, sketch.y + 8, text, {size: 12.5, bold: true});
      sketch.y += 15;
    }
    sketch.text(WIDTH - 12, top + 19, times, {size: 12.5, bold: true, end: true});
    const notes = type.note ? type.note.split(" · ") : [];
    if (type.count !== null) notes.unshift(`${parameters(type.count)} parameters${type.times > 1 ? " each" : ""}`);
    for (const text of wrapped(notes, 11, WIDTH - 52)) { sketch.text(40, sketch.y + 8, text, {muted: true}); sketch.y += 15; }
    sketch.spine(top, sketch.y);
    if (type.steps === null) unknown(sketch, type);
    else type.steps.forEach((step, number) => drawStep(sketch, step, type.factors[number], type.boxes));
    const start = sketch.y;
    sketch.y += 8;
    sketch.spine(start, sketch.y);
    sketch.frame(top, color);
  }

  /** The diagram of an outline, for a page that sets its text color; `standalone` for a file of its own. */
  function svg(content, standalone = false) {
    const sketch = new Sketch();
    if (content.title) { sketch.text(8, sketch.y + 12, content.title, {size: 15, bold: true}); sketch.y += 22; }
    for (const text of wrapped(content.summary.split(" · "), 11, WIDTH - 16)) {
      sketch.text(8, sketch.y + 8, text, {muted: true});
      sketch.y += 15;
    }
    sketch.y += 4;
    content.before.forEach((each, index) => {
      if (index) sketch.arrowDown(content.ids);
      sketch.box(LEFT, WIDTH - 2 * LEFT, each);
    });
    if (content.position) position(sketch, content.position);
    sketch.arrowDown(content.shape);
    if (content.types.length > 1) strip(sketch, content);
    content.types.forEach((type, index) => {
      if (index) sketch.arrowDown("");
      layers(sketch, index, type, content.types.length > 1);
    });
    for (const each of content.after) {
      sketch.arrowDown(each.role === "sampler" ? content.logits : content.shape);
      sketch.box(LEFT, WIDTH - 2 * LEFT, each);
    }
    sketch.arrowDown("next token");
    const style = "<!-- Drawn by gptkit. --><style>:root{color:#1f2328}" +
      "@media(prefers-color-scheme:dark){:root{color:#e6edf3}}</style>";
    const name = content.title ? `Architecture of ${content.title}` : "Architecture";
    return `<svg xmlns="http://www.w3.org/2000/svg" class="architecture" role="img" viewBox="0 0 ${WIDTH} ${at(sketch.y + 2)}" ` +
      `width="${Math.floor(WIDTH * SCALE)}" height="${Math.floor((sketch.y + 2) * SCALE)}" ` +
      'font-family="system-ui,-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif">' +
      `${standalone ? style : ""}<title>${escape(name)}</title><desc>${escape(Outline.text(content))}</desc>` +
      `${sketch.rects.join("")}<g fill="none" stroke="currentColor" stroke-opacity=".7" stroke-linecap="round">` +
      `${sketch.lines.join("")}</g><g fill="currentColor">${sketch.texts.join("")}</g></svg>\n`;
  }

  return {svg};
})();
