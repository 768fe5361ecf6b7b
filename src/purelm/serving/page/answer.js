// Text that a model writes: each piece a node, colored by probability, appended and never drawn again.

import { element, label } from "./elements.js";
import { hidePopover, isPinned, later, showPopover } from "./popover.js";
import { rove, stepOf } from "./tokens.js";

const BLOCK = 60;

// Text that grows under a pointer at rest is not pointed at.
const rest = { x: -1, y: -1 };
const moved = (event) => event.clientX !== rest.x || event.clientY !== rest.y;
for (const kind of ["pointermove", "pointerdown", "pointerup"]) {
  document.addEventListener(kind, (event) => { [rest.x, rest.y] = [event.clientX, event.clientY]; });
}

export class Answer {
  /** onTake(index, token): an alternative of the piece at index was chosen; null where answers cannot branch. */
  constructor({ name = "answer", onTake = null } = {}) {
    this.pieces = [];
    this.onTake = onTake;
    this.node = element("div", { class: "answer", role: "group" });
    label(this.node, name);
    this.places = new WeakMap();
    this.drawn = 0;
    this.frame = null;
    this.block = null;
    this.rover = rove(this.node, {
      onFocus: (node) => this.show(node, {}),
      onEnter: (node) => this.show(node, { pin: true, enter: true }),
    });
    this.listen();
  }

  get text() {
    return this.pieces.map((piece) => piece.text).join("");
  }

  listen() {
    const token = (event) => event.target.closest(".token");
    this.node.addEventListener("pointerover", (event) => {
      if (event.pointerType === "mouse" && token(event) && !isPinned() && moved(event)) this.show(token(event), {});
    });
    this.node.addEventListener("pointerout", (event) => {
      if (event.pointerType === "mouse" && token(event)) later();
    });
    this.node.addEventListener("click", (event) => {
      if (!token(event) || !getSelection().isCollapsed) return;
      this.rover.move(token(event));
      this.show(token(event), { pin: true });
    });
    this.node.addEventListener("focusout", (event) => {
      if (!isPinned() && event.target.matches(".token")) later();
    });
  }

  show(node, how) {
    const index = this.places.get(node);
    const onTake = this.onTake && ((token) => this.onTake(index, token));
    showPopover(node, this.pieces[index], { ...how, onTake });
  }

  /** Adds pieces; they are drawn with the next frame, so that a quick model does not wait for the page. */
  append(pieces) {
    this.pieces.push(...pieces);
    if (pieces.length && this.frame === null) this.frame = requestAnimationFrame(() => this.flush());
  }

  flush() {
    if (this.frame !== null) cancelAnimationFrame(this.frame);
    this.frame = null;
    for (; this.drawn < this.pieces.length; this.drawn += 1) this.draw(this.pieces[this.drawn], this.drawn);
    this.onDrawn?.();
  }

  /** A line end after enough pieces starts a new block, so that little is laid out again as a long text grows. */
  draw(piece, index) {
    if (!this.block) this.node.append(this.block = element("div", { class: "block" }));
    const node = document.createElement("span");
    node.textContent = piece.text;
    this.places.set(node, index);
    if (piece.tokens.length) {
      const probability = Math.exp(piece.tokens.reduce((sum, token) => sum + token.logProbability, 0));
      node.className = `token p${stepOf(probability)}${piece.text.includes("\n") ? " line" : ""}`;
    } else {
      node.className = "given";
    }
    this.block.append(node);
    if (piece.text.endsWith("\n") && this.block.childElementCount >= BLOCK) this.block = null;
  }

  /** Everything is there: draws what is left and lets the keyboard in. */
  finish() {
    this.flush();
    this.rover.enter();
  }

  /** Shows other pieces instead. */
  replace(pieces) {
    hidePopover();
    this.pieces = [];
    this.drawn = 0;
    this.block = null;
    this.node.replaceChildren();
    this.append(pieces);
    this.flush();
  }
}
