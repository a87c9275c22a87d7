// The report of one sweep.
function report(page) {
  const rows = decode(story.rows);
  for (const row of rows) row.id = row.form ? `${row.trial} ${row.form}` : row.trial;
  const axisOf = Object.fromEntries(story.axes.map((axis) => [axis.name, axis]));
  const families = unique(rows.map((row) => row.family).filter(Boolean)).sort();
  const methods = unique(rows.map((row) => row.methods).filter(Boolean)).sort();
  const paint = (row) => colour(Math.max(0, families.indexOf(row.family)));
  const front = rows.filter((row) => row.place === "front");
  const points = rows.filter((row) => row.place === "front" || row.place === "behind");
  const [first, second] = [story.objectives[0], story.objectives[1] || null];
  const measured = (name, value) => (typeof value === "number" && axisOf[name].unit !== "bytes" && Math.abs(value) < 10000 ? value.toFixed(2) : show(value));
  const rangeOf = (row) => `${row.em_low.toFixed(2)} to ${row.em_high.toFixed(2)}`;
  const isPercent = (name) => name === "em_percent" || name === "f1_percent";
  const withUnit = (name, value) => `${measured(name, value)}${value === null || value === undefined ? "" : ` ${axisOf[name].unit}`}`;
  const command = (row) => `${story.export[0]} --trial ${row.trial}${row.form ? ` --form ${row.form}` : ""} --to ${story.export[1]}`;
  let picked = null;
  const listeners = [];
  const pick = (row) => { picked = row.id; listeners.forEach((listener) => listener(row)); };

  // The chart is drawn anew, so that the focus goes on in the table, where the row is read.
  function showInTable() {
    document.getElementById("models").scrollIntoView();
    const row = document.querySelector(".models tr.picked");
    if (!row) return;
    row.tabIndex = -1;
    row.focus({ preventScroll: true });
  }

  function told(row) {
    const lines = [];
    if (row.place === "rung") lines.push([`${row.status}, as it stood after ${show(row.examples)} examples (selection questions)`]);
    for (const axis of story.axes) {
      if (row[axis.name] === null || row[axis.name] === undefined) continue;
      if (!axis.is_objective && !isPercent(axis.name)) continue;
      const range = axis.name === "em_percent" && row.em_low !== null && row.em_low !== undefined ? ` (${rangeOf(row)})` : "";
      lines.push([`${axis.label}: ${withUnit(axis.name, row[axis.name])}${range}`, true]);
    }
    lines.push([`${row.family}, ${row.methods}, ${row.checkpoint}${row.bits ? `, ${row.bits} bits` : ""}`]);
    const own = story.settings.filter((path) => row[`set:${path}`] !== null && row[`set:${path}`] !== undefined);
    if (own.length) lines.push([own.map((path) => `${lastPart(path)} ${show(row[`set:${path}`])}`).join(", ")]);
    if (row.twin) lines.push([`exact match against the network as trained: ${row.twin}`]);
    if (row.tied) lines.push([`tied with the smaller ${row.tied}`]);
    const marks = [row.place === "front" ? "on the front" : null, row.knee ? "knee" : null].filter(Boolean).join(", ");
    return { title: marks ? `${row.id} · ${marks}` : row.id, lines };
  }

  const lastPart = (path) => path.split(".").slice(path.startsWith("methods.") ? -2 : -1).join(" ").replaceAll("_", " ");

  function header() {
    const best = front[0];
    const counts = Object.entries(story.counts).map(([status, count]) => `${count} ${status === "ok" ? "finished" : status}`).join(", ");
    const facts = [["On the front", `${front.length}`, `of ${plural(points.length, "comparable model")}`]];
    if (best) facts.push([`Best ${axisOf[first.name].label}`, withUnit(first.name, best[first.name]), second ? `at ${withUnit(second.name, best[second.name])}, ${best.id}` : best.id]);
    if (best && second) {
      const sign = second.goal === "max" ? -1 : 1;
      const least = [...front].sort((one, other) => sign * (one[second.name] - other[second.name]))[0];
      facts.push([`${second.goal === "max" ? "Most" : "Least"} ${axisOf[second.name].label}`, withUnit(second.name, least[second.name]), `with ${withUnit(first.name, least[first.name])}, ${least.id}`]);
    }
    facts.push(["Hypervolume", show(story.hypervolume), story.objectives.map((item) => item.unit).join(" × ")]);
    facts.push(["Trials", show(Object.values(story.counts).reduce((sum, count) => sum + count, 0)), counts || "none yet"]);
    page.append(el("header", {},
      el("div", { class: "eyebrow" }, "Sweep report", el("span", { class: `chip ${story.state}` }, story.state), el("span", {}, `written ${story.written.replace("T", " ").replace("+00:00", " UTC")}`)),
      el("h1", {}, story.name),
      el("p", { class: "lead" }, asked()),
      story.notes.map((note) => el("div", { class: "note" }, note)),
      story.state === "running" ? el("p", { class: "hint" }, "The sweep still runs. This page reads itself anew every 20 seconds until you click or type.") : null,
      el("dl", { class: "figures" }, facts.map(([name, value, more]) => el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", {}, more)))))));
  }

  function asked() {
    const wanted = story.objectives.map((item) => `${axisOf[item.name].label} (${better(item.goal)})`).join(" and ");
    const budget = story.asked.budget;
    const trials = budget.trials ? ` in at most ${budget.trials} trials` : "";
    const examples = budget.examples ? ` of ${show(Number(budget.examples))} training examples each` : "";
    const memory = budget.max_memory_mb ? `, below ${budget.max_memory_mb} MB` : "";
    return `Asked for: the best ${wanted}${trials}${examples}${memory}. The searcher ${story.asked.searcher} proposed, the scheduler ${story.asked.scheduler} stopped.`;
  }

  function question() {
    const facts = [["Folder", story.folder]];
    for (const [name, value] of Object.entries(story.asked.budget)) facts.push([`budget.${name}`, value]);
    for (const [name, value] of Object.entries(story.asked.data)) facts.push([`data.${name}`, value]);
    for (const [name, value] of Object.entries(story.asked.forms)) facts.push([`forms.${name}`, value]);
    facts.push(["Seed", show(story.asked.seed)], ["Devices", story.asked.devices.join("; ") || NONE], ["Versions", story.asked.versions || NONE], ["Commit", story.asked.commit || "not recorded"]);
    const code = story.asked.command ? el("div", { class: "block" }, el("code", {}, story.asked.command), copyButton(story.asked.command, "the command of the sweep")) : null;
    page.append(section("asked", "What was asked", null, code,
      simpleTable("Objectives", ["objective", "goal", "counts from", "unit"], story.objectives.map((item) => [axisOf[item.name].label, better(item.goal), show(item.reference), item.unit])),
      el("details", {}, el("summary", {}, `Search space, ${plural(story.asked.space.length, "entry").replace("entrys", "entries")}`),
        simpleTable("Search space", ["setting", "drawn", "values", "when"], story.asked.space.map((item) => [item.set, item.how, item.values, item.when || "always"]))),
      el("details", {}, el("summary", {}, "Budget, data, versions"), el("dl", { class: "facts" }, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])))));
  }

  function frontChart() {
    const state = { x: (second || first).name, y: first.name, logX: false, logY: false, faint: true, hidden: new Set() };
    if (!second) state.x = "examples";
    const options = story.axes.map((axis) => [axis.name, titled(axis)]);
    const across = second ? options : [["examples", "examples seen"], ...options];
    const host = el("div", { class: "chart" });
    const note = el("p", { class: "hint" });
    const name = (key) => (axisOf[key] ? titled(axisOf[key]) : "examples seen");
    const goal = (key) => (axisOf[key] ? axisOf[key].goal : "min");
    const again = drawnInto(host, (width) => {
      const height = width > 640 ? 480 : 380;
      const has = (row) => Number.isFinite(row[state.x]) && Number.isFinite(row[state.y]);
      const seen = (row) => !state.hidden.has(`family ${row.family}`) && !state.hidden.has(`method ${row.methods}`) && has(row) &&
        (!state.logX || row[state.x] > 0) && (!state.logY || row[state.y] > 0);
      const drawn = points.filter(seen);
      const faint = state.faint ? rows.filter((row) => row.place === "rung" && seen(row)) : [];
      const isEm = state.y === "em_percent";
      const baselines = isEm ? Object.entries(story.baselines).filter(([, value]) => !state.logY || value > 0) : [];
      const shown = [...drawn, ...faint];
      const label = `${name(state.y)} against ${name(state.x)}: ${front.filter(seen).length} models on the front, ${drawn.length} compared, ${faint.length} stopped, paused or running`;
      const root = canvas(host, width, height, label);
      if (!shown.length) { root.append(svg("text", { x: 20, y: 60 }, "No model has both measures yet.")); return; }
      const place = axes(root, width, height, {
        xs: shown.map((row) => row[state.x]), ys: [...shown.map((row) => row[state.y]), ...baselines.map(([, value]) => value)],
        logX: state.logX, logY: state.logY, xName: name(state.x), yName: name(state.y),
      });
      for (const [text, value] of baselines) {
        root.append(svg("line", { class: "baseline", x1: place.margin.left, x2: width - place.margin.right, y1: place.y(value), y2: place.y(value) }));
      }
      baselines.sort((one, other) => other[1] - one[1]);
      let above = -Infinity;
      for (const [text, value] of baselines) {
        const y = Math.max(place.y(value) - 4, above + 13);
        above = y;
        root.append(svg("text", { class: "label", x: width - place.margin.right, y, "text-anchor": "end" }, `baseline: ${text}`));
      }
      const kept = stairs(drawn.map((row) => ({ x: row[state.x], y: row[state.y] })), goal(state.x), goal(state.y));
      root.append(svg("path", { class: "stairs", d: stairsPath(kept, goal(state.x), place) }));
      const marks = [];
      const put = (row, size, attributes) => {
        const mark = { x: place.x(row[state.x]), y: place.y(row[state.y]), row, faint: row.place === "rung" };
        marks.push(mark);
        root.append(svg("path", { d: shape(methods.indexOf(row.methods), mark.x, mark.y, size), "data-model": row.id, "data-place": row.place, ...attributes }));
        return mark;
      };
      for (const row of faint) put(row, 3.6, { fill: "none", stroke: paint(row), "stroke-width": 1, "stroke-opacity": 0.42 });
      for (const row of drawn) if (row.place === "behind") put(row, 4.6, { fill: paint(row), "fill-opacity": 0.4, stroke: paint(row), "stroke-opacity": 0.5 });
      const labels = [];
      for (const row of drawn) {
        if (row.place !== "front") continue;
        const x = place.x(row[state.x]), y = place.y(row[state.y]);
        if (Number.isFinite(row.em_low) && (isEm || state.x === "em_percent")) {
          const [low, high] = isEm ? [place.y(row.em_low), place.y(row.em_high)] : [place.x(row.em_low), place.x(row.em_high)];
          const inside = (value, from, to) => Math.max(from, Math.min(to, Number.isFinite(value) ? value : to));
          const line = isEm
            ? { x1: x, x2: x, y1: inside(low, place.margin.top, height - place.margin.bottom), y2: inside(high, place.margin.top, height - place.margin.bottom) }
            : { y1: y, y2: y, x1: inside(low, place.margin.left, width), x2: inside(high, place.margin.left, width) };
          root.append(svg("line", { class: "interval", stroke: paint(row), ...line }));
        }
        if (row.knee) root.append(svg("circle", { class: "ring", cx: x, cy: y, r: 11 }));
        put(row, 6.4, { fill: paint(row), stroke: "var(--paper)", "stroke-width": 1.2 });
        if (row.id === picked) root.append(svg("circle", { class: "focus", cx: x, cy: y, r: 13 }));
        const words = [row.knee ? "knee" : null, row.form || (row.bits && row.bits < 32 ? `${row.bits} bits` : null), row.tied ? "≈" : null].filter(Boolean).join(" ");
        if (words) labels.push({ x, y, text: words });
      }
      placeLabels(root, labels, marks.filter((mark) => mark.row.place === "front"), width);
      walk(host, root, marks, (mark) => told(mark.row), (mark) => { pick(mark.row); showInTable(); }, label);
      const isOwn = second ? [first.name, second.name].includes(state.x) && [first.name, second.name].includes(state.y) && story.objectives.length === 2 : true;
      note.textContent = isOwn ? "" : "The line joins what nothing beats on these two axes alone. Large filled marks are on the front of all objectives of the sweep.";
    });
    const flip = (key, button) => {
      if (state.hidden.has(key)) state.hidden.delete(key); else state.hidden.add(key);
      button.setAttribute("aria-pressed", String(!state.hidden.has(key)));
      again();
    };
    const entry = (key, text, mark) => {
      const button = el("button", { type: "button", "aria-pressed": "true" }, mark, text);
      button.addEventListener("click", () => flip(key, button));
      return button;
    };
    const legend = el("div", { class: "legend", role: "group", "aria-label": "Families by colour, methods by shape; press to hide" },
      families.map((family, index) => entry(`family ${family}`, family, swatch(0, colour(index)))),
      methods.length > 1 ? methods.map((method, index) => entry(`method ${method}`, method, swatch(index, "var(--quiet)", true))) : null);
    const marks = ["large: on the front", "small: beaten", story.rows.count && rows.some((row) => row.place === "rung") ? "hollow: stopped, paused or running, at its last rung" : null,
      front.some((row) => row.knee) ? "ringed: knee" : null, front.some((row) => Number.isFinite(row.em_low)) ? `bar: 95 % interval over ${front.find((row) => row.by).by}` : null,
      front.some((row) => row.tied) ? "≈: a smaller model of the front is tied" : null].filter(Boolean).join(" · ");
    listeners.push(again);
    page.append(section("front", "The front", "What nothing else beats: more of the one costs more of the other.",
      el("div", { class: "controls" },
        choose("Up", options, state.y, (value) => { state.y = value; again(); }),
        choose("Across", across, state.x, (value) => { state.x = value; again(); }),
        tick("log across", false, (value) => { state.logX = value; again(); }),
        tick("log up", false, (value) => { state.logY = value; again(); }),
        rows.some((row) => row.place === "rung") ? tick("stopped and paused", true, (value) => { state.faint = value; again(); }) : null),
      host, legend, el("p", { class: "hint" }, marks), note));
    again();
  }

  function table() {
    const PAGE = 50;
    const state = { filter: front.length ? "front" : "all", text: "", key: null, down: false, shown: PAGE };
    const own = new Set(story.objectives.map((item) => item.name));
    const measures = story.axes.filter((axis) => own.has(axis.name) || rows.some((row) => Number.isFinite(row[axis.name])));
    const has = (key) => rows.some((row) => row[key] !== null && row[key] !== undefined);
    const columns = [
      { key: "id", name: "model" },
      ...measures.filter((axis) => own.has(axis.name)).map((axis) => ({ key: axis.name, name: titled(axis), number: true })),
      has("em_low") ? { key: "em_low", name: "95 % interval", text: (row) => (Number.isFinite(row.em_low) ? rangeOf(row) : ""), number: true } : null,
      { key: "place", name: "marks", text: (row) => [row.place === "front" ? "front" : null, row.knee ? "knee" : null, row.tied ? `≈ ${row.tied}` : null, row.place === "rung" ? "at its last rung" : null].filter(Boolean).join(", ") },
      has("twin") ? { key: "twin", name: "EM against the network as trained" } : null,
      { key: "kept", name: "export", command: true },
      { key: "family", name: "family" }, { key: "methods", name: "methods" },
      has("bits") ? { key: "bits", name: "bits", number: true } : null,
      has("table_bits") ? { key: "table_bits", name: "bits of tables", number: true } : null,
      { key: "checkpoint", name: "checkpoint" },
      has("head") ? { key: "head", name: "head" } : null,
      ...story.settings.map((path) => ({ key: `set:${path}`, name: lastPart(path), title: path, number: rows.some((row) => typeof row[`set:${path}`] === "number") })),
      ...measures.filter((axis) => !own.has(axis.name)).map((axis) => ({ key: axis.name, name: titled(axis), number: true })),
      { key: "examples", name: "examples", number: true },
      has("seconds") ? { key: "seconds", name: "seconds", number: true } : null,
      { key: "seed", name: "seed", number: true }, { key: "status", name: "status" },
      has("why") ? { key: "why", name: "reason", why: true } : null,
    ].filter(Boolean);
    const heads = columns.map((column) => {
      const button = el("button", { type: "button", title: column.title || null }, column.name);
      const head = el("th", { scope: "col", class: column.number ? "number" : null, "aria-sort": "none" }, button);
      button.addEventListener("click", () => {
        state.down = state.key === column.key ? !state.down : Boolean(column.number) && (axisOf[column.key] || {}).goal === "max";
        state.key = column.key;
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
        fillIn();
      });
      return head;
    });
    const body = el("tbody", {});
    const status = el("p", { class: "hint", role: "status" });
    const more = el("button", { type: "button", onclick: () => { state.shown += 200; fillIn(); } }, "Show 200 more");
    const haystack = (row) => columns.map((column) => row[column.key]).join(" ").toLowerCase();
    function wanted() {
      const kinds = { front: ["front"], compared: ["front", "behind"], all: null }[state.filter];
      const text = state.text.trim().toLowerCase();
      const found = rows.filter((row) => (!kinds || kinds.includes(row.place)) && (!text || haystack(row).includes(text)));
      if (!state.key) return found;
      const sign = state.down ? -1 : 1, key = state.key;
      const empty = (value) => value === null || value === undefined;
      return [...found].sort((one, other) => {
        const a = one[key], b = other[key];
        if (empty(a) || empty(b)) return empty(a) - empty(b);
        return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
      });
    }
    function cell(row, column) {
      if (column.key === "id") return el("th", { scope: "row" }, swatch(methods.indexOf(row.methods), paint(row), row.place === "rung"), row.id);
      if (column.command) {
        if (!row.kept) return el("td", {}, row.place === "behind" ? "artifact removed" : NONE);
        return el("td", {}, el("span", { class: "command" }, copyButton(command(row), `export of ${row.id}`), el("code", { title: command(row) }, command(row))));
      }
      if (column.why) return el("td", { class: "why" }, row.why || "");
      return el("td", { class: column.number ? "number" : null }, column.text ? column.text(row) : column.key in axisOf ? measured(column.key, row[column.key]) : show(row[column.key]));
    }
    function fillIn() {
      const found = wanted();
      body.replaceChildren(...found.slice(0, state.shown).map((row) => el("tr", { class: [row.id === picked ? "picked" : "", row.place === "rung" || row.place === "none" ? "dim" : ""].join(" ").trim() || null, "data-row": row.id }, columns.map((column) => cell(row, column)))));
      status.textContent = `${show(Math.min(found.length, state.shown))} of ${show(found.length)} shown; ${show(rows.length)} rows in all`;
      more.hidden = found.length <= state.shown;
    }
    const kinds = [["front", `Front ${front.length}`], ["compared", `Compared ${points.length}`], ["all", `All ${rows.length}`]];
    const buttons = kinds.map(([key, text]) => {
      const button = el("button", { type: "button", "aria-pressed": String(state.filter === key) }, text);
      button.addEventListener("click", () => setFilter(key));
      return button;
    });
    function setFilter(key) {
      state.filter = key;
      state.shown = PAGE;
      buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(kinds[place][0] === key)));
      fillIn();
    }
    const search = el("input", { type: "search", placeholder: "Filter, such as lora", "aria-label": "Show rows that contain this text", oninput: () => { state.text = search.value; state.shown = PAGE; fillIn(); } });
    listeners.push((row) => {
      if (state.filter !== "all" && !wanted().includes(row)) setFilter(row.place === "behind" ? "compared" : "all");
      const at = wanted().indexOf(row);
      if (at >= state.shown) state.shown = at + 1;
      fillIn();
    });
    page.append(section("models", "Every model", "The same as a table, with all searched settings and the command that exports each.",
      el("div", { class: "controls" }, el("div", { class: "segments", role: "group", "aria-label": "Which rows" }, buttons), search), status,
      el("div", { class: "region", tabindex: 0, role: "region", "aria-label": "Table of models; scrolls sideways" },
        el("table", { class: "models" }, el("caption", { class: "hidden" }, "Models of the sweep; headings sort"), el("thead", {}, el("tr", {}, heads)), body)),
      el("p", {}, more)));
    fillIn();
  }

  const shares = Object.fromEntries(story.importance.map((entry) => [entry.objective, entry.settings]));

  function parallel() {
    if (points.length < 2) return;
    const order = Object.fromEntries((shares[first.name] || []).map((item) => [item.path, item.share]));
    const fixed = { "model.family": "family", methods: "methods", "model.checkpoint": "checkpoint" };
    const known = [...Object.keys(fixed), ...story.settings.filter((path) => !(path in fixed))];
    const chosen = known.filter((path) => unique(points.map((row) => row[fixed[path] || `set:${path}`]).filter((value) => value !== null && value !== undefined)).length > 1)
      .sort((one, other) => (order[other] || 0) - (order[one] || 0)).slice(0, 8);
    const dimensions = [...chosen.map((path) => ({ key: fixed[path] || `set:${path}`, label: lastPart(path) })),
      ...story.objectives.map((item) => ({ key: item.name, label: `${axisOf[item.name].label} [${item.unit}]` }))];
    const state = { onlyFront: false };
    const host = el("div", { class: "chart" });
    const label = "Settings and objectives of each compared model, one line for each";
    const again = drawnInto(host, (width) => parallelChart(host, width, { rows: state.onlyFront ? front : points, dimensions, paint, told, chosen: pick, label }));
    page.append(section("parallel", "Settings side by side", "One line for each compared model; those of the front are strong. A line at the very bottom has no such setting.",
      el("div", { class: "controls" }, tick("front only", false, (value) => { state.onlyFront = value; again(); })), el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": label }, host)));
    again();
  }

  function importance() {
    const found = story.importance.filter((entry) => entry.settings.length);
    if (!found.length) return;
    const tables = found.map((entry) => el("div", {}, el("h3", {}, axisOf[entry.objective].label),
      el("table", { class: "importance" }, el("caption", { class: "hidden" }, `Share of the differences in ${axisOf[entry.objective].label} that a setting explains`),
        el("thead", { class: "hidden" }, el("tr", {}, ["setting", "share", "percent"].map((text) => el("th", { scope: "col" }, text)))),
        el("tbody", {}, entry.settings.slice(0, 10).map((item) => {
          const bar = el("span", { class: "bar", title: `${item.models} models in ${item.groups} groups` });
          bar.style.width = `${Math.max(0.4, 100 * item.share)}%`;
          return el("tr", {}, el("td", {}, lastPart(item.path)), el("td", { class: "bars" }, bar), el("td", { class: "number" }, `${Math.round(100 * item.share)} %`));
        })))));
    page.append(section("importance", "Which settings mattered",
      "For each setting alone: how much of the differences between the compared models goes with it. Models are ranked by the objective and grouped by the setting, numbers into five groups of equal size; the share is the variance of ranks between groups over the whole, corrected for the number of groups. 100 % would tell every rank, 0 % tells nothing. Shares of settings that go together overlap, and trials that were stopped do not count.",
      el("div", { class: "two" }, tables)));
  }

  function curves() {
    const names = { selection_em_percent: "selection exact match [%]", selection_f1_percent: "selection F1 [%]", train_loss: "training loss" };
    const all = story.curves.trials;
    if (!all.length) return;
    const onFront = new Set(front.map((row) => row.trial));
    const rowOf = Object.fromEntries([...rows].reverse().map((row) => [row.trial, row]));
    const state = { measure: "selection_em_percent", log: false };
    const host = el("div", { class: "chart" });
    const again = drawnInto(host, (width) => {
      const at = 1 + story.curves.measures.indexOf(state.measure);
      const series = all.map((trial) => ({
        trial, strong: onFront.has(trial.trial) || (picked && rowOf[trial.trial].id === picked), paint: colour(Math.max(0, families.indexOf(trial.family))),
        dashed: trial.status === "ok" ? null : "3 3",
        points: trial.points.filter((point) => Number.isFinite(point[at])).map((point) => [point[0], point[at]]),
      })).filter((item) => item.points.length);
      for (const item of series) {
        item.told = (index) => ({ title: `${item.trial.trial} · ${item.trial.status === "ok" ? "finished" : item.trial.status}`, lines: [[`${names[state.measure]}: ${show(item.points[index][1])}`, true], [`after ${show(item.points[index][0])} examples`], [`${rowOf[item.trial.trial].family}, ${rowOf[item.trial.trial].methods}`]] });
      }
      if (!series.length) { host.replaceChildren("Nothing was reported yet."); return; }
      lineChart(host, width, { series, rungs: story.curves.rungs, logX: state.log, xName: "training examples seen", yName: names[state.measure], label: `${names[state.measure]} of ${series.length} trials by examples`, chosen: (item) => pick(rowOf[item.trial.trial]) });
    });
    listeners.push(again);
    const missing = story.curves.not_drawn ? ` ${show(story.curves.not_drawn)} more trials are not drawn.` : "";
    page.append(section("curves", "Curves", `What trials reported at rungs, scored on the selection questions. Strong lines lead to the front, dashed ones were stopped or paused; dotted uprights are rungs.${missing}`,
      el("div", { class: "controls" }, choose("Measure", story.curves.measures.map((key) => [key, names[key]]), state.measure, (value) => { state.measure = value; again(); }), tick("log across", false, (value) => { state.log = value; again(); })), host));
    again();
  }

  function history() {
    if (!story.history.length) return;
    const clocks = [["0", "training examples of all trials"], ["1", "hours of all trials together"], ["2", "hours of the clock"]];
    const state = { clock: "0" };
    const host = el("div", { class: "chart" });
    const again = drawnInto(host, (width) => {
      const at = Number(state.clock);
      const known = [[0, 0, 0, 0, "the start"], ...story.history];
      const item = { points: known.map((entry) => [entry[at], entry[3]]), paint: "var(--accent)", strong: true, steps: true };
      item.told = (index) => ({ title: `after ${known[index][4]}`, lines: [[`hypervolume ${show(known[index][3])}`, true], [`${show(known[index][0])} examples, ${show(known[index][1])} hours of trials, ${show(known[index][2])} hours of the clock`]] });
      const name = clocks[at][1];
      lineChart(host, width, { series: [item], from0: true, xName: name, yName: "hypervolume", label: `Hypervolume by ${name}`, left: 64 });
    });
    page.append(section("history", "Hypervolume and what it cost", "How much of the space between the references the front covers, and what had been spent by then. Spending counts when a trial ends.",
      el("div", { class: "controls" }, choose("Across", clocks, state.clock, (value) => { state.clock = value; again(); })), host));
    again();
  }

  function rest() {
    const baselines = Object.entries(story.baselines);
    const left = Object.entries(story.left_out), forms = Object.entries(story.forms_left_out);
    const parts = [];
    if (baselines.length) parts.push(el("div", {}, el("h3", {}, "Baselines that read no question"), simpleTable("Exact match of trivial baselines on the same questions", ["baseline", "exact match [%]"], baselines)));
    parts.push(el("div", {}, el("h3", {}, "Not compared"), left.length || forms.length
      ? simpleTable("Trials and stored forms that are no point, by reason", ["why", "what", "number"], [...left.map(([why, count]) => [why, "trials", count]), ...forms.map(([why, count]) => [why, "forms", count])])
      : el("p", { class: "lead" }, "Every trial that ended is compared.")));
    if (story.failures.length) parts.push(el("div", {}, el("h3", {}, "Errors"), simpleTable("Errors of trials and stored forms, by kind", ["what", "number", "first in", "error"], story.failures.map((item) => [item.status, item.count, item.first, item.error]))));
    page.append(section("rest", "Baselines, and what was left out", null, el("div", { class: "two" }, parts)));
  }

  function probes() {
    if (!story.probes.length) {
      const example = story.ask_probes;
      if (!example) return;
      page.append(section("probes", "Probes", "Small built-in sets of questions that each test one ability. No model of this front was asked them; this command asks one, and the next report shows its scores.",
        el("div", { class: "block" }, el("code", {}, example), copyButton(example, "asking the probes"))));
      return;
    }
    page.append(section("probes", "Probes", "Small built-in sets of questions that each test one ability.", story.probes.map((item) =>
      simpleTable(`Probes of ${item.model}`, ["category", "variant", "passages", "EM [%]", "F1 [%]"], item.rows))));
  }

  function examples() {
    if (!story.examples.length) return;
    const models = unique(story.examples.flatMap((item) => Object.keys(item.answers)));
    page.append(section("examples", "Questions and answers", "The first questions of the evaluation set. They are here because the report was asked for with --with-examples.",
      simpleTable("Questions, gold answers and answers of the front", ["question", "gold answers", ...models], story.examples.map((item) => [item.question, item.golds.join("; ") || "no answer", ...models.map((model) => (model in item.answers ? item.answers[model] || "no answer" : NONE))]))));
  }

  function words() {
    const terms = [
      ["Front", "The models that no other model beats on every objective at once. Along the front, more of one objective costs some of another; which point is right is your choice."],
      ["Hypervolume", "The area (with more objectives the volume) between the front and the references, in the objectives' own units. One number for a whole front: it grows when a point is better or fills a gap."],
      ["Rung", "A number of training examples at which a trial reports and is compared with the others. Those that are far behind stop or pause there, so that examples are spent on the others."],
      ["Knee", "The point of the front that lies farthest out from the line between its ends: beyond it each further gain costs more."],
      ["Tied", "The interval of the paired difference in exact match holds 0: these questions cannot tell the two models apart. It does not say that they are equal."],
      ["95 % interval", "Where the exact match would lie on other articles of the same kind. Whole articles are left out in turn, since questions of one article are not independent."],
      ["Selection questions", "A part of the training articles on which trials are scored at rungs. The evaluation questions are read once, by the finished model."],
    ];
    page.append(section("words", "Words", null, el("dl", { class: "words" }, terms.map(([term, text]) => [el("dt", {}, term), el("dd", {}, text)]))));
    page.append(el("footer", {}, `Written by qa-sweeps from ${story.folder}. Numbers have six digits here; front.csv beside this file has all of them. Colours are told apart with any colour vision.`));
  }

  header();
  frontChart();
  table();
  parallel();
  importance();
  curves();
  history();
  rest();
  probes();
  examples();
  question();
  words();
  if (story.state === "running") {
    let touched = false;
    for (const kind of ["click", "keydown"]) window.addEventListener(kind, () => { touched = true; });
    setInterval(() => { if (!touched && document.visibilityState === "visible") location.reload(); }, 20000);
  }
}
