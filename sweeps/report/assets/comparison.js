// Several sweeps over each other: each has its own colour, its own mark and its own kind of line.
function comparison(page) {
  const rows = decode(story.rows);
  for (const row of rows) row.id = row.form ? `${row.trial} ${row.form}` : row.trial;
  const axisOf = Object.fromEntries(story.objectives.map((axis) => [axis.name, axis]));
  const dashes = [null, "7 4", "2 4", "9 3 2 3"];
  const front = rows.filter((row) => row.place === "front");
  const measured = (axis, value) => `${axis.unit !== "bytes" && Math.abs(value) < 10000 ? value.toFixed(2) : show(value)} ${axis.unit}`;
  const signed = (value) => `${value > 0 ? "+" : ""}${show(value)}`;
  const label = (place) => story.sweeps[place].label;

  function told(row) {
    return { title: `${label(row.sweep)} · ${row.id}`, lines: [...story.objectives.map((axis) => [`${axis.label}: ${measured(axis, row[axis.name])}`, true]), [`${row.family}, ${row.methods}, ${row.checkpoint}`], ...(row.new ? [["new: nothing in the first sweep equals or beats it"]] : [])] };
  }

  function verdict(item) {
    if (item.low === null) return `${signed(item.hypervolume)} (${item.why})`;
    const word = item.low <= 0 && item.high >= 0 ? "tied" : item.hypervolume > 0 ? "larger" : "smaller";
    return `${signed(item.hypervolume)} (${signed(item.low)} to ${signed(item.high)}, by ${item.by}): ${word}`;
  }

  page.append(el("header", {}, el("div", { class: "eyebrow" }, "Comparison of sweeps", el("span", {}, `written ${story.written.replace("T", " ").replace("+00:00", " UTC")}`)),
    el("h1", {}, story.name),
    el("p", { class: "lead" }, `Fronts measured on equal terms, each against ${label(0)}.`),
    el("dl", { class: "figures" }, story.sweeps.map((sweep, place) => el("div", {}, el("dt", {}, swatch(place, colour(place)), sweep.label),
      el("dd", {}, show(sweep.hypervolume), el("small", {}, `hypervolume; ${plural(sweep.front, "model")} on the front, ${plural(sweep.trials, "trial")}, ${sweep.state}`)))))));

  const state = { x: (story.objectives[1] || story.objectives[0]).name, y: story.objectives[0].name, logX: false, logY: false, behind: true };
  const host = el("div", { class: "chart" });
  const again = drawnInto(host, (width) => {
    const height = width > 640 ? 480 : 380;
    const [xAxis, yAxis] = [axisOf[state.x], axisOf[state.y]];
    const shown = (state.behind ? rows : front).filter((row) => (!state.logX || row[state.x] > 0) && (!state.logY || row[state.y] > 0));
    const name = `${titled(yAxis)} against ${titled(xAxis)}, ${plural(story.sweeps.length, "sweep")}`;
    const root = canvas(host, width, height, name);
    const place = axes(root, width, height, { xs: shown.map((row) => row[state.x]), ys: shown.map((row) => row[state.y]), logX: state.logX, logY: state.logY, xName: titled(xAxis), yName: titled(yAxis) });
    const marks = [];
    const put = (row, size, attributes) => {
      const mark = { x: place.x(row[state.x]), y: place.y(row[state.y]), row, faint: row.place !== "front" };
      marks.push(mark);
      root.append(svg("path", { d: shape(row.sweep, mark.x, mark.y, size), "data-model": `${row.sweep} ${row.id}`, "data-place": row.place, ...attributes }));
    };
    for (const row of shown) if (row.place === "behind") put(row, 4, { fill: "none", stroke: colour(row.sweep), "stroke-opacity": 0.35 });
    story.sweeps.forEach((sweep, at) => {
      const own = shown.filter((row) => row.sweep === at && row.place === "front");
      const kept = stairs(own.map((row) => ({ x: row[state.x], y: row[state.y] })), xAxis.goal, yAxis.goal);
      root.append(svg("path", { class: "line", d: stairsPath(kept, xAxis.goal, place), stroke: colour(at), "stroke-width": Math.max(1.4, 3 - 1.2 * at), "stroke-dasharray": dashes[at % dashes.length] }));
      own.forEach((row) => put(row, Math.max(4, 8.6 - 2.4 * at), // so that no sweep hides a point that two share
        { fill: colour(at), stroke: "var(--paper)", "stroke-width": 1.2 }));
    });
    placeLabels(root, marks.filter((mark) => mark.row.new).map((mark) => ({ x: mark.x, y: mark.y, text: "new" })), marks.filter((mark) => !mark.faint), width);
    walk(host, root, marks, (mark) => told(mark.row), () => {}, name);
  });
  const options = story.objectives.map((axis) => [axis.name, titled(axis)]);
  page.append(section("front", "Fronts over each other", "Large marks and lines are the fronts; hollow marks are beaten.",
    el("div", { class: "controls" }, choose("Up", options, state.y, (value) => { state.y = value; again(); }), choose("Across", options, state.x, (value) => { state.x = value; again(); }),
      tick("log across", false, (value) => { state.logX = value; again(); }), tick("log up", false, (value) => { state.logY = value; again(); }), tick("beaten models", true, (value) => { state.behind = value; again(); })),
    host, el("div", { class: "legend" }, story.sweeps.map((sweep, at) => el("span", { class: "static" }, swatch(at, colour(at)), sweep.label)))));
  again();

  page.append(section("volumes", "Hypervolume", `Measured from one reference for all: ${story.objectives.map((axis) => `${axis.label} ${measured(axis, axis.reference)}`).join(", ")}. The interval is that of the questions: whole articles are left out in turn, the same for both sweeps, and the models stay as they are.`,
    simpleTable("Fronts and hypervolumes", ["sweep", "state", "trials", "compared", "on the front", "examples spent", "hypervolume"],
      story.sweeps.map((sweep) => [sweep.label, sweep.state, sweep.trials, sweep.points, sweep.front, sweep.examples, sweep.hypervolume])),
    story.differences.map((item, at) => el("p", {}, el("strong", {}, `${label(at + 1)} against ${label(0)}: `), verdict(item)))));

  const news = rows.filter((row) => row.new);
  page.append(section("new", "New points", `Models on a front that no model of ${label(0)} equals or beats.`, news.length
    ? simpleTable("New points", ["sweep", "model", ...story.objectives.map(titled), "family", "methods", "checkpoint"], news.map((row) => [label(row.sweep), row.id, ...story.objectives.map((axis) => row[axis.name]), row.family, row.methods, row.checkpoint]))
    : el("p", { class: "lead" }, "There is none."),
  story.differences.map((item, at) => (item.lost.length ? el("p", { class: "hint" }, `Of the front of ${label(0)}, ${label(at + 1)} reaches none of: ${item.lost.join(", ")}.`) : null))));

  page.append(section("settings", "Settings that differ", null, story.settings.length
    ? simpleTable("Settings in which the sweeps differ", ["setting", ...story.sweeps.map((sweep) => sweep.label)], story.settings.map(([path, ...values]) => [path, ...values.map((value) => value || NONE)]))
    : el("p", { class: "lead" }, "There is none.")));
  page.append(el("footer", {}, "Written by qa-sweeps. Colours are told apart with any colour vision; marks and lines differ too."));
}
