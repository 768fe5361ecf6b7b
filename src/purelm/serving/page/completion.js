// A text that the person and the model write on in turn; with several samples, a choice of continuations.

import { Answer } from "./answer.js";
import { AttentionView } from "./attention.js";
import { button, element, growing } from "./elements.js";
import { showError } from "./notice.js";
import { offsetAt } from "./places.js";
import { copyText, SpeedLine } from "./speed.js";
import { Work } from "./work.js";

export class CompletionTab {
  constructor(model, settings) {
    this.model = model;
    this.settings = settings;
    this.past = [];
    this.candidates = [];
    this.sheet = new Answer({ name: "written", onTake: (index, token) => this.branch(index, token) });
    this.speed = new SpeedLine(settings);
    this.attention = model.purelm.can.includes("attention") ? new AttentionView(model) : null;
    this.work = new Work(this.speed, () => this.showButtons());
    this.build();
    this.showSheet(false);
  }

  build() {
    this.area = growing(element("textarea", { rows: 6, label: "text", placeholder: "completion_hint", id: "text" }));
    this.area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) this.continue();
    });
    this.area.addEventListener("input", () => this.showButtons());
    this.sheet.node.classList.add("sheet");
    this.sheet.node.addEventListener("click", (event) => {
      if (event.target.closest(".token") || !getSelection().isCollapsed) return;
      this.edit(offsetAt(this.sheet.node, event));
    });
    this.buttons = {
      go: button("continue", () => this.continue(), { class: "main" }),
      stop: button("stop", () => this.work.stop(), { class: "main stop" }),
      undo: button("undo", () => this.undo()),
      edit: button("edit", () => this.edit()),
      view: button("view", () => this.view()),
      copy: button("copy", () => copyText(this.takeEdits(), this.buttons.copy)),
      clear: button("clear", () => this.clear(), { class: "quietly" }),
    };
    this.choices = element("div", { class: "choices" });
    this.node = element("div", { class: "completion" }, this.area, this.sheet.node,
      element("div", { class: "row bar-row" }, ...Object.values(this.buttons)), this.speed.node, this.choices,
      ...(this.attention ? [this.attention.node] : []));
  }

  focus() {
    if (!this.area.hidden) this.area.focus({ preventScroll: true });
  }

  stop() {
    this.work.stop();
  }

  showButtons() {
    const { running } = this.work, { go, stop, undo, edit, view, copy, clear } = this.buttons;
    const written = this.area.hidden ? this.sheet.pieces.length > 0 : this.area.value !== "";
    const hadFocus = document.activeElement === go || document.activeElement === stop;
    go.hidden = running;
    go.disabled = !written;
    stop.hidden = !running;
    undo.hidden = running || !this.past.length;
    edit.hidden = running || !this.area.hidden;
    view.hidden = running || this.area.hidden || !this.hasTokens();
    copy.hidden = running || !written;
    clear.hidden = running || !written;
    if (hadFocus) (running ? stop : go).focus();
  }

  showSheet(shown) {
    this.sheet.node.hidden = !shown;
    this.area.hidden = shown;
    this.showButtons();
  }

  /** The text as it stands; what was edited counts as given, and what the model wrote before it stays known. */
  takeEdits() {
    if (this.area.hidden) return this.sheet.text;
    const text = this.area.value;
    const kept = [];
    let length = 0;
    for (const piece of this.sheet.pieces) {
      if (!text.startsWith(piece.text, length)) break;
      kept.push(piece);
      length += piece.text.length;
    }
    if (length < text.length) kept.push({ text: text.slice(length), tokens: [] });
    this.sheet.replace(kept);
    return text;
  }

  edit(offset = null) {
    if (this.work.running) return;
    this.area.value = this.sheet.text;
    this.showSheet(false);
    this.area.dispatchEvent(new Event("input"));
    this.area.focus({ preventScroll: offset !== null });
    const at = offset ?? this.area.value.length;
    this.area.setSelectionRange(at, at);
  }

  hasTokens() {
    return this.sheet.pieces.some((piece) => piece.tokens.length);
  }

  /** Back to the tokens of what the model wrote. */
  view() {
    this.takeEdits();
    this.sheet.finish();
    this.showSheet(true);
    this.sheet.rover.enterFocus();
  }

  remember(pieces) {
    this.past.push(pieces);
    if (this.past.length > 100) this.past.shift();
  }

  /** The text before the model, or the person after it, wrote last. */
  undo() {
    const edited = !this.area.hidden && this.area.value !== this.sheet.text;
    const pieces = edited ? [...this.sheet.pieces] : this.past.pop();
    if (!pieces) return;
    this.dropChoices();
    this.sheet.replace(pieces);
    this.sheet.finish();
    this.attention?.set(null);
    if (this.hasTokens()) this.showSheet(true);
    else this.edit();
    this.showButtons();
    (this.past.length ? this.buttons.undo : this.buttons.go).focus();
  }

  clear() {
    this.takeEdits();
    this.remember([...this.sheet.pieces]);
    this.dropChoices();
    this.sheet.replace([]);
    this.speed.node.replaceChildren();
    this.attention?.set(null);
    this.edit();
  }

  /** Goes on from a token with what might have stood in its place. */
  branch(index, token) {
    if (this.work.running) return;
    const piece = this.sheet.pieces[index];
    const before = [...this.sheet.pieces];
    const gap = piece.text.slice(0, piece.text.length - (piece.tokens[0].text ?? "").length);
    const taken = { text: gap + token.text, tokens: [{ ...token, alternatives: piece.tokens[0].alternatives }] };
    this.sheet.replace([...before.slice(0, index), taken]);
    this.write(before);
  }

  continue() {
    if (this.work.running) return;
    const prompt = this.takeEdits();
    if (prompt) this.write([...this.sheet.pieces]);
  }

  async write(before) {
    const prompt = this.sheet.text;
    const given = [...this.sheet.pieces];
    let fields;
    try {
      fields = this.settings.requestFields("completion");
    } catch (error) {
      return showError(error, () => this.write(before));
    }
    this.remember(before);
    this.dropChoices();
    this.showSheet(true);
    const several = (fields.n ?? 1) > 1;
    const answers = several ? this.makeChoices(fields.n) : [this.sheet];
    const state = await this.work.run("/v1/completions", { model: this.model.id, prompt, ...fields }, {
      onPieces: (index, pieces) => answers[index].append(pieces),
      textOf: () => answers[0].text.slice(several ? 0 : prompt.length),
      retry: () => { this.past.pop(); this.sheet.replace(given); this.write(before); },
    });
    answers.forEach((answer) => answer.finish());
    this.attention?.set(this.source(prompt + (several ? answers[0].text : this.sheet.text.slice(prompt.length)), state));
    this.choices.querySelectorAll("button").forEach((one) => { one.disabled = false; });
    this.showButtons();
  }

  /** What was read and written (of the first sample): by ids where the server told them all, else as text. */
  source(text, state) {
    if (state.promptIds && state.ids[0]) return { ids: [...state.promptIds, ...state.ids[0]] };
    return { text, tokens: state.usage?.total_tokens };
  }

  makeChoices(count) {
    this.candidates = Array.from({ length: count }, () => new Answer());
    this.choices.replaceChildren(...this.candidates.map((answer, k) => element("section", { class: "choice" },
      element("p", { class: "who" }, element("span", { say: "sample", values: { n: k + 1 } }),
        button("use", () => this.use(answer), { class: "link", disabled: true })), answer.node)));
    return this.candidates;
  }

  dropChoices() {
    this.candidates = [];
    this.choices.replaceChildren();
  }

  use(answer) {
    const pieces = [...this.sheet.pieces, ...answer.pieces];
    this.remember([...this.sheet.pieces]);
    this.dropChoices();
    this.sheet.replace(pieces);
    this.sheet.finish();
    this.showSheet(true);
    this.attention?.set({ text: this.sheet.text });
    this.buttons.go.focus();
  }
}
