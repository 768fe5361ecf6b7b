// What each token of the last answer read: tokens shaded by attention, and the matrix.

import { json, ServerError } from "./api.js";
import { element, number, percent, say, words } from "./elements.js";
import { Matrix } from "./matrix.js";
import { showError } from "./notice.js";
import { namedToken, shown } from "./pieces.js";
import { remember, remembered } from "./preferences.js";
import { rove } from "./tokens.js";

const MOST_TOKENS = 512;

/** A token within the text: line ends are shown and kept, part of a character is its bytes. */
function inText(name) {
  const token = namedToken(name);
  if (!token.text) return `${shown(token)} `;
  return token.text.replaceAll("\n", "↵\n").replaceAll("\t", "⇥");
}

export class AttentionView {
  constructor(model, name = "attention") {
    this.model = model;
    this.most = Math.min(MOST_TOKENS, model.purelm.context_length);
    this.source = null;
    this.answer = null;
    this.wanted = 0;
    const { layer, head } = remembered("attention", { layer: 0, head: "mean" });
    this.layer = this.choice("layer", layer);
    this.head = this.choice("head", head);
    this.note = element("p", { class: "quiet" });
    this.tokens = element("div", { class: "attention-tokens answer", role: "group", label: "attention_tokens" });
    this.reading = element("p", { class: "reading", "aria-live": "polite" });
    this.matrix = new Matrix((query, key) => this.point(query, key));
    this.inside = element("div", { class: "attention-inside" });
    this.node = element("details", { class: "attention" }, element("summary", { say: name }),
      element("p", { class: "row" }, ...this.layer.parts, ...this.head.parts), this.note, this.inside);
    this.inside.append(element("div", {}, this.tokens, this.reading), this.matrix.node);
    this.node.addEventListener("toggle", () => {
      this.opened = this.node.open;
      this.load();
    });
    this.rover = rove(this.tokens, { onFocus: (node) => this.point(this.indexOf(node)) });
    this.tokens.addEventListener("pointerover", (event) => {
      if (event.target.matches(".token")) this.point(this.indexOf(event.target));
    });
    this.tokens.addEventListener("click", (event) => {
      if (event.target.matches(".token")) this.rover.move(event.target);
    });
    document.addEventListener("languagechange", () => { if (this.answer) this.point(this.pointed); });
    this.clear("attention_none");
    this.set(null);
  }

  choice(name, value) {
    const id = `${name}-${Math.random().toString(36).slice(2, 8)}`;
    const select = element("select", { id, on: { change: () => {
      remember("attention", { layer: Number(this.layer.select.value), head: this.head.select.value });
      this.load();
    } } }, element("option", { value: String(value) }, String(value)));
    return { select, parts: [element("label", { for: id, say: name }), select] };
  }

  indexOf(node) {
    return this.nodes.indexOf(node);
  }

  /** What is to be looked at from now on: {ids}, or {text, tokens: how many}, or null. */
  set(source) {
    this.source = source;
    this.answer = null;
    this.node.hidden = source === null;
    this.load();
  }

  clear(key) {
    this.nodes = [];
    this.tokens.replaceChildren();
    this.reading.textContent = "";
    this.inside.hidden = true;
    say(this.note, key);
  }

  async load() {
    if (!this.node.open || !this.source) return;
    const number = this.wanted += 1;
    if (!this.answer) this.clear("attention_loading");
    try {
      const answer = await this.ask();
      if (number !== this.wanted) return;
      this.draw(answer);
      if (this.opened) this.node.scrollIntoView({ block: "nearest" });
      this.opened = false;
    } catch (error) {
      if (number !== this.wanted) return;
      this.clear("attention_none");
      showError(error, () => this.load());
    }
  }

  /** Asks for the end of a text that is too long; its length in tokens is known only roughly, so more than once. */
  async ask() {
    const { ids, text, tokens } = this.source;
    const body = { model: this.model.id, layer: Number(this.layer.select.value) };
    body.head = this.head.select.value === "mean" ? "mean" : Number(this.head.select.value);
    if (ids) {
      this.cut = ids.length > this.most;
      return json("/v1/attention", { ...body, ids: ids.slice(-this.most) });
    }
    let share = Math.min(1, this.source.share ?? (tokens > this.most ? 0.95 * this.most / tokens : 1));
    for (;;) {
      const from = Math.floor(text.length * (1 - share));
      this.cut = from > 0;
      try {
        const answer = await json("/v1/attention", { ...body, text: text.slice(from) });
        this.source.share = share;
        return answer;
      } catch (error) {
        if (!(error instanceof ServerError && error.status === 400 && /token/.test(error.message)) || share < 0.01) {
          throw error;
        }
        share *= 0.85;
      }
    }
  }

  fillChoices({ layers, heads }) {
    const fill = (select, values) => {
      const { value } = select;
      if (select.options.length !== values.length) {
        select.replaceChildren(...values.map((one) => element("option",
          one === "mean" ? { value: one, say: "head_mean" } : { value: one }, ...(one === "mean" ? [] : [one]))));
      }
      select.value = values.includes(value) ? value : values[0];
    };
    const counted = (count) => Array.from({ length: count }, (_, k) => String(k));
    fill(this.layer.select, counted(layers));
    fill(this.head.select, ["mean", ...counted(heads)]);
  }

  draw(answer) {
    this.answer = answer;
    this.fillChoices(answer);
    const both = answer.weights.some((row, query) => row.some((weight, key) => key > query && weight > 0));
    if (this.cut) say(this.note, "attention_cut", { n: number(answer.tokens.length) });
    else say(this.note, both ? "attention_both_hint" : "attention_hint");
    const same = (node, k) => node.dataset.token === answer.tokens[k];
    if (this.nodes.length !== answer.tokens.length || !this.nodes.every(same)) {
      this.nodes = answer.tokens.map((token) => element("span", { class: "token", "data-token": token },
        inText(token)));
      this.tokens.replaceChildren(...this.nodes);
    }
    this.inside.hidden = false;
    this.rover.enter();
    this.matrix.draw(answer.weights);
    this.point(Math.min(this.pointed ?? Infinity, this.nodes.length - 1));
  }

  /** Shades what token `query` reads. */
  point(query, key = null) {
    if (!this.answer?.weights[query]) return;
    this.pointed = query;
    const row = this.answer.weights[query];
    const largest = Math.max(...row, 1e-9);
    this.nodes.forEach((node, k) => {
      node.style.setProperty("--w", `${Math.round(row[k] / largest * 100)}%`);
      node.classList.toggle("reads", k === query);
      node.classList.toggle("strong", row[k] / largest > 0.55);
    });
    this.matrix.mark(query);
    const name = (k) => shown(namedToken(this.answer.tokens[k]));
    if (key !== null) {
      say(this.reading, "attention_pair", { query: name(query), key: name(key), p: percent(row[key]) });
      return;
    }
    const top = row.map((weight, k) => [weight, k]).sort((a, b) => b[0] - a[0]).slice(0, 5).filter(([w]) => w > 0);
    say(this.reading, "attention_reads", { token: name(query),
      what: top.map(([weight, k]) => `${name(k)} ${percent(weight)}`).join(words("list_comma")) });
  }
}
