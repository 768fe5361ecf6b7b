// One answer at a time: starting, stopping, following and reporting it, for the tabs that stream.

import { announce, words } from "./elements.js";
import { generate } from "./generation.js";
import { clearNotice, showError } from "./notice.js";

export class Work {
  /** onChange(running): the buttons are to be shown for it. */
  constructor(speed, onChange) {
    this.speed = speed;
    this.onChange = onChange;
    this.controller = null;
  }

  get running() {
    return this.controller !== null;
  }

  stop() {
    this.controller?.abort();
  }

  /**
   * Streams one answer; returns the state of `generate`, or null where it failed before anything was written.
   *
   * retry: what the notice offers where it failed. reason of the state: how the answer ended.
   */
  async run(path, body, { onPieces, retry, textOf }) {
    clearNotice();
    const controller = this.controller = new AbortController();
    const state = {};
    this.onChange(true);
    announce(words("writing"));
    const running = generate(path, body, { signal: controller.signal, onPieces, state });
    this.speed.follow(state);
    try {
      await running;
      state.reason = state.reasons.find((reason) => reason && reason !== "stop") ?? "stop";
    } catch (error) {
      state.reason = error.name === "AbortError" ? "stopped" : "failed";
      if (state.reason === "failed") showError(error, retry);
    }
    this.controller = null;
    this.speed.end(state, state.reason, body.seed);
    this.onChange(false);
    if (state.reason !== "failed") announce(words("done", { text: textOf() }));
    return state;
  }
}
