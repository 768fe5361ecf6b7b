// The page from top to bottom.

function themeButton() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const button = element("button", { type: "button", class: "chip theme", onclick: () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    show();
  } });
  function show() {
    const theme = chosen || (system.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light page" : "Dark page";
  }
  system.addEventListener("change", show);
  show();
  return button;
}

function head() {
  const made = DATA.made.filter(([name]) => name !== "command");
  const command = DATA.made.find(([name]) => name === "command");
  return element("header", {},
    element("div", { class: "top" }, element("h1", {}, DATA.title), themeButton()),
    DATA.source ? element("p", { class: "source" }, DATA.source) : null,
    DATA.compute ? element("p", { class: "compute" }, DATA.compute) : null,
    command ? element("pre", { class: "command", tabindex: "0", "aria-label": "command" }, command[1]) : null,
    made.length ? element("p", { class: "made" }, made.map(([name, value]) =>
      element("span", {}, element("b", {}, name), ` ${value}`))) : null,
    DATA.notes.length ? element("ul", { class: "notes" }, DATA.notes.map((note) => element("li", {}, note))) : null);
}

function findings() {
  const known = DATA.metrics.filter((metric) => metric.noise.text);
  const lines = [...known.map((metric) => ["Noise floor", metric.noise.text]),
    ...DATA.agreement.map((line) => ["Agreement", line]), ["Method", DATA.method]];
  return element("dl", { class: "findings" }, lines.map(([name, line], k) => [
    element("dt", { class: k && lines[k - 1][0] === name ? "unseen" : null }, name), element("dd", {}, line)]).flat());
}

const results = mainTable(rowDetail);
document.getElementById("page").append(...[head(), element("section", {}, element("h2", {}, "Results"), findings(),
  results.controls, results.count, results.box), fitSection(), curvesSection()].filter(Boolean));
