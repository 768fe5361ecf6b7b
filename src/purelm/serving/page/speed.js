// How quick an answer was, what it cost, how it ended, and with which seed.

import { button, element, number, say } from "./elements.js";

const ENDS = { length: "ended_length", stopped: "ended_stopped", cancelled: "ended_stopped",
  deadline: "ended_deadline", shutdown: "ended_shutdown" };

/** Tokens a second once writing had begun; an answer that came in one go counts from the question. */
function rateOf({ tokens, firstTokens, started, first, last }) {
  const later = last - first;
  return later >= 20 ? (tokens - firstTokens) / later * 1000 : tokens / Math.max(1, last - started) * 1000;
}

export class SpeedLine {
  constructor(settings) {
    this.settings = settings;
    this.node = element("p", { class: "speed" });
    this.timer = null;
  }

  /** Follows a state of `generate` until end(). */
  follow(state) {
    clearInterval(this.timer);
    this.timer = setInterval(() => this.draw(state), 250);
    this.draw(state);
  }

  end(state, reason, seed) {
    clearInterval(this.timer);
    this.draw(state, reason, seed);
  }

  draw(state, reason = null, seed = null) {
    const parts = [];
    const part = (key, values) => parts.push(element("span", { say: key, values }));
    if (reason === null) part("writing");
    if (state.first !== null) part("speed", { rate: number(rateOf(state), 0) });
    if (state.first !== null) {
      part("first_token", { seconds: number((state.first - state.started) / 1000, 2) });
    }
    if (state.usage) {
      part("usage", { prompt: number(state.usage.prompt_tokens), answer: number(state.usage.completion_tokens) });
    }
    if (ENDS[reason]) part(ENDS[reason]);
    if (seed !== null) parts.push(this.seedPart(seed));
    this.node.replaceChildren(...parts);
  }

  seedPart(seed) {
    const node = element("span", {}, element("span", { say: "used_seed", values: { seed } }));
    if (this.settings.values.random_seed) {
      node.append(" ", button("keep_seed", (event) => {
        this.settings.keepSeed(seed);
        event.target.remove();
      }, { class: "link" }));
    }
    return node;
  }
}

/** Copies text, and says so on the button for a moment. */
export async function copyText(text, node) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", { class: "unseen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    node.focus();
  }
  say(node, "copied");
  setTimeout(() => say(node, "copy"), 1500);
}
