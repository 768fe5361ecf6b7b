// The sampling controls: ranges, what each does, remembered between visits.

import { button, element, growing, label, say } from "./elements.js";
import { mistake } from "./notice.js";
import { remember, remembered } from "./preferences.js";

// `neutral` values are left out of requests.
const NUMBERS = {
  temperature: { start: 0.8, low: 0, high: 2, step: 0.05 },
  max_tokens: { start: 200, low: 1, high: 2048, step: 1 },
  top_p: { start: 1, neutral: 1, low: 0.01, high: 1, step: 0.01 },
  top_k: { start: 0, neutral: 0, low: 0, high: 200, step: 1 },
  min_p: { start: 0, neutral: 0, low: 0, high: 1, step: 0.01 },
  repetition_penalty: { start: 1, neutral: 1, low: 0.5, high: 2, step: 0.01 },
  frequency_penalty: { start: 0, neutral: 0, low: -2, high: 2, step: 0.05 },
  presence_penalty: { start: 0, neutral: 0, low: -2, high: 2, step: 0.05 },
  samples: { start: 1, neutral: 1, low: 1, high: 8, step: 1, only: "completion" },
};
const TEXTS = { stop_strings: {}, system_prompt: { only: "chat" } };
const CONSTRAINTS = ["none", "regex", "json_schema"];
const LARGEST_SEED = 2 ** 31 - 1;
const STARTS = {
  ...Object.fromEntries(Object.entries(NUMBERS).map(([name, { start }]) => [name, start])),
  stop_strings: "", system_prompt: "", seed: 0, random_seed: true, constraint: "none", constraint_text: "",
};

export class Settings {
  /** mostTokens: what the server allows, where it says so. */
  constructor(mostTokens = NUMBERS.max_tokens.high) {
    NUMBERS.max_tokens.high = Math.min(NUMBERS.max_tokens.high, mostTokens);
    const stored = remembered("settings", {});
    this.values = { ...STARTS };
    for (const name of Object.keys(STARTS)) {
      if (typeof stored[name] === typeof STARTS[name]) this.values[name] = stored[name];
    }
    this.values.max_tokens = Math.min(this.values.max_tokens, mostTokens);
    this.shows = {};
    this.body = element("div", { class: "fields" });
    const wide = matchMedia("(min-width: 900px)");
    this.node = element("details", { class: "settings", open: wide.matches }, element("summary", { say: "settings" }),
      this.body, element("div", { class: "row" }, button("reset", () => this.reset(), { class: "quietly" })));
    for (const name of ["temperature", "max_tokens"]) this.addNumber(name);
    this.addSeed();
    for (const name of ["samples", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty",
      "presence_penalty"]) this.addNumber(name);
    for (const name of Object.keys(TEXTS)) this.addText(name);
    this.addConstraint();
    this.showAll();
  }

  set(name, value) {
    this.values[name] = value;
    remember("settings", this.values);
    this.shows[name]();
  }

  showAll() {
    Object.values(this.shows).forEach((show) => show());
  }

  reset() {
    this.values = { ...STARTS };
    remember("settings", this.values);
    this.showAll();
  }

  keepSeed(seed) {
    this.set("seed", seed);
    this.set("random_seed", false);
  }

  /** Shows what counts for this tab. */
  fit(tab) {
    this.node.hidden = tab === "predict";
    for (const field of this.body.querySelectorAll("[data-only]")) field.hidden = field.dataset.only !== tab;
  }

  field(name, only, ...children) {
    const help = element("p", { class: "help", id: `help-${name}`, say: `${name}_help` });
    const node = element("div", { class: "field", "data-only": only }, ...children, help);
    this.body.append(node);
  }

  addNumber(name) {
    const { low, high, step, only } = NUMBERS[name];
    const range = { min: low, max: high, step, "aria-describedby": `help-${name}` };
    const take = (text) => {
      const value = Number(text);
      if (text.trim() === "" || !Number.isFinite(value)) return this.shows[name]();
      const whole = step === 1 ? Math.round(value) : value;
      this.set(name, Math.min(high, Math.max(low, whole)));
    };
    const box = element("input", { type: "number", id: `set-${name}`, ...range, inputmode: "decimal",
      on: { change: () => take(box.value) } });
    const slider = element("input", { type: "range", label: name, ...range, on: { input: () => take(slider.value) } });
    this.field(name, only, element("label", { for: `set-${name}`, say: name }), box, slider);
    this.shows[name] = () => { box.value = this.values[name]; slider.value = this.values[name]; };
  }

  addSeed() {
    const box = element("input", { type: "number", id: "set-seed", min: 0, max: LARGEST_SEED, step: 1,
      "aria-describedby": "help-seed", on: { change: () => {
        const seed = Math.min(LARGEST_SEED, Math.max(0, Math.round(Number(box.value) || 0)));
        this.set("random_seed", false);
        this.set("seed", seed);
      } } });
    const random = element("input", { type: "checkbox", id: "set-random_seed",
      on: { change: () => this.set("random_seed", random.checked) } });
    this.field("seed", undefined, element("label", { for: "set-seed", say: "seed" }), box,
      element("label", { class: "check", for: "set-random_seed" }, random, element("span", { say: "random_seed" })));
    this.shows.seed = () => { box.value = this.values.seed; };
    this.shows.random_seed = () => { random.checked = this.values.random_seed; };
  }

  addText(name) {
    const area = growing(element("textarea", { id: `set-${name}`, rows: 2, "aria-describedby": `help-${name}`,
      on: { change: () => this.set(name, area.value) } }));
    this.field(name, TEXTS[name].only, element("label", { for: `set-${name}`, say: name }), area);
    this.shows[name] = () => { area.value = this.values[name]; };
  }

  addConstraint() {
    const choice = element("select", { id: "set-constraint", "aria-describedby": "help-constraint",
      on: { change: () => this.set("constraint", choice.value) } },
    ...CONSTRAINTS.map((name) => element("option", { value: name, say: `constraint_${name}` })));
    const area = growing(element("textarea", { rows: 2, spellcheck: "false", class: "code", label: "constraint_text",
      on: { change: () => this.set("constraint_text", area.value) } }));
    this.field("constraint", undefined, element("label", { for: "set-constraint", say: "constraint" }), choice, area);
    this.shows.constraint = () => {
      choice.value = this.values.constraint;
      area.hidden = this.values.constraint === "none";
      area.placeholder = { regex: "(yes|no)", json_schema: '{"type": "object", …}', none: "" }[choice.value];
    };
    this.shows.constraint_text = () => { area.value = this.values.constraint_text; };
  }

  /** The fields of a request's body; the seed is drawn here where each answer is to have its own. */
  requestFields(tab) {
    const { values } = this;
    if (values.random_seed) this.set("seed", Math.floor(Math.random() * LARGEST_SEED));
    const body = { seed: values.seed };
    for (const [name, { neutral, only }] of Object.entries(NUMBERS)) {
      if (values[name] === neutral || (only && only !== tab)) continue;
      body[name === "samples" ? "n" : name] = values[name];
    }
    const stop = values.stop_strings.split("\n").filter((line) => line)
      .map((line) => line.replaceAll("\\n", "\n").replaceAll("\\t", "\t"));
    if (stop.length) body.stop = stop;
    return { ...body, ...this.constraint() };
  }

  constraint() {
    const { constraint, constraint_text: text } = this.values;
    if (constraint === "none" || !text.trim()) return {};
    if (constraint === "regex") return { regex: text };
    try {
      return { json_schema: JSON.parse(text) };
    } catch (error) {
      throw mistake("bad_schema", { why: error.message });
    }
  }
}

/** The toggle of colored tokens, remembered; it works for everything on the page at once. */
export function colorToggle() {
  const box = element("input", { type: "checkbox", id: "colors" });
  box.checked = remembered("colors", true);
  const show = () => document.body.classList.toggle("colored", box.checked);
  box.addEventListener("change", () => { remember("colors", box.checked); show(); });
  show();
  const node = element("label", { class: "check", for: "colors" }, box, element("span", {}));
  say(node.lastChild, "colors");
  label(box, "colors");
  return node;
}
