// Elements, numbers and the state that every part of the page reads. Texts reach the page as text nodes alone.

const DATA = JSON.parse(document.getElementById("data").textContent);
const BASE = DATA.rows.find((row) => row.base);
const METRIC = DATA.metrics[0];
const MARKS = DATA.marks;
const MISSING = "—";
const MINUS = "\u2212";

/** An element: attributes starting with "on" are listeners, null ones are left out; children are nodes or texts. */
function element(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function drawn(name, attributes, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** So many significant digits, with a true minus, without the noughts that say nothing. */
function shortNumber(value, digits = 4) {
  if (!isNumber(value)) return MISSING;
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6)
    ? value.toExponential(Math.min(digits - 1, 2)).replace(/\.?0+e/, "e").replace("e+", "e")
    : String(Number(value.toPrecision(digits)));
  return text.replace(/-/g, MINUS);
}

/** Four significant digits, noughts kept: for numbers under one another. */
function evenNumber(value) {
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e4) ? shortNumber(value) : value.toPrecision(4).replace("-", MINUS);
}

function plural(count, one, many) {
  return `${count} ${count === 1 ? one : many || one + "s"}`;
}

/** A two-state button. */
function toggle(label, pressed, onChange, attributes) {
  const button = element("button", {
    type: "button", class: "chip", "aria-pressed": String(pressed), ...attributes,
    onclick: () => {
      const now = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(now));
      onChange(now);
    },
  }, label);
  return button;
}

function choice(label, options, value, onChange) {
  const select = element("select", { onchange: () => onChange(select.value) },
    options.map(([key, text]) => element("option", { value: key, selected: key === value }, text)));
  return element("label", { class: "choice" }, element("span", {}, label), select);
}

function verdictMark(verdict) {
  return element("span", { class: `verdict v-${verdict.replace(/ /g, "-")}` },
    MARKS[verdict] ? element("span", { "aria-hidden": "true", class: "mark" }, MARKS[verdict]) : null, verdict);
}
