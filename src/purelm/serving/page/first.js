// Runs before anything is drawn, so that a remembered theme or language does not flash in late.
(function () {
  const root = document.documentElement;
  let theme = null, language = null;
  try {
    theme = JSON.parse(localStorage.getItem("purelm.theme"));
    language = JSON.parse(localStorage.getItem("purelm.language"));
  } catch {
    // Storage is switched off or holds something else: the browser's own preferences count.
  }
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  if (language !== "en" && language !== "zh") language = /^zh/i.test(navigator.language) ? "zh" : "en";
  root.lang = language;
})();
