/** The colours that the reader chose: those of the system, light or dark. */
export type Theme = "system" | "light" | "dark";

const KEY = "pmp.theme";

export function chosenTheme(): Theme {
  const kept = localStorage.getItem(KEY);
  return kept === "light" || kept === "dark" ? kept : "system";
}

export function applyTheme(theme: Theme = chosenTheme()): void {
  localStorage.setItem(KEY, theme);
  document.documentElement.dataset["theme"] = theme;
  window.dispatchEvent(new Event("themechange"));
}
