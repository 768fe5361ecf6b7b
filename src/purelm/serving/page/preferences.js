// What the page remembers between visits, and the theme.

/** A remembered value; `fallback` where there is none, or where storage is switched off. */
export function remembered(name, fallback) {
  try {
    const stored = localStorage.getItem(`purelm.${name}`);
    return stored === null ? fallback : JSON.parse(stored);
  } catch {
    return fallback;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`purelm.${name}`, JSON.stringify(value));
  } catch {
    // Storage is switched off or full: the value holds for this visit.
  }
}

const darkScheme = matchMedia("(prefers-color-scheme: dark)");

export function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : darkScheme.matches;
}

export function switchTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  remember("theme", theme);
  document.dispatchEvent(new Event("themechange"));
}

darkScheme.addEventListener("change", () => document.dispatchEvent(new Event("themechange")));

export const calmMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
