// Elements and their words: whatever is said through here is said again when the language changes.

import { STRINGS } from "./strings.js";

const VALUES = new WeakMap();

export const language = () => (document.documentElement.lang.startsWith("zh") ? "zh" : "en");

/** The string `key` in the page's language, {names} replaced. */
export function words(key, values = {}) {
  const said = STRINGS[key][language() === "zh" ? 1 : 0];
  return said.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** Makes the words of `key` the text of a node. */
export function say(node, key, values = {}) {
  node.dataset.say = key;
  VALUES.set(node, values);
  node.textContent = words(key, values);
}

/** Makes the words of `key` the accessible name of a node. */
export function label(node, key, values = {}) {
  node.dataset.label = key;
  VALUES.set(node, values);
  node.setAttribute("aria-label", words(key, values));
}

export function placeholder(node, key) {
  node.dataset.placeholder = key;
  node.placeholder = words(key);
}

export function setLanguage(next) {
  document.documentElement.lang = next;
  sayAgain(document);
  document.dispatchEvent(new Event("languagechange"));
}

export function sayAgain(root) {
  for (const node of root.querySelectorAll("[data-say]")) say(node, node.dataset.say, VALUES.get(node));
  for (const node of root.querySelectorAll("[data-label]")) label(node, node.dataset.label, VALUES.get(node));
  for (const node of root.querySelectorAll("[data-placeholder]")) placeholder(node, node.dataset.placeholder);
}

/** An element. `say`, `label` and `placeholder` are keys of strings, `on` its listeners; children: nodes or text. */
export function element(name, options = {}, ...children) {
  const node = document.createElement(name);
  for (const [option, value] of Object.entries(options)) {
    if (value === undefined || value === null || option === "values") continue;
    if (option === "on") Object.entries(value).forEach(([event, listener]) => node.addEventListener(event, listener));
    else if (option === "say") say(node, value, options.values);
    else if (option === "label") label(node, value, options.values);
    else if (option === "placeholder") placeholder(node, value);
    else if (option === "class") node.className = value;
    else if (typeof value === "boolean") node.toggleAttribute(option, value);
    else node.setAttribute(option, value);
  }
  node.append(...children);
  return node;
}

export const button = (key, listener, options = {}) =>
  element("button", { type: "button", say: key, on: { click: listener }, ...options });

export const number = (value, digits = 0) =>
  value.toLocaleString(language(), { maximumFractionDigits: digits, minimumFractionDigits: digits });

/** A probability for reading: 34.2 %, 0.04 %, < 0.01 %. */
export function percent(probability) {
  const share = probability * 100;
  if (share > 0 && share < 0.01) return "< 0.01 %";
  return `${share >= 99.95 ? 100 : number(share, share < 1 && share > 0 ? 2 : 1)} %`;
}

/** Said to screen readers, once, by the live region. */
export function announce(text) {
  document.getElementById("live").textContent = text.length > 1500 ? `${text.slice(0, 1500)}…` : text;
}

/** True for the Enter that sends: not with Shift, and not the one that ends composing Chinese. */
export const sends = (event) =>
  event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;

/** A text area as high as its text, from browsers that do not know `field-sizing`. */
export function growing(area) {
  if (CSS.supports("field-sizing", "content")) return area;
  const fit = () => { area.style.height = "auto"; area.style.height = `${area.scrollHeight + 2}px`; };
  area.addEventListener("input", fit);
  return area;
}
