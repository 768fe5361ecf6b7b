// Answers of /v1/predict for reading: bars for labels, tags in the text, a span in its paragraph, else a table.

import { button, element, percent } from "./elements.js";
import { copyText } from "./speed.js";

const isNumber = (value) => typeof value === "number";

/** Nodes that show one answer row. */
export function showResult(row, { task, texts }) {
  if (row.probabilities && !Array.isArray(row.probabilities)) return labels(row);
  if (Array.isArray(row.tags) && Array.isArray(row.tokens)) return tags(row);
  if (task === "extractive_qa" && isNumber(row.start)) return span(row, texts[1].trim());
  if (Array.isArray(row.fills)) return gaps(row);
  if (typeof row.text === "string") return text(row);
  return [table(row)];
}

function sure(row) {
  return isNumber(row.probability) ? [element("p", { class: "quiet", say: "with_probability",
    values: { p: percent(row.probability) } })] : [];
}

/** Bars, the first marked as the answer. */
function bars(pairs) {
  return element("ol", { class: "options wide" }, ...pairs.map(([name, probability], k) => {
    const bar = element("span", { class: "bar" });
    bar.style.width = `${Math.max(probability * 100, 0.3)}%`;
    return element("li", { class: k === 0 ? "chosen" : "" }, element("div", { class: "option" },
      element("span", { class: "name" }, name), element("span", { class: "share" }, bar),
      element("span", { class: "value" }, percent(probability))));
  }));
}

function labels(row) {
  const pairs = Object.entries(row.probabilities).sort((a, b) => b[1] - a[1]);
  const rest = 1 - pairs.reduce((sum, [, probability]) => sum + probability, 0);
  const others = rest > 0.0005 ? [element("p", { class: "quiet", say: "others", values: { p: percent(rest) } })] : [];
  return [element("p", { class: "big" }, row.label), bars(pairs), ...others];
}

function tags(row) {
  const entities = row.entities ?? [];
  const kinds = [...new Set(entities.map((entity) => entity.type))];
  const color = (kind) => `kind k${kinds.indexOf(kind) % 6}`;
  const starts = new Map(entities.map((entity) => [entity.start, entity]));
  const sentence = element("p", { class: "tagged" });
  for (let k = 0; k < row.tokens.length; k += 1) {
    const entity = starts.get(k);
    if (!entity) {
      sentence.append(`${row.tokens[k]} `);
      continue;
    }
    sentence.append(element("mark", { class: color(entity.type) }, row.tokens.slice(k, entity.end).join(" "),
      element("small", {}, entity.type)), " ");
    k = entity.end - 1;
  }
  if (!entities.length) return [sentence, element("p", { class: "quiet", say: "no_entities" })];
  const least = (entity) => Math.min(...(row.probabilities ?? []).slice(entity.start, entity.end));
  const rows = entities.map((entity) => element("tr", {}, element("td", {}, entity.text),
    element("td", {}, element("mark", { class: color(entity.type) }, entity.type)),
    element("td", { class: "value" }, row.probabilities ? percent(least(entity)) : "")));
  return [sentence, element("table", { class: "facts" }, element("thead", {}, element("tr", {},
    ...["entity", "kind", "probability"].map((key) => element("th", { scope: "col", say: key })))),
  element("tbody", {}, ...rows))];
}

function span(row, paragraph) {
  if (!row.answer) return [element("p", { class: "big", say: "no_answer" }), ...sure(row)];
  const exact = paragraph.slice(row.start, row.end) === row.answer;
  const parts = exact ? [paragraph.slice(0, row.start), element("mark", { class: "kind k0" }, row.answer),
    paragraph.slice(row.end)] : [paragraph];
  return [element("p", { class: "big" }, row.answer), ...sure(row), element("p", { class: "tagged" }, ...parts)];
}

function gaps(row) {
  return [element("p", { class: "big" }, row.text), ...sure(row), ...row.fills.flatMap((fill, k) =>
    [element("h3", { say: "gap", values: { n: k + 1 } }), bars(fill)])];
}

function text(row) {
  const copy = button("copy", () => copyText(row.text, copy), { class: "link" });
  const { text: answer, probability, ...rest } = row;
  delete rest.index;
  return [element("p", { class: "big" }, answer), element("div", { class: "row" }, ...sure({ probability }), copy),
    table(rest)];
}

function table(row) {
  const shown = (value) => (typeof value === "string" ? value
    : isNumber(value) ? String(Math.round(value * 1e4) / 1e4) : JSON.stringify(value));
  return element("table", { class: "facts" }, element("tbody", {}, ...Object.entries(row)
    .filter(([name]) => name !== "index").map(([name, value]) =>
      element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, shown(value))))));
}
