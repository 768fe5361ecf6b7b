// The columns of the table: what each shows of a row and what it is sorted by; and the forest plot's small pictures.

const FOREST = { width: 132, height: 20, margin: 8 };
const VERDICT_ORDER = ["better", "base", "within noise", "worse", "too few seeds", "missing"];

/** Differences to pixels: all of a metric's rows, but a few far ones are cut off and drawn as arrows. */
function forestScale(metric) {
  const results = DATA.rows.map((row) => row.results[metric.name])
    .filter((result) => result && isNumber(result.difference));
  const reach = (result) => Math.max(Math.abs(result.difference), Math.abs(isNumber(result.low) ? result.low : 0),
    Math.abs(isNumber(result.high) ? result.high : 0));
  const reaches = results.map(reach).sort((a, b) => a - b);
  const noise = isNumber(metric.noise.detectable) ? metric.noise.detectable : 0;
  const usual = reaches.length ? reaches[Math.floor((reaches.length - 1) * 0.75)] : 1;
  const longest = Math.max(reaches.at(-1) || 0, noise) || 1;
  const limit = Math.max(usual * 1.6, noise * 1.3) || 1;
  const most = longest > limit * 1.5 ? limit : longest * 1.08;
  const signs = results.flatMap((result) => [result.difference, result.low, result.high]).filter(isNumber);
  const low = Math.max(-most, Math.min(-noise * 1.15, ...signs, -most * 0.12));
  const high = Math.min(most, Math.max(noise * 1.15, ...signs, most * 0.12));
  return {
    low, high, noise,
    x: (value) => FOREST.margin + (Math.min(high, Math.max(low, value)) - low) / (high - low)
      * (FOREST.width - 2 * FOREST.margin),
  };
}

function forestCell(scale, result) {
  const middle = FOREST.height / 2;
  const svg = drawn("svg", { class: "forest", width: FOREST.width, height: FOREST.height,
    viewBox: `0 0 ${FOREST.width} ${FOREST.height}`, "aria-hidden": "true" });
  if (scale.noise > 0) {
    svg.append(drawn("rect", { class: "noise", x: scale.x(-scale.noise), y: 0, height: FOREST.height,
      width: scale.x(scale.noise) - scale.x(-scale.noise) }));
  }
  svg.append(drawn("line", { class: "zero", x1: scale.x(0), x2: scale.x(0), y1: 0, y2: FOREST.height }));
  if (!result || !isNumber(result.difference)) return svg;
  const kind = `v-${result.verdict.replace(/ /g, "-")}`;
  if (isNumber(result.low)) {
    svg.append(drawn("line", { class: `interval ${kind}`, x1: scale.x(result.low), x2: scale.x(result.high),
      y1: middle, y2: middle }));
  }
  if (result.difference > scale.high || result.difference < scale.low) {
    const side = result.difference > 0 ? 1 : -1, x = scale.x(result.difference);
    svg.append(drawn("path", { class: `estimate ${kind}`,
      d: `M${x + side * 5},${middle} l${-side * 8},-4.5 v9 z` }));
  } else if (result.verdict === "within noise" || result.verdict === "too few seeds") {
    svg.append(drawn("circle", { class: `estimate open ${kind}`, cx: scale.x(result.difference), cy: middle, r: 3 }));
  } else {
    svg.append(drawn("rect", { class: `estimate ${kind}`, x: scale.x(result.difference) - 3, y: middle - 3,
      width: 6, height: 6 }));
  }
  return svg;
}

function forestHead(scale) {
  const svg = drawn("svg", { class: "forest", width: FOREST.width, height: 16, viewBox: `0 0 ${FOREST.width} 16`,
    "aria-hidden": "true" });
  const label = (tick) => (tick > 0 ? "+" : "") + shortNumber(tick, 2);
  const room = (ticks) => ticks.length < 2
    || scale.x(ticks[1]) - scale.x(ticks[0]) >= 5 + 5.7 * widestOf(ticks.map(label));
  const ticks = [4, 3, 2, 1].map((count) => ticksBetween(scale.low, scale.high, count)).find(room) || [0];
  for (const tick of ticks) {
    const x = scale.x(tick);
    svg.append(drawn("line", { class: "axis", x1: x, x2: x, y1: 12, y2: 16 }),
      drawn("text", { class: "tick small", x, y: 9,
        "text-anchor": x < 18 ? "start" : x > FOREST.width - 18 ? "end" : "middle",
      }, label(tick)));
  }
  return svg;
}

/** A number and, smaller, what belongs to it, as wide as in every other row: numbers stand in line. */
function number(text, rest, widest) {
  const small = rest === undefined ? null : element("small", {}, rest);
  if (small && widest) small.style.setProperty("--rest", `${(widest * 0.84).toFixed(1)}ch`);
  return element("span", { class: "number" }, text, small);
}

/** "4.92 ± 0.03 (3)" in two parts. */
function measuredParts(text) {
  const cut = text.indexOf(" ");
  return cut < 0 ? [text, ""] : [text.slice(0, cut), text.slice(cut + 1)];
}

function widestOf(texts) {
  return Math.max(0, ...texts.map((text) => (text || "").length));
}

/** Columns of a metric: all of them ("full"), the measured one with the verdict's mark ("brief"), none. */
function metricColumns(metric, extent, published) {
  if (extent === "hidden") return [];
  const of = (row) => row.results[metric.name] || null;
  const value = (key) => (row) => of(row) && of(row)[key];
  const text = (key) => (row) => of(row) && of(row).text[key];
  const better = metric.direction === "lower" ? 1 : -1;
  const widest = widestOf(DATA.rows.map((row) => measuredParts(text("measured")(row) || "")[1]));
  const widestInterval = widestOf(DATA.rows.map(text("interval")));
  const mean = (row) => number(...measuredParts(text("measured")(row) || MISSING), widest);
  const measured = {
    key: `${metric.name} mean`, head: "measured", first: better, sort: value("mean"),
    hint: "mean ± standard deviation over seeds; how many in parentheses",
    cell: mean,
  };
  const paper = {
    key: `${metric.name} published`, head: "published", first: better, sort: value("published"),
    hint: metric.tolerance === null ? "the paper's number"
      : `the paper's number; ✓ where the mean is within ${metric.tolerance} of it, ✗ where it is not`,
    cell: (row) => publishedCell(of(row)),
  };
  if (extent === "brief") {
    const brief = { ...measured, cell: (row) => element("span", {}, mean(row), briefVerdict(of(row))) };
    return published && metric.published ? [brief, paper] : [brief];
  }
  const scale = forestScale(metric);
  const columns = [measured, {
    key: `${metric.name} difference`, head: "difference", first: better, sort: value("difference"),
    hint: `to the base over shared seeds, with its ${DATA.confidence} interval`,
    cell: (row) => number(text("difference")(row) || (row.base ? "" : MISSING), text("interval")(row) || "",
      widestInterval),
  }, {
    key: `${metric.name} forest`, head: forestHead(scale), name: "difference, drawn", drawing: true,
    hint: "difference and interval; the grey band is what these seeds cannot tell from nothing",
    cell: (row) => forestCell(scale, of(row)),
  }, {
    key: `${metric.name} verdict`, head: "verdict", first: 1, left: true,
    hint: `by ${DATA.test} at the level of the table`,
    sort: (row) => of(row) ? VERDICT_ORDER.indexOf(of(row).verdict) : null,
    cell: (row) => verdictMark(of(row) ? of(row).verdict : "missing"),
  }];
  if (published && metric.published) {
    columns.push(paper, {
      key: `${metric.name} published difference`, head: "published difference", first: better,
      sort: value("published_difference"), hint: "the paper's number less the paper's number of the base",
      cell: (row) => number(text("published_difference")(row) || ""),
    });
  }
  return columns;
}

function briefVerdict(result) {
  if (!result || !MARKS[result.verdict]) return element("span", { class: "brief" });
  return element("span", { class: `brief v-${result.verdict.replace(/ /g, "-")}`, title: result.verdict },
    element("span", { "aria-hidden": "true" }, MARKS[result.verdict]),
    element("span", { class: "unseen" }, result.verdict));
}

function publishedCell(result) {
  if (!result || !isNumber(result.published)) return number("");
  if (result.reproduced === null) return number(result.text.published);
  return element("span", { class: "number" }, result.text.published,
    element("span", { class: result.reproduced ? "same" : "other" },
      element("span", { "aria-hidden": "true" }, result.reproduced ? " ✓" : " ✗"),
      element("span", { class: "unseen" }, result.reproduced ? "reproduced" : "not reproduced")));
}

function costColumns() {
  return DATA.costs.map(({ key, head, hint }) => ({
    key: `cost ${key}`, head, hint, first: 1, sort: (row) => row.costs[key].value,
    cell: (row) => number(row.costs[key].text),
  }));
}
