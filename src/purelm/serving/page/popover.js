// What is known of a token: its probability, and what else might have been written.

import { button, element, percent, words } from "./elements.js";
import { shown } from "./tokens.js";

let pop = null, anchor = null, pinned = false, returning = false, timer = null, options = {};

function build() {
  pop = element("div", { id: "alternatives", class: "pop", role: "dialog", label: "alternatives" });
  pop.hidden = true;
  pop.addEventListener("pointerenter", () => clearTimeout(timer));
  pop.addEventListener("pointerleave", () => { if (!pinned) later(); });
  pop.addEventListener("keydown", onKey);
  document.addEventListener("pointerdown", (event) => {
    if (!pop.hidden && !pop.contains(event.target) && event.target !== anchor) hidePopover();
  });
  document.body.append(pop);
}

function onKey(event) {
  const all = [...pop.querySelectorAll("button")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  all[(all.indexOf(document.activeElement) + step + all.length) % all.length]?.focus();
}

export function hidePopover({ focus = false } = {}) {
  clearTimeout(timer);
  if (!pop || pop.hidden) return false;
  const inside = pop.contains(document.activeElement);
  pop.hidden = true;
  pinned = false;
  anchor?.removeAttribute("aria-describedby");
  anchor?.classList.remove("pointed");
  if (focus || inside) {
    returning = true;
    anchor?.focus();
    returning = false;
  }
  return true;
}

/** Hides it shortly, unless the pointer arrives in it before. */
export function later() {
  clearTimeout(timer);
  if (!pinned) timer = setTimeout(hidePopover, 180);
}

export const isPinned = () => pinned;

/**
 * Shows the popover at a token's node.
 *
 * piece: of the node. pin: it stays until it is dismissed. onTake(token, index): called when an alternative is chosen;
 * without it there is no choice. enter: the focus goes to the first alternative.
 */
export function showPopover(node, piece, { pin = false, enter = false, onTake = null } = {}) {
  if (returning) return;
  if (!pop) build();
  clearTimeout(timer);
  if (anchor !== node) anchor?.classList.remove("pointed");
  [anchor, pinned, options] = [node, pin, { onTake: piece.tokens.length === 1 ? onTake : null }];
  fill(piece);
  pop.hidden = false;
  node.classList.add("pointed");
  node.setAttribute("aria-describedby", "alternatives");
  place();
  if (enter) pop.querySelector("button")?.focus();
}

function place() {
  const lines = anchor.getClientRects();
  const at = lines[lines.length - 1] ?? anchor.getBoundingClientRect();
  const { width, height } = pop.getBoundingClientRect();
  const page = document.documentElement;
  const left = Math.max(8, Math.min(at.left, page.clientWidth - width - 8));
  const below = at.bottom + 6 + height < page.clientHeight || at.top < height + 14;
  pop.style.left = `${left + scrollX}px`;
  pop.style.top = `${(below ? at.bottom + 6 : at.top - height - 6) + scrollY}px`;
}

function fill(piece) {
  const parts = [];
  if (piece.tokens.length > 1) {
    parts.push(element("p", { class: "quiet", say: "together", values: { n: piece.tokens.length } }));
  }
  piece.tokens.forEach((token, index) => parts.push(...oneToken(token, index)));
  if (options.onTake) parts.push(element("p", { class: "quiet", say: "branch_hint" }));
  pop.replaceChildren(...parts);
}

function oneToken(token, index) {
  const probability = Math.exp(token.logProbability);
  const title = element("p", { class: "title" }, element("code", {}, shown(token)), " ",
    element("b", {}, percent(probability)));
  const same = (other) => String(other.bytes) === String(token.bytes);
  const listed = token.alternatives.slice(0, 5);
  if (!listed.some(same) && listed.length) listed.push({ ...token, beyond: true });
  const list = element("ol", { class: "options" }, ...listed.map((other) => oneOption(other, same(other), index)));
  return [title, list];
}

function oneOption(other, chosen, index) {
  const probability = Math.exp(other.logProbability);
  const bar = element("span", { class: "bar" });
  bar.style.width = `${Math.max(probability * 100, 0.5)}%`;
  const inside = [element("code", {}, shown(other)),
    element("span", { class: "share" }, bar), element("span", { class: "value" }, percent(probability))];
  if (chosen) inside[0].prepend(mark());
  const item = element("li", { class: chosen ? "chosen" : other.beyond ? "beyond" : "" });
  if (options.onTake && !chosen && other.text) {
    const { onTake } = options;
    const take = button("take", () => { hidePopover(); onTake(other, index); }, { class: "option" });
    take.removeAttribute("data-say");
    take.replaceChildren(...inside);
    take.setAttribute("aria-label", words("take", { token: other.text, p: percent(probability) }));
    item.append(take);
  } else {
    item.append(element("div", { class: "option" }, ...inside));
  }
  return item;
}

function mark() {
  return element("small", { class: "mark" }, "✓", element("span", { class: "unseen", say: "chosen" }));
}
