// Elements, numbers, scales: what every chart and table of the page is made of. Text reaches the page as text nodes alone.
const story = JSON.parse(document.getElementById("story").textContent);
const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8;
const NONE = "–";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
const colour = (place) => `var(--c${place % COLOURS})`;

function decode(table) {
  const rows = Array.from({ length: table.count }, () => ({}));
  for (const column of table.columns) {
    const { key } = column;
    if (column.numbers) column.numbers.forEach((value, row) => (rows[row][key] = value));
    else column.at.forEach((place, row) => (rows[row][key] = place < 0 ? null : column.levels[place]));
  }
  return rows;
}

function show(value) {
  if (value === null || value === undefined || value === "") return NONE;
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return Math.abs(value) >= 10000 ? value.toLocaleString("en-US") : String(value);
  const size = Math.abs(value);
  if (size >= 10000) return Math.round(value).toLocaleString("en-US");
  return size >= 0.1 ? value.toFixed(2) : String(Number(value.toPrecision(3)));
}

const plural = (count, noun) => `${show(count)} ${noun}${count === 1 ? "" : "s"}`;
const unique = (values) => [...new Set(values)];
const titled = (axis) => `${axis.label} [${axis.unit}]`;
const better = (goal) => (goal === "max" ? "more is better" : "less is better");

function scaleOf(values, from, to, isLog) {
  const known = values.filter((value) => Number.isFinite(value) && (!isLog || value > 0));
  const change = isLog ? Math.log : (value) => value;
  let low = Math.min(...(known.length ? known : [1]));
  let high = Math.max(...(known.length ? known : [1]));
  let first = change(low), last = change(high);
  const room = (last - first || Math.abs(last) || 1) * 0.06;
  first -= room;
  last += room;
  if (!isLog && low >= 0 && first < 0) first = 0;
  const place = (value) => from + ((change(value) - first) / (last - first)) * (to - from);
  const back = isLog ? Math.exp : (value) => value;
  place.ticks = (count) => (isLog ? logTicks : ticks)(back(first), back(last), count);
  place.isLog = isLog;
  return place;
}

function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) || rough;
  const found = [];
  for (let place = Math.ceil(low / step); place * step <= high + step * 1e-9; place += 1) {
    found.push(Number((place * step).toPrecision(12)));
  }
  return found;
}

function logTicks(low, high, count) {
  for (const factors of [[1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const factor of factors) {
        const value = Number((factor * 10 ** power).toPrecision(3));
        if (value >= low && value <= high) found.push(value);
      }
    }
    if (found.length <= count + 2) return found.length > 1 ? found : ticks(low, high, count);
  }
  return ticks(low, high, count);
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${Number((value / 1e9).toPrecision(4))}G`;
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  if (size > 0 && size < 1e-3) return value.toExponential(0);
  return String(Number(value.toPrecision(4)));
}

// Marks of different shape and about equal area, around (x, y).
const SHAPES = [
  (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  (x, y, r) => `M${x - r * 0.88} ${y - r * 0.88}h${r * 1.76}v${r * 1.76}h${-r * 1.76}Z`,
  (x, y, r) => `M${x} ${y - r * 1.25}L${x + r * 1.2} ${y + r * 0.85}H${x - r * 1.2}Z`,
  (x, y, r) => `M${x} ${y - r * 1.3}L${x + r * 1.3} ${y}L${x} ${y + r * 1.3}L${x - r * 1.3} ${y}Z`,
  (x, y, r) => `M${x} ${y + r * 1.25}L${x + r * 1.2} ${y - r * 0.85}H${x - r * 1.2}Z`,
  (x, y, r) => {
    const a = r * 0.42, b = r * 1.2;
    return `M${x - a} ${y - b}h${2 * a}v${b - a}h${b - a}v${2 * a}h${a - b}v${b - a}h${-2 * a}v${a - b}h${a - b}v${-2 * a}h${b - a}Z`;
  },
  (x, y, r) => {
    const corner = (turn) => `${x + r * 1.15 * Math.sin(turn)} ${y - r * 1.15 * Math.cos(turn)}`;
    return `M${[0, 1, 2, 3, 4].map((part) => corner((part * 2 * Math.PI) / 5)).join("L")}Z`;
  },
  (x, y, r) => {
    const corner = (turn) => `${x + r * 1.1 * Math.sin(turn)} ${y - r * 1.1 * Math.cos(turn)}`;
    return `M${[0, 1, 2, 3, 4, 5].map((part) => corner((part * Math.PI) / 3 + Math.PI / 6)).join("L")}Z`;
  },
];
const shape = (place, x, y, r) => SHAPES[place % SHAPES.length](x, y, r);

function swatch(shapePlace, paint, hollow) {
  const mark = svg("path", { d: shape(shapePlace, 7, 7, 4.6), fill: hollow ? "none" : paint, stroke: paint, "stroke-width": 1.3 });
  return svg("svg", { class: "swatch", width: 14, height: 14, "aria-hidden": "true" }, mark);
}

const tip = el("div", { id: "tip", role: "tooltip", hidden: true });
const spoken = el("div", { class: "hidden", "aria-live": "polite" });
document.body.append(tip, spoken);

// `where` returns the place in the window. What keys opened stays beside its mark while the page scrolls to it.
let tipPlace = null;
function tell(title, lines, where, stays) {
  tipPlace = stays ? where : null;
  tip.replaceChildren(el("strong", {}, title), ...lines.map(([text, isValue]) => el("div", { class: isValue ? "value" : null }, text)));
  tip.hidden = false;
  putTip(where());
}
function putTip(place) {
  const box = tip.getBoundingClientRect();
  const left = place.x + 16 + box.width > window.innerWidth ? place.x - 16 - box.width : place.x + 16;
  const top = place.y + 16 + box.height > window.innerHeight ? place.y - 12 - box.height : place.y + 14;
  tip.style.left = `${Math.max(6, Math.min(left, window.innerWidth - box.width - 6))}px`;
  tip.style.top = `${Math.max(6, top)}px`;
}
const hush = () => { tip.hidden = true; tipPlace = null; };
window.addEventListener("scroll", () => { if (tipPlace) putTip(tipPlace()); else hush(); }, { passive: true });
window.addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });

// Draws now, and again where the width of the place changes.
function drawnInto(host, paint) {
  let width = 0;
  const again = () => {
    width = host.clientWidth;
    if (width) paint(width);
  };
  new ResizeObserver(() => { if (host.clientWidth !== width) again(); }).observe(host);
  return again;
}

function copyButton(text, name) {
  const button = el("button", { type: "button", "aria-label": `Copy: ${name}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(button.parentElement.querySelector("code"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

function choose(name, options, value, onchange) {
  const select = el("select", { onchange: () => onchange(select.value) },
    options.map(([key, text]) => el("option", { value: key, selected: key === value }, text)));
  return el("label", { class: "field" }, `${name} `, select);
}

function tick(name, value, onchange) {
  const box = el("input", { type: "checkbox", checked: value, onchange: () => onchange(box.checked) });
  return el("label", {}, box, ` ${name}`);
}

function section(id, title, lead, ...children) {
  const heading = `${id}-title`;
  return el("section", { id, "aria-labelledby": heading }, el("h2", { id: heading }, title), lead && el("p", { class: "lead" }, lead), children);
}

function simpleTable(caption, headings, rows) {
  const cell = (value) => el("td", { class: typeof value === "number" ? "number" : null }, value instanceof Node ? value : show(value));
  const isNumber = (place) => rows.length > 0 && rows.every((row) => typeof row[place] === "number");
  const heads = headings.map((text, place) => el("th", { scope: "col", class: isNumber(place) ? "number" : null }, text));
  const table = el("table", {}, caption && el("caption", {}, caption), el("thead", {}, el("tr", {}, heads)),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell)))));
  return el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": caption || headings.join(", ") }, table);
}
