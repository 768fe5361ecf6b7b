// Curves of chosen rows beside the base's.

const COLORS = 7;

/** A line's color, and from the eighth on its dashes. */
function lineLook(place) {
  return { color: `c${place % COLORS}`, dash: `d${Math.floor(place / COLORS) % 3}` };
}

/** A row's curve over its finished seeds, at the steps that all of them have: mean, and band from lowest to highest. */
function meanSeries(row, loss, color, dash) {
  const curve = DATA.curves[loss] && DATA.curves[loss][row.name];
  if (!curve) return null;
  const done = row.seeds.filter((seed) => seed.state === "done" && curve.seeds[seed.seed]).map((seed) => seed.seed);
  const lines = (done.length ? done : Object.keys(curve.seeds)).map((seed) => curve.seeds[seed]);
  const shared = curve.steps.some((step, k) => lines.every((line) => isNumber(line[k])));
  const points = curve.steps.map((step, k) => pointOf(step, lines.map((line) => line[k]), shared));
  return { label: row.label, color, dash, points };
}

function pointOf(step, losses, all) {
  const values = losses.filter(isNumber);
  if (!values.length || (all && values.length < losses.length)) return { step, mean: null, low: null, high: null };
  return { step, mean: values.reduce((sum, value) => sum + value, 0) / values.length,
    low: Math.min(...values), high: Math.max(...values) };
}

function chartControls(view, chart) {
  return element("div", { class: "chips", role: "group", "aria-label": "Axes" },
    toggle("Log steps", view.logX, (on) => { view.logX = on; chart.redraw(); }),
    toggle("Scale to the second half", view.end, (on) => { view.end = on; chart.redraw(); }));
}

/** The rows drawn at first: all of a small table, else the three best and the three worst. */
function firstChosen(rows) {
  if (rows.length <= 6) return rows;
  const gap = (row) => row.results[METRIC.name] && row.results[METRIC.name].difference;
  const ranked = rows.filter((row) => isNumber(gap(row))).sort((a, b) => gap(a) - gap(b));
  return ranked.length > 6 ? [...ranked.slice(0, 3), ...ranked.slice(-3)] : ranked.length ? ranked : rows.slice(0, 6);
}

function curvesSection() {
  const losses = Object.keys(DATA.curves).filter((loss) => Object.keys(DATA.curves[loss]).length);
  if (!losses.length) return null;
  const rows = DATA.rows.filter((row) => row !== BASE && losses.some((loss) => DATA.curves[loss][row.name]));
  const view = { logX: false, end: false, loss: losses[0] };
  const places = new Map(firstChosen(rows).map((row, k) => [row.name, k]));
  const look = (name) => lineLook(places.get(name));
  const chart = liveChart(() => [BASE ? meanSeries(BASE, view.loss, "cbase") : null,
    ...rows.filter((row) => places.has(row.name)).map((row) =>
      meanSeries(row, view.loss, look(row.name).color, look(row.name).dash))].filter(Boolean),
  () => ({ ...view, across: "step", height: 380, name: `${view.loss} over steps` }));
  const chips = rows.map((row) => {
    const swatch = element("i", { class: "swatch" });
    const paint = () => { swatch.className = places.has(row.name) ? `swatch ${look(row.name).color}` : "swatch"; };
    const chip = toggle(swatch, places.has(row.name), (on) => {
      // The first color that nobody has, so that choosing and leaving rows does not run out of them.
      if (on) places.set(row.name, [...Array(rows.length).keys()].find((k) => ![...places.values()].includes(k)));
      else places.delete(row.name);
      paint();
      chart.redraw();
    });
    chip.append(row.label);
    paint();
    return { chip, paint };
  });
  const clear = element("button", { type: "button", class: "chip", onclick: () => {
    places.clear();
    chips.forEach(({ chip, paint }) => { chip.setAttribute("aria-pressed", "false"); paint(); });
    chart.redraw();
  } }, "Base alone");
  return element("section", { class: "curves" }, element("h2", {}, "Curves"),
    element("p", { class: "quiet" },
      "Mean over finished seeds, and the band from the lowest to the highest; the base in grey."),
    element("div", { class: "controls" },
      losses.length > 1 ? choice("Loss", losses.map((loss) => [loss, loss]), view.loss,
        (value) => { view.loss = value; chart.redraw(); }) : null, chartControls(view, chart), clear),
    chart.node,
    element("div", { class: "chips picker", role: "group", "aria-label": "Rows drawn" },
      chips.map(({ chip }) => chip)));
}

/** The fitted law in words, and the runs it was fitted to beside what it predicts (dashed). */
function fitSection() {
  if (!DATA.fit) return null;
  const series = DATA.fit.series.flatMap(({ label, points }, k) => [
    { label, color: `c${k % COLORS}`, points: points.map(([tokens, losses]) => pointOf(tokens, losses, false)) },
    { label: `${label}, fitted`, color: `c${k % COLORS}`, dash: "d2", quiet: true,
      points: points.map(([tokens, , fitted]) => pointOf(tokens, [fitted], false)) },
  ]);
  const chart = liveChart(() => series,
    () => ({ logX: true, end: false, across: "tokens", height: 320, name: `${METRIC.label} over tokens, fitted` }));
  return element("section", { class: "curves" }, element("h2", {}, "Fit"),
    element("ul", { class: "notes" }, DATA.fit.lines.map((line) => element("li", {}, line))),
    element("p", { class: "quiet" }, "A line for each size of model; dotted is what the fitted law gives there."),
    chart.node);
}
