// What opens under a row: what it changes, what each seed measured, its curves, its search.

function rowDetail(row) {
  return [
    row.notes.length ? element("ul", { class: "notes" }, row.notes.map((note) => element("li", {}, note))) : null,
    element("section", {}, element("h3", {}, "Config"), changesTable(row)),
    row.seeds.length ? element("section", {}, element("h3", {}, "Seeds"), seedsTable(row)) : null,
    row.base ? null : element("section", {}, element("h3", {}, "Difference to the base"), differencesTable(row)),
    row.search ? element("section", {}, element("h3", {}, "Search"), searchDetail(row.search)) : null,
    ...Object.keys(DATA.curves).filter((loss) => DATA.curves[loss][row.name]).map((loss) => seedCurves(row, loss)),
  ].filter(Boolean);
}

function changesTable(row) {
  if (!row.changes.length) {
    return element("p", { class: "quiet" }, row.base ? "The base, which the other rows change."
      : "Nothing is known to differ from the base.");
  }
  const bySeed = row.changes.some((change) => change[3]), against = row.changes.some((change) => change[1]);
  return element("div", { class: "scroll" }, element("table", { class: "facts changes" },
    element("thead", {}, element("tr", {}, ["field", against ? "base" : null, "here", bySeed ? "seeds" : null]
      .filter(Boolean).map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, row.changes.map(([path, base, value, seeds]) => element("tr", {},
      element("th", { scope: "row" }, element("code", {}, path)),
      against ? element("td", { class: "was" }, element("code", {}, base)) : null,
      element("td", {}, element("code", {}, value)), bySeed ? element("td", {}, seeds || "all") : null)))));
}

function seedsTable(row) {
  const metrics = DATA.metrics.filter((metric) => row.seeds.some((seed) => metric.name in seed.values));
  const errors = row.seeds.some((seed) => seed.error);
  return element("div", { class: "scroll" }, element("table", { class: "facts" },
    element("thead", {}, element("tr", {}, ["seed", "state", ...metrics.map((metric) => metric.label), "run folder",
      errors ? "error" : null].filter(Boolean).map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, row.seeds.map((seed) => element("tr", {}, element("th", { scope: "row" }, seed.seed),
      element("td", { class: `state-${seed.state}` }, seed.state),
      metrics.map((metric) => element("td", { class: "value" }, seed.values[metric.name] || MISSING)),
      element("td", {}, seed.run ? runLink(seed.run) : MISSING),
      errors ? element("td", { class: "error" }, seed.error || "") : null)))));
}

/** Run folders lie beside the page; one that does not is named without a link. */
function runLink(path) {
  if (/^([\\/]|[A-Za-z][\w+.-]*:)/.test(path)) return element("code", {}, path);
  const address = `./${path.split("/").map(encodeURIComponent).join("/")}/`;
  return element("a", { href: address }, element("code", {}, path));
}

function differencesTable(row) {
  const metrics = DATA.metrics.filter((metric) => row.results[metric.name]);
  return element("div", { class: "scroll" }, element("table", { class: "facts" },
    element("tbody", {}, metrics.map((metric) => {
      const result = row.results[metric.name];
      return element("tr", {}, element("th", { scope: "row" }, metric.label),
        element("td", { class: "value" }, result.text.difference || MISSING),
        element("td", { class: "value" }, result.text.interval),
        element("td", {}, verdictMark(result.verdict)), element("td", { class: "quiet p" }, result.text.p));
    }))));
}

function searchDetail(search) {
  const lines = element("div", { class: "scroll" }, element("table", { class: "facts" },
    element("thead", {}, element("tr", {},
      ["point", METRIC.label, ""].map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, search.points.map((point) => element("tr", { class: point.chosen ? "chosen" : null },
      element("th", { scope: "row" }, element("code", {}, point.text)),
      element("td", { class: "value" }, point.value_text),
      element("td", {}, point.mark))))));
  const said = [];
  if (search.sensitivity !== null) {
    said.push(`Sensitivity ${search.sensitivity}: how much worse than the best a point is, on average.`);
  }
  if (search.at_edge) said.push("The best is at the edge of what was searched: a better one may lie beyond.");
  return element("div", { class: "beside" }, element("div", {}, lines,
    said.map((line) => element("p", { class: "quiet" }, line))), searchPicture(search));
}

/** The searched field against the metric; on a log scale where its values span more than a factor of five. */
function searchPicture(search) {
  const points = search.points.filter((point) => isNumber(point.x) && isNumber(point.value)).sort((a, b) => a.x - b.x);
  if (points.length < 2) return null;
  const width = 300, height = 150, left = 46, right = 22, top = 10, bottom = 34;
  const first = points[0].x, last = points.at(-1).x, log = first > 0 && last / first > 5;
  const across = log ? Math.log : (value) => value;
  const values = points.map((point) => point.value), lowest = Math.min(...values), highest = Math.max(...values);
  const margin = (highest - lowest) * 0.08, low = lowest - margin, high = highest + margin;
  const span = across(last) - across(first) || 1;
  const x = (value) => left + (across(value) - across(first)) / span * (width - left - right);
  const y = (value) => top + (high - value) / (high - low || 1) * (height - top - bottom);
  const svg = drawn("svg", { class: "chart search", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${METRIC.label} over ${search.field}` });
  for (const value of ticksBetween(low, high, 3)) {
    svg.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      drawn("text", { class: "tick", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, shortNumber(value)));
  }
  const floor = height - bottom;
  svg.append(drawn("line", { class: "axis", x1: left, x2: width - right, y1: floor, y2: floor }));
  let free = -Infinity;
  for (const point of points) {
    svg.append(drawn("line", { class: "axis", x1: x(point.x), x2: x(point.x), y1: floor, y2: floor + 4 }));
    if (x(point.x) < free) continue;
    free = x(point.x) + 44;
    svg.append(drawn("text", { class: "tick", x: x(point.x), y: floor + 16, "text-anchor": "middle" },
      shortNumber(point.x, 2)));
  }
  const line = points.map((point) => `${x(point.x)},${y(point.value)}`).join(" ");
  svg.append(drawn("polyline", { class: "line c0", points: line }),
    ...points.map((point) => drawn("circle", { class: `dot c0${point.chosen ? "" : " open"}`,
      cx: x(point.x), cy: y(point.value), r: point.chosen ? 4.5 : 3 })),
    drawn("text", { class: "tick", x: width - right, y: height - 3, "text-anchor": "end" }, search.field));
  return svg;
}

function seedCurves(row, loss) {
  const view = { logX: false, end: false };
  const base = BASE && row !== BASE ? meanSeries(BASE, loss, "cbase") : null;
  const curve = DATA.curves[loss][row.name];
  const seeds = Object.entries(curve.seeds).map(([seed, values], k) => ({ label: `seed ${seed}`, ...lineLook(k),
    points: values.map((value, i) => ({ step: curve.steps[i], mean: value, low: null, high: null })) }));
  const chart = liveChart(() => [base, ...seeds].filter(Boolean),
    () => ({ ...view, across: "step", height: 230, name: `${loss} of ${row.label}, seed by seed` }));
  return element("section", { class: "wide" }, element("h3", {}, `Curves: ${loss}, seed by seed`),
    chartControls(view, chart), chart.node);
}
