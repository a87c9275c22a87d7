// The charts: points on two axes, lines over examples, lines across settings. They show what they are given.

// Two scales with grid lines and names; returns the place inside.
function axes(root, width, height, spec) {
  const margin = { left: spec.left || 58, right: 16, top: 14, bottom: 48 };
  const x = scaleOf(spec.xs, margin.left, width - margin.right, spec.logX);
  const y = scaleOf(spec.ys, height - margin.bottom, margin.top, spec.logY);
  const across = Math.max(2, Math.floor(width / 110));
  for (const value of y.ticks(6)) {
    root.append(svg("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: y(value), y2: y(value) }),
      svg("text", { x: margin.left - 9, y: y(value) + 4, "text-anchor": "end" }, short(value)));
  }
  for (const value of x.ticks(across)) {
    root.append(svg("line", { class: "axis", x1: x(value), x2: x(value), y1: height - margin.bottom, y2: height - margin.bottom + 5 }),
      svg("text", { x: x(value), y: height - margin.bottom + 19, "text-anchor": "middle" }, short(value)));
  }
  root.append(
    svg("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: height - margin.bottom, y2: height - margin.bottom }),
    svg("text", { class: "name", x: width - margin.right, y: height - 7, "text-anchor": "end" }, `${spec.xName} →`),
    svg("text", { class: "name", x: 2, y: 2, "dominant-baseline": "hanging" }, `↑ ${spec.yName}`));
  return { x, y, margin, width, height };
}

function canvas(host, width, height, label) {
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  host.replaceChildren(root);
  return root;
}

// The stairs of the points that nothing beats on two axes.
function stairs(points, goalX, goalY) {
  const sign = goalX === "max" ? -1 : 1, up = goalY === "max" ? 1 : -1;
  const ordered = [...points].sort((one, other) => sign * (one.x - other.x) || up * (other.y - one.y));
  const kept = [];
  for (const point of ordered) {
    if (!kept.length || up * point.y > up * kept[kept.length - 1].y) kept.push(point);
  }
  return kept.sort((one, other) => one.x - other.x);
}

function stairsPath(kept, goalX, place) {
  return kept.map((point, index) => {
    const x = place.x(point.x), y = place.y(point.y);
    if (!index) return `M${x} ${y}`;
    return goalX === "max" ? `V${y}H${x}` : `H${x}V${y}`;
  }).join("");
}

// Labels beside their marks, each only where it covers no other label and no mark.
function placeLabels(root, wanted, taken, width) {
  const boxes = taken.map(({ x, y }) => [x - 6, y - 6, x + 6, y + 6]);
  for (const { x, y, text } of wanted) {
    const wide = text.length * 6.6 + 4;
    const places = [[x + 10, y - 6], [x - wide - 10, y - 6], [x - wide / 2, y - 24], [x - wide / 2, y + 11], [x + 9, y + 6], [x + 9, y - 20]];
    const free = places.map(([left, top]) => [left, top, left + wide, top + 14]).find((box) =>
      box[0] > 0 && box[2] < width && box[1] > 8 &&
      boxes.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]));
    if (!free) continue;
    boxes.push(free);
    root.append(svg("text", { class: "label", x: free[0], y: free[1] + 11 }, text));
  }
}

// Pointer and arrow keys go from mark to mark; `told` says what one is, `chosen` is called with Enter or a click.
function walk(host, root, marks, told, chosen, label) {
  root.setAttribute("tabindex", "0");
  root.setAttribute("role", "group");
  root.setAttribute("aria-roledescription", "chart");
  root.setAttribute("aria-label", `${label}. Arrow keys go from point to point, Enter shows one in the table.`);
  const ring = svg("circle", { class: "focus", r: 10, visibility: "hidden" });
  root.append(ring);
  const order = [...marks].sort((one, other) => one.x - other.x || other.y - one.y);
  let at = -1;
  const on = (mark, speaks) => {
    ring.setAttribute("visibility", "visible");
    ring.setAttribute("cx", mark.x);
    ring.setAttribute("cy", mark.y);
    const { title, lines } = told(mark);
    const where = () => {
      const box = root.getBoundingClientRect();
      return { x: box.left + mark.x, y: box.top + mark.y };
    };
    tell(title, lines, where, speaks);
    if (speaks) spoken.textContent = [title, ...lines.map(([text]) => text)].join(", ");
    at = order.indexOf(mark);
  };
  const off = () => { ring.setAttribute("visibility", "hidden"); hush(); };
  const near = (event) => {
    const box = root.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    let best = null, least = 26;
    for (const mark of marks) {
      const far = Math.hypot(mark.x - x, mark.y - y) + (mark.faint ? 4 : 0);
      if (far < least) { best = mark; least = far; }
    }
    return best;
  };
  root.addEventListener("pointermove", (event) => { const mark = near(event); if (mark) on(mark, false); else off(); });
  root.addEventListener("pointerleave", off);
  root.addEventListener("click", (event) => { const mark = near(event); if (mark) chosen(mark); });
  root.addEventListener("blur", off);
  root.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.key === "Enter" && at >= 0) { chosen(order[at]); return; }
    if (!(event.key in steps || event.key === "Home" || event.key === "End") || !order.length) return;
    event.preventDefault();
    const next = event.key === "Home" ? 0 : event.key === "End" ? order.length - 1 : at + steps[event.key];
    on(order[Math.max(0, Math.min(order.length - 1, next))], true);
  });
}

// Lines of one measure over examples. `series`: {points: [[x, y]], paint, strong, dashed, told}.
function lineChart(host, width, spec) {
  const height = width > 640 ? 360 : 290;
  const root = canvas(host, width, height, spec.label);
  const all = spec.series.flatMap((item) => item.points);
  const place = axes(root, width, height, { ...spec, xs: [...all.map((point) => point[0]), ...(spec.from0 ? [0] : [])], ys: all.map((point) => point[1]) });
  for (const rung of spec.rungs || []) {
    const x = place.x(rung);
    if (x > place.margin.left && x < width - place.margin.right) root.append(svg("line", { class: "rung", x1: x, x2: x, y1: place.margin.top, y2: height - place.margin.bottom }));
  }
  const marks = [];
  for (const item of [...spec.series].sort((one, other) => Number(one.strong) - Number(other.strong))) {
    const path = item.points.map(([x, y], index) => {
      const end = `${place.x(x).toFixed(1)} ${place.y(y).toFixed(1)}`;
      if (!index) return `M${end}`;
      return item.steps ? `H${place.x(x).toFixed(1)}V${place.y(y).toFixed(1)}` : `L${end}`;
    }).join("");
    root.append(svg("path", { class: "line", d: path, stroke: item.paint, "stroke-width": item.strong ? 2.2 : 1.2, "stroke-opacity": item.strong ? 0.95 : 0.3, "stroke-dasharray": item.dashed || null }));
    item.points.forEach(([x, y], index) => {
      const mark = { x: place.x(x), y: place.y(y), item, index, faint: !item.strong };
      marks.push(mark);
      if (item.strong || item.points.length === 1) root.append(svg("circle", { cx: mark.x, cy: mark.y, r: item.strong ? 2.8 : 1.8, fill: item.paint, "fill-opacity": item.strong ? 1 : 0.4 }));
    });
  }
  walk(host, root, marks, (mark) => mark.item.told(mark.index), (mark) => spec.chosen && spec.chosen(mark.item), spec.label);
}

// A name in one line, or in two that are broken at a space; what does not fit is cut.
function inTwoLines(name, most) {
  const cut = (text) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const space = name.length > most ? name.lastIndexOf(" ", most) : -1;
  return space > 0 ? [name.slice(0, space + 1), cut(name.slice(space + 1))] : [cut(name)];
}

// One line for each model across several settings and measures.
function parallelChart(host, width, spec) {
  const gap = Math.max(104, (width - 90) / Math.max(1, spec.dimensions.length - 1));
  const wide = Math.max(width, gap * (spec.dimensions.length - 1) + 90), height = 340, top = 46, bottom = height - 26;
  const root = canvas(host, wide, height, spec.label);
  root.style.width = `${wide}px`;
  const columns = spec.dimensions.map((dimension, index) => {
    const x = 45 + index * ((wide - 90) / Math.max(1, spec.dimensions.length - 1));
    const values = spec.rows.map((row) => row[dimension.key]).filter((value) => value !== null && value !== undefined);
    const isNumber = values.length > 0 && values.every((value) => typeof value === "number") && unique(values).length > 1;
    const levels = isNumber ? null : unique(values.map(String)).sort();
    const isLog = isNumber && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) >= 8;
    const scale = isNumber ? scaleOf(values, bottom, top, isLog) : (value) => levels.length < 2 ? (top + bottom) / 2 : bottom - (levels.indexOf(String(value)) / (levels.length - 1)) * (bottom - top - 16) - 8;
    const absent = height - 10;
    return { x, scale, levels, dimension, y: (row) => (row[dimension.key] === null || row[dimension.key] === undefined ? absent : scale(row[dimension.key])) };
  });
  const lines = spec.rows.map((row) => ({ row, strong: row.place === "front", at: columns.map((column) => [column.x, column.y(row)]) }));
  for (const line of lines.sort((one, other) => Number(one.strong) - Number(other.strong))) {
    root.append(svg("polyline", { class: "line", points: line.at.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "), stroke: spec.paint(line.row), "stroke-width": line.strong ? 2 : 1, "stroke-opacity": line.strong ? 0.9 : 0.18 }));
  }
  for (const { x, scale, levels, dimension } of columns) {
    root.append(svg("line", { class: "axis", x1: x, x2: x, y1: top, y2: bottom }));
    // Names at the edges end there, and have half a gap to the next name on their other side.
    const isFirst = dimension === spec.dimensions[0], isLast = dimension === spec.dimensions[spec.dimensions.length - 1];
    const named = inTwoLines(dimension.label, Math.floor((isFirst || isLast ? gap / 2 + 35 : gap - 8) / 6.8));
    const place = { x: isFirst ? 4 : isLast ? wide - 8 : x, "text-anchor": isFirst ? "start" : isLast ? "end" : "middle" };
    const parts = named.map((words, line) => svg("tspan", { x: place.x, y: 14 + 16 * (line + 2 - named.length) - (named.length > 1 ? 2 : 0) }, words));
    root.append(svg("text", { class: "name", ...place }, ...parts, svg("title", {}, dimension.label)));
    const shown = levels ? levels.map((level) => [level, scale(level)]) : scale.ticks(4).map((value) => [short(value), scale(value)]);
    for (const [text, y] of shown) {
      const cut = text.length > 14 ? `${text.slice(0, 13)}…` : text;
      root.append(svg("text", { class: "label", x: x + 5, y: y + 4 }, cut));
    }
  }
  const marks = lines.flatMap((line) => line.at.map(([x, y]) => ({ x, y, row: line.row, faint: !line.strong })));
  walk(host, root, marks, (mark) => spec.told(mark.row), (mark) => spec.chosen(mark.row), spec.label);
}
