// A dialogue: messages, streaming answers, another try, another wording.

import { Answer } from "./answer.js";
import { AttentionView } from "./attention.js";
import { button, element, growing, sends } from "./elements.js";
import { showError } from "./notice.js";
import { calmMotion } from "./preferences.js";
import { copyText, SpeedLine } from "./speed.js";
import { Work } from "./work.js";

export class ChatTab {
  constructor(model, settings) {
    this.model = model;
    this.settings = settings;
    this.turns = [];
    this.speed = new SpeedLine(settings);
    this.attention = model.purelm.can.includes("attention") ? new AttentionView(model) : null;
    this.work = new Work(this.speed, () => this.showButtons());
    this.build();
    this.showButtons();
  }

  build() {
    this.log = element("div", { class: "log", role: "group", label: "conversation" });
    this.empty = element("p", { class: "empty", say: "chat_empty" });
    this.box = growing(element("textarea", { rows: 1, label: "message", placeholder: "message_hint", id: "message" }));
    this.box.addEventListener("keydown", (event) => {
      if (!sends(event)) return;
      event.preventDefault();
      this.send();
    });
    this.buttons = {
      send: button("send", () => this.send(), { class: "main" }),
      stop: button("stop", () => this.work.stop(), { class: "main stop" }),
      regenerate: button("regenerate", () => this.regenerate()),
      edit: button("edit_last", () => this.editLast()),
      clear: button("clear", () => this.clear(), { class: "quietly" }),
    };
    const { send, stop, regenerate, edit, clear } = this.buttons;
    this.composer = element("div", { class: "composer" }, element("div", { class: "entry" }, this.box, send, stop),
      element("div", { class: "row" }, regenerate, edit, clear, element("span", { class: "hint quiet", say: "keys_hint" })));
    this.node = element("div", { class: "chat" }, this.empty, this.log, this.speed.node,
      ...(this.attention ? [this.attention.node] : []), this.composer);
  }

  focus() {
    this.box.focus({ preventScroll: true });
  }

  stop() {
    this.work.stop();
  }

  showButtons() {
    const { running } = this.work, last = this.turns.at(-1);
    const { send, stop, regenerate, edit, clear } = this.buttons;
    const hadFocus = document.activeElement === send || document.activeElement === stop;
    send.hidden = running;
    stop.hidden = !running;
    regenerate.hidden = running || !last;
    edit.hidden = running || !last;
    clear.hidden = running || !last;
    this.empty.hidden = Boolean(last);
    if (hadFocus) (running ? stop : send).focus();
  }

  send() {
    const text = this.box.value.trim();
    if (!text || this.work.running) return;
    this.setBox("");
    this.addUser(text);
    this.answer();
  }

  setBox(text) {
    this.box.value = text;
    this.box.dispatchEvent(new Event("input"));
  }

  addUser(text) {
    const body = element("div", { class: "answer" }, text);
    this.addTurn("user", () => text, body);
  }

  addTurn(role, content, body) {
    const copy = button("copy", () => copyText(content(), copy), { class: "link" });
    const node = element("article", { class: `turn ${role}` },
      element("p", { class: "who" }, element("span", { say: role === "user" ? "you" : "model_name" }), copy), body);
    this.turns.push({ role, content, node });
    this.log.append(node);
  }

  dropLast(role) {
    if (this.turns.at(-1)?.role === role) this.turns.pop().node.remove();
  }

  messages() {
    const system = this.settings.values.system_prompt.trim();
    return [...(system ? [{ role: "system", content: system }] : []),
      ...this.turns.map(({ role, content }) => ({ role, content: content() }))];
  }

  async answer() {
    let fields;
    const messages = this.messages();
    try {
      fields = this.settings.requestFields("chat");
    } catch (error) {
      this.showButtons();
      return showError(error, () => this.answer());
    }
    const answer = new Answer();
    this.addTurn("assistant", () => answer.text, answer.node);
    const follow = this.follower();
    answer.onDrawn = follow;
    follow(true);
    const state = await this.work.run("/v1/chat/completions", { model: this.model.id, messages, ...fields }, {
      onPieces: (_, pieces) => answer.append(pieces), textOf: () => answer.text,
      retry: () => { this.dropLast("assistant"); this.answer(); },
    });
    answer.finish();
    if (state.reason === "failed" && !answer.text) this.dropLast("assistant");
    this.attention?.set(this.source(messages, answer, state));
    this.showButtons();
    follow();
  }

  /** What was read and written: by ids where the server told them all, else as messages. */
  source(messages, answer, state) {
    if (!answer.text) return null;
    if (state.promptIds && state.ids[0]) return { ids: [...state.promptIds, ...state.ids[0]] };
    return { text: [...messages.map(({ content }) => content), answer.text].join("\n"),
      tokens: state.usage?.total_tokens };
  }

  /** Keeps the end in view while the reader has not scrolled away from it. */
  follower() {
    return (always = false) => {
      const beyond = this.node.getBoundingClientRect().bottom - innerHeight;
      if (beyond <= 0 || (!always && beyond > 160)) return;
      scrollBy({ top: beyond, behavior: always && !calmMotion() ? "smooth" : "auto" });
    };
  }

  regenerate() {
    if (this.work.running) return;
    this.dropLast("assistant");
    this.answer();
  }

  editLast() {
    if (this.work.running) return;
    this.dropLast("assistant");
    const last = this.turns.at(-1);
    if (last) this.setBox(last.content());
    this.dropLast("user");
    this.attention?.set(null);
    this.showButtons();
    this.box.focus();
  }

  clear() {
    if (this.work.running) return;
    this.turns = [];
    this.log.replaceChildren();
    this.speed.node.replaceChildren();
    this.attention?.set(null);
    this.showButtons();
    this.box.focus();
  }
}
