// Tokens in the page: what each node stands for, the steps of probability, and moving among them with arrow keys.

import { element, percent } from "./elements.js";

export { shown } from "./pieces.js";

const STEPS = [0.9, 0.5, 0.2, 0.05];

/** 0 (likely) to 4 (surprising). */
export function stepOf(probability) {
  const step = STEPS.findIndex((least) => probability >= least);
  return step < 0 ? STEPS.length : step;
}

export function legend() {
  const bounds = [1, ...STEPS, 0];
  const names = STEPS.concat(0).map((least, k) =>
    (k === 0 ? `≥ ${percent(least)}` : k === STEPS.length ? `< ${percent(bounds[k])}`
      : `${percent(least)} – ${percent(bounds[k])}`.replace(" %", "").replaceAll(" – ", "–")).replaceAll(".0", ""));
  return element("div", { class: "legend" }, element("span", { class: "title", say: "legend" }),
    ...names.map((name, k) => element("span", { class: `sample p${k}` }, name)));
}

/**
 * Arrow keys among the children of `box` that match `.token`: one of them is in the tab order at a time.
 *
 * onFocus(node) is called when one is focused, onEnter(node) when Enter or the space bar is pressed on it.
 */
export function rove(box, { onFocus, onEnter }) {
  const current = () => box.querySelector('.token[tabindex="0"]');
  const move = (node) => {
    if (!node) return;
    current()?.setAttribute("tabindex", "-1");
    node.setAttribute("tabindex", "0");
    node.focus();
  };
  box.addEventListener("focusin", (event) => {
    if (event.target.matches(".token")) onFocus(event.target);
  });
  box.addEventListener("keydown", (event) => {
    if (!event.target.matches(".token") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      onEnter?.(event.target);
      return;
    }
    const next = neighbor(box, event.target, event.key);
    if (next === undefined) return;
    event.preventDefault();
    move(next);
  });
  return {
    move,
    enterFocus: () => current()?.focus(),
    /** Puts the first (or last) token into the tab order, if none is. */
    enter() {
      if (!current()) box.querySelector(".token")?.setAttribute("tabindex", "0");
    },
  };
}

/** Where a key leads from a token; undefined for other keys. */
function neighbor(box, node, key) {
  const forward = { ArrowRight: 1, ArrowLeft: -1 }[key];
  const line = { ArrowDown: 1, ArrowUp: -1 }[key];
  if (!forward && !line && key !== "Home" && key !== "End") return undefined;
  const all = [...box.querySelectorAll(".token")];
  if (key === "Home") return all[0];
  if (key === "End") return all.at(-1);
  const at = all.indexOf(node);
  if (forward) return all[at + forward] ?? null;
  return onNextLine(all, at, line);
}

/** The nearest token of the line below (1) or above (-1). */
function onNextLine(all, at, direction) {
  const from = all[at].getBoundingClientRect();
  let best = null, bestDistance = Infinity, lineTop = null;
  for (let k = at + direction; all[k]; k += direction) {
    const rect = all[k].getBoundingClientRect();
    if (Math.abs(rect.top - from.top) < from.height / 2) continue;
    lineTop ??= rect.top;
    if (Math.abs(rect.top - lineTop) > from.height / 2) break;
    const distance = Math.abs(rect.left - from.left);
    if (distance < bestDistance) [best, bestDistance] = [all[k], distance];
  }
  return best;
}
