// A line chart: series of points (step, mean, lowest, highest, how many), drawn to the width it is given.

const CHART = { left: 52, right: 14, top: 12, bottom: 34 };
const MOST_READ = 14;

/** About so many round numbers from low to high. */
function ticksBetween(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) ticks.push(k * step || 0);
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) {
    for (const factor of high / low > 300 ? [1] : high / low > 20 ? [1, 3] : [1, 2, 5]) {
      if (factor * power >= low && factor * power <= high) ticks.push(factor * power);
    }
  }
  return ticks;
}

/** Coordinates: steps and values to pixels, for these series and options. */
function chartScales(series, options, width, height) {
  const steps = series.flatMap((one) => one.points.map((point) => point.step)).filter((s) => !options.logX || s > 0);
  const last = Math.max(...steps), first = options.logX ? Math.min(...steps) : Math.min(0, ...steps);
  const from = options.end ? first + (last - first) / 2 : first;
  const drawnAt = (point) => point.step >= from && (!options.logX || point.step > 0);
  const seen = series.flatMap((one) => one.points.filter(drawnAt))
    .flatMap((point) => [point.mean, point.low, point.high]).filter(isNumber);
  let low = Math.min(...seen), high = Math.max(...seen);
  const margin = (high - low || Math.abs(high) || 1) * 0.05;
  low -= margin;
  high += margin;
  const across = options.logX ? Math.log : (value) => value;
  const span = across(last) - across(first) || 1;
  return {
    first, last, low, high, width, height,
    x: (step) => CHART.left + (across(step) - across(first)) / span * (width - CHART.left - options.labelSpace),
    y: (value) => CHART.top + (high - value) / (high - low) * (height - CHART.top - CHART.bottom),
  };
}

/** The series as an SVG; the reading line is moved by `read(step)`. */
function drawChart(series, options, width) {
  const height = options.height;
  const scales = chartScales(series, options, width, height);
  const clip = `clip-${drawChart.count = (drawChart.count || 0) + 1}`;
  const right = width - options.labelSpace, bottom = height - CHART.bottom;
  const svg = drawn("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
    drawn("defs", {}, drawn("clipPath", { id: clip }, drawn("rect", {
      x: CHART.left, y: CHART.top - 2, width: Math.max(0, right - CHART.left + 2), height: bottom - CHART.top + 4 }))));
  for (const value of ticksBetween(scales.low, scales.high, height / 52)) {
    svg.append(drawn("line", { class: "grid", x1: CHART.left, x2: right, y1: scales.y(value), y2: scales.y(value) }),
      drawn("text", { class: "tick", x: CHART.left - 6, y: scales.y(value) + 4, "text-anchor": "end" },
        shortNumber(value)));
  }
  const steps = options.logX ? logTicks(scales.first, scales.last)
    : ticksBetween(scales.first, scales.last, Math.min(8, width / 90));
  for (const step of steps) {
    svg.append(drawn("line", { class: "axis", x1: scales.x(step), x2: scales.x(step), y1: bottom, y2: bottom + 4 }),
      drawn("text", { class: "tick", x: scales.x(step), y: bottom + 16, "text-anchor": "middle" },
        step >= 1e5 ? shortNumber(step / 1e6) + " M" : step.toLocaleString("en-US")));
  }
  svg.append(drawn("line", { class: "axis", x1: CHART.left, x2: right, y1: bottom, y2: bottom }),
    drawn("text", { class: "tick", x: right, y: height - 3, "text-anchor": "end" }, options.across));
  const plot = drawn("g", { "clip-path": `url(#${clip})` });
  for (const one of series) plot.append(...seriesShapes(one, scales, options));
  const reading = drawn("line", { class: "reading", y1: CHART.top, y2: bottom, visibility: "hidden" });
  svg.append(plot, reading, ...endLabels(series, scales, options));
  return { svg, scales, reading };
}

function seriesShapes(one, scales, options) {
  const points = one.points.filter((point) => isNumber(point.mean) && (!options.logX || point.step > 0));
  const at = (point, value) => `${scales.x(point.step).toFixed(1)},${scales.y(value).toFixed(1)}`;
  const banded = points.filter((point) => isNumber(point.low) && point.high > point.low);
  const shapes = [];
  if (banded.length > 1) {
    const outline = [...banded.map((point) => at(point, point.high)),
      ...banded.slice().reverse().map((point) => at(point, point.low))];
    shapes.push(drawn("polygon", { class: `band ${one.color}`, points: outline.join(" ") }));
  }
  if (points.length === 1) {
    shapes.push(drawn("circle", { class: `dot ${one.color}`, cx: scales.x(points[0].step),
      cy: scales.y(points[0].mean), r: 3 }));
  } else {
    shapes.push(drawn("polyline", { class: `line ${one.color} ${one.dash || ""}`,
      points: points.map((point) => at(point, point.mean)).join(" ") }));
  }
  return shapes;
}

/** Names at the ends of the lines, pushed apart where they would meet. */
function endLabels(series, scales, options) {
  if (options.labelSpace <= CHART.right) return [];
  const labels = [];
  for (const one of series.filter((some) => !some.quiet)) {
    const last = one.points.filter((point) => isNumber(point.mean)).at(-1);
    if (last) labels.push({ one, last, y: Math.max(scales.y(last.mean), CHART.top) });
  }
  labels.sort((a, b) => a.y - b.y);
  const gap = 14;
  labels.forEach((label, k) => { label.at = k ? Math.max(label.y, labels[k - 1].at + gap) : label.y; });
  let limit = scales.height - CHART.bottom;
  for (const label of labels.slice().reverse()) {
    label.at = Math.min(label.at, limit);
    limit = label.at - gap;
  }
  const letters = Math.floor((options.labelSpace - 18) / 6.6);
  const left = scales.width - options.labelSpace + 15;
  return labels.flatMap(({ one, last, y, at }) => [
    drawn("path", { class: `leader ${one.color}`,
      d: `M${(scales.x(last.step) + 2).toFixed(1)},${y.toFixed(1)} l4,0 L${left - 2},${at.toFixed(1)}` }),
    drawn("text", { class: `end ${one.color}`, x: left, y: at + 4 },
      one.label.length > letters ? one.label.slice(0, letters - 1) + "…" : one.label),
  ]);
}

/** A chart that follows its width and says its values under the pointer and the arrow keys.
 *
 * options(): { logX, end, height, name, across }; series(): the lines to draw now. Returns the node and redraw(). */
function liveChart(series, options) {
  const box = element("div", { class: "chartbox", tabindex: "0", role: "slider", "aria-orientation": "horizontal" });
  const readout = element("div", { class: "readout", hidden: true });
  let now = null, step = null;

  const steps = () => [...new Set(now.series.flatMap((one) => one.points.map((point) => point.step)))]
    .filter((s) => !now.options.logX || s > 0).sort((a, b) => a - b);

  function read(next) {
    step = next;
    readout.hidden = step === null;
    now.reading.setAttribute("visibility", step === null ? "hidden" : "visible");
    if (step === null) return;
    const x = now.scales.x(step);
    now.reading.setAttribute("x1", x);
    now.reading.setAttribute("x2", x);
    const lines = now.series.map((one) => ({ one, point: one.points.find((point) => point.step === step) }))
      .filter(({ point }) => point && isNumber(point.mean)).sort((a, b) => a.point.mean - b.point.mean);
    const head = element("p", {}, `${now.options.across} ${step.toLocaleString("en-US")}`);
    readout.replaceChildren(head, element("table", {}, element("tbody", {},
      lines.slice(0, MOST_READ).map(({ one, point }) => element("tr", {},
        element("th", { scope: "row" }, element("i", { class: `swatch ${one.color}` }), one.label),
        element("td", {}, evenNumber(point.mean)),
        element("td", {}, point.high > point.low ? `${evenNumber(point.low)} to ${evenNumber(point.high)}` : ""))))),
    lines.length > MOST_READ ? element("p", { class: "quiet" }, `and ${lines.length - MOST_READ} more`) : "");
    readout.classList.toggle("before", x > now.scales.width / 2);
    readout.style.setProperty("--x", `${x}px`);
    box.setAttribute("aria-valuenow", step);
    box.setAttribute("aria-valuetext", `${now.options.across} ${step}: ` + lines.map(({ one, point }) =>
      `${one.label} ${shortNumber(point.mean)}`).join(", "));
  }

  function redraw() {
    const width = Math.max(260, Math.floor(box.clientWidth));
    const current = options();
    const lines = series().filter((one) => one.points.some((point) => isNumber(point.mean)));
    if (!lines.length) {
      box.replaceChildren(element("p", { class: "quiet" }, "No curves to draw."));
      now = null;
      return;
    }
    current.labelSpace = width > 560 && lines.length * 14 < current.height - 40
      ? Math.min(190, 30 + 6.8 * Math.max(...lines.map((one) => one.label.length))) : CHART.right;
    now = { series: lines, options: current, ...drawChart(lines, current, width) };
    box.setAttribute("aria-label", `${current.name}. Arrow keys read values.`);
    box.setAttribute("aria-valuemin", now.scales.first);
    box.setAttribute("aria-valuemax", now.scales.last);
    box.setAttribute("aria-valuenow", step === null ? now.scales.last : step);
    box.replaceChildren(now.svg, readout);
    read(step !== null && steps().includes(step) ? step : null);
  }

  box.addEventListener("pointermove", (event) => {
    if (!now) return;
    const x = event.clientX - box.getBoundingClientRect().left;
    read(steps().reduce((best, s) => Math.abs(now.scales.x(s) - x) < Math.abs(now.scales.x(best) - x) ? s : best));
  });
  box.addEventListener("pointerleave", () => now && read(null));
  box.addEventListener("blur", () => now && read(null));
  box.addEventListener("keydown", (event) => {
    if (!now) return;
    const all = steps(), at = all.indexOf(step);
    const moves = { ArrowLeft: at < 0 ? all.length - 1 : at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 };
    if (event.key === "Escape") read(null);
    if (!(event.key in moves)) return;
    event.preventDefault();
    read(all[Math.min(all.length - 1, Math.max(0, moves[event.key]))]);
  });
  let drawnWidth = 0;
  new ResizeObserver(() => {
    if (box.clientWidth !== drawnWidth) redraw();
    drawnWidth = box.clientWidth;
  }).observe(box);
  return { node: box, redraw };
}
