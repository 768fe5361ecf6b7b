// What went wrong, in one readable line, with a way to try again; the field for an API key after a 401.

import { LostConnection, ServerError, setKey } from "./api.js";
import { button, element, say } from "./elements.js";

const box = () => document.getElementById("notice");

export const clearNotice = () => box().replaceChildren();

function lineOf(error) {
  const line = element("p", { class: "what" });
  if (error instanceof LostConnection) say(line, "lost");
  else if (error instanceof ServerError && (error.status === 429 || error.status === 503)) {
    say(line, "busy", { message: error.message });
  } else if (error instanceof ServerError) say(line, "server_says", { message: error.message });
  else if (error.say) say(line, error.say, error.values);
  else say(line, "page_failed", { message: error.message });
  return line;
}

/** Shows an error; `retry` is what to do again. */
export function showError(error, retry) {
  if (error instanceof ServerError && error.status === 401) return askKey(error, retry);
  if (!(error instanceof ServerError || error instanceof LostConnection || error.say)) console.error(error);
  const again = retry ? [button("retry", () => { clearNotice(); retry(); })] : [];
  box().replaceChildren(element("div", { class: "notice", role: "alert" }, lineOf(error),
    element("div", { class: "row" }, ...again, button("dismiss", clearNotice, { class: "quietly" }))));
  box().scrollIntoView({ block: "nearest" });
}

function askKey(error, retry) {
  const field = element("input", { type: "password", id: "key", autocomplete: "off", spellcheck: "false" });
  const form = element("form", { class: "notice", on: { submit: (event) => {
    event.preventDefault();
    setKey(field.value.trim());
    clearNotice();
    retry?.();
  } } }, element("p", { class: "what", role: "alert", say: "key_wanted" }), lineOf(error),
  element("div", { class: "row" }, element("label", { for: "key", say: "key" }), field,
    element("button", { say: "key_use" })));
  box().replaceChildren(form);
  field.focus();
}

/** A mistake of the user that the page sees by itself: a key of strings. */
export function mistake(key, values) {
  return Object.assign(new Error(key), { say: key, values });
}
