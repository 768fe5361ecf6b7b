// Starts the page: what the server serves, the tabs for it, theme and language.

import { json } from "./api.js";
import { ChatTab } from "./chat.js";
import { CompletionTab } from "./completion.js";
import { button, element, label, language, number, say, sayAgain, setLanguage } from "./elements.js";
import { showError } from "./notice.js";
import { hidePopover, isPinned } from "./popover.js";
import { PredictTab } from "./predict.js";
import { isDark, remember, remembered, switchTheme } from "./preferences.js";
import { colorToggle, Settings } from "./settings.js";
import { legend } from "./tokens.js";

const TABS = [["chat", "chat", ChatTab], ["completion", "completions", CompletionTab], ["predict", "predict", PredictTab]];
const at = (id) => document.getElementById(id);

function buildSwitches() {
  const other = button("language", () => {
    setLanguage(language() === "zh" ? "en" : "zh");
    remember("language", language());
  }, { id: "language", label: "language_label" });
  const theme = button("to_dark", switchTheme, { id: "theme" });
  const name = () => say(theme, isDark() ? "to_light" : "to_dark");
  document.addEventListener("themechange", name);
  name();
  at("switches").append(other, theme);
}

function describe(model) {
  const { task, architecture, parameters, context_length: context } = model.purelm;
  const short = parameters >= 1e6 ? `${number(parameters / 1e6, 1)} M` : number(parameters);
  document.title = `${model.id} · purelm`;
  say(at("model"), "model_line", { id: model.id, task: task.replaceAll("_", " "),
    architecture: architecture.replaceAll("_", "-"), parameters: short, context: number(context) });
}

function buildTabs(model) {
  const settings = new Settings(model.purelm.limits?.new_tokens);
  const guide = element("div", { class: "guide" }, colorToggle(), legend());
  const tabs = TABS.filter(([, ability]) => model.purelm.can.includes(ability)).map(([name, , Tab]) => {
    const tab = new Tab(model, settings);
    const handle = element("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`,
      say: name, on: { click: () => choose(name) } });
    const panel = element("section", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}` },
      tab.node);
    return { name, tab, handle, panel };
  });
  if (!tabs.length) return at("work").replaceChildren(element("p", { say: "nothing" }));
  at("tabs").replaceChildren(...tabs.map(({ handle }) => handle));
  at("work").replaceChildren(...tabs.map(({ panel }) => panel));
  at("aside").replaceChildren(guide, settings.node);
  label(at("aside"), "settings");

  let current = null;
  function choose(name, focus = true) {
    current = tabs.find((one) => one.name === name) ?? tabs[0];
    for (const one of tabs) {
      const chosen = one === current;
      one.handle.setAttribute("aria-selected", String(chosen));
      one.handle.tabIndex = chosen ? 0 : -1;
      one.panel.hidden = !chosen;
    }
    hidePopover();
    settings.fit(current.name);
    guide.hidden = current.name === "predict";
    document.body.dataset.tab = current.name;
    remember(`tab.${model.id}`, current.name);
    if (focus) current.handle.focus();
  }
  at("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(tabs[(tabs.indexOf(current) + step + tabs.length) % tabs.length].name);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    hidePopover({ focus: isPinned() });
    current.tab.stop();
  });
  const natural = model.purelm.can.includes("completions") ? "completion" : tabs[0].name;
  choose(remembered(`tab.${model.id}`, natural), false);
  current.tab.focus();
}

async function start() {
  say(at("model"), "loading");
  try {
    const { data: [model] } = await json("/v1/models");
    describe(model);
    buildTabs(model);
  } catch (error) {
    at("model").textContent = "";
    delete at("model").dataset.say;
    showError(error, start);
  }
}

sayAgain(document);
buildSwitches();
start();
