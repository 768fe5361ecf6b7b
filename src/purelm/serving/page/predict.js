// A text in, an answer out, as the task gives it.

import { json } from "./api.js";
import { AttentionView } from "./attention.js";
import { announce, button, element, growing, number, sends } from "./elements.js";
import { clearNotice, showError } from "./notice.js";
import { showResult } from "./results.js";

export class PredictTab {
  constructor(model) {
    this.model = model;
    this.task = model.purelm.task;
    this.controller = null;
    this.result = element("section", { class: "result", label: "result" });
    this.speed = element("p", { class: "speed" });
    this.attention = model.purelm.can.includes("attention") ? new AttentionView(model, "attention_of") : null;
    this.build();
    this.showButtons();
  }

  area(id, key, options = {}) {
    const area = growing(element("textarea", { id, rows: 3, ...options }));
    area.addEventListener("keydown", (event) => {
      if (!sends(event)) return;
      event.preventDefault();
      this.send();
    });
    area.addEventListener("input", () => this.showButtons());
    return { area, parts: [element("label", { for: id, say: key }), area] };
  }

  build() {
    const hint = this.task === "masked_language_modeling" ? "predict_gap_hint" : "predict_hint";
    if (this.task === "extractive_qa") {
      this.areas = [this.area("question", "question", { rows: 1 }), this.area("paragraph", "paragraph", { rows: 6 })];
    } else {
      this.areas = [this.area("input", "text", { placeholder: hint })];
    }
    this.go = button("predict", () => this.send(), { class: "main" });
    this.stopButton = button("stop", () => this.stop(), { class: "main stop" });
    this.node = element("div", { class: "predict" },
      ...this.areas.map(({ parts }) => element("div", { class: "field" }, ...parts)),
      element("div", { class: "row" }, this.go, this.stopButton), this.speed, this.result,
      ...(this.attention ? [this.attention.node] : []));
  }

  focus() {
    this.areas[0].area.focus({ preventScroll: true });
  }

  stop() {
    this.controller?.abort();
  }

  showButtons() {
    const running = this.controller !== null;
    const hadFocus = document.activeElement === this.go || document.activeElement === this.stopButton;
    this.go.hidden = running;
    this.go.disabled = this.areas.some(({ area }) => !area.value.trim());
    this.stopButton.hidden = !running;
    if (hadFocus) (running ? this.stopButton : this.go).focus();
  }

  async send() {
    const texts = this.areas.map(({ area }) => area.value);
    if (this.controller || texts.some((text) => !text.trim())) return;
    clearNotice();
    this.controller = new AbortController();
    this.showButtons();
    const started = performance.now();
    try {
      const input = texts.map((text) => text.trim()).join(" ||| ");
      const answer = await json("/v1/predict", { model: this.model.id, input }, this.controller.signal);
      this.result.replaceChildren(...showResult(answer.data[0], { task: this.task, texts }));
      this.speed.replaceChildren(element("span", { say: "took",
        values: { seconds: number((performance.now() - started) / 1000, 2) } }));
      announce(this.result.textContent);
      this.attention?.set({ text: texts.join("\n") });
    } catch (error) {
      if (error.name !== "AbortError") showError(error, () => this.send());
    }
    this.controller = null;
    this.showButtons();
  }
}
