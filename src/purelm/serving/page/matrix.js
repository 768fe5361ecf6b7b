// A matrix of attention on a canvas: a row for each token that reads, a column for each that is read.

import { element, label, percent, say } from "./elements.js";

const LARGEST = 512;

function rgb(variable) {
  const probe = element("span", { class: "unseen" });
  probe.style.color = `var(${variable})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return found;
}

export class Matrix {
  /** onPoint(query, key): the pointer is on a cell. */
  constructor(onPoint) {
    this.weights = null;
    this.canvas = element("canvas", { role: "img", tabindex: "-1" });
    label(this.canvas, "matrix");
    this.line = element("div", { class: "matrix-line" });
    this.scale = element("span", {});
    this.node = element("figure", { class: "matrix" }, element("div", { class: "matrix-box" }, this.canvas, this.line),
      element("figcaption", { class: "quiet" }, element("span", { say: "matrix" }), " ",
        element("span", { class: "ramp" }), " ", this.scale));
    this.canvas.addEventListener("pointermove", (event) => {
      const size = this.weights?.length;
      if (!size) return;
      const box = this.canvas.getBoundingClientRect();
      const cell = (offset, length) => Math.min(size - 1, Math.max(0, Math.floor(offset / length * size)));
      onPoint(cell(event.clientY - box.top, box.height), cell(event.clientX - box.left, box.width));
    });
    document.addEventListener("themechange", () => { if (this.weights) this.draw(this.weights); });
  }

  draw(weights) {
    this.weights = weights;
    const size = weights.length;
    const cell = Math.max(1, Math.floor(LARGEST / size));
    const { canvas } = this;
    canvas.width = canvas.height = size * cell;
    const context = canvas.getContext("2d");
    const largest = Math.max(...weights.map((row) => Math.max(...row)), 1e-9);
    const low = rgb("--matrix-low"), high = rgb("--matrix-high");
    const image = context.createImageData(size * cell, size * cell);
    for (let y = 0; y < size * cell; y += 1) {
      const row = weights[Math.floor(y / cell)];
      for (let x = 0; x < size * cell; x += 1) {
        // The square root lets small weights be seen.
        const share = Math.sqrt(row[Math.floor(x / cell)] / largest);
        const at = (y * size * cell + x) * 4;
        for (let k = 0; k < 3; k += 1) image.data[at + k] = low[k] + (high[k] - low[k]) * share;
        image.data[at + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
    say(this.scale, "matrix_scale", { p: percent(largest) });
  }

  /** Shows which row belongs to the token that is pointed at. */
  mark(query) {
    const size = this.weights.length;
    this.line.style.top = `${query / size * 100}%`;
    this.line.style.height = `${100 / size}%`;
  }
}
