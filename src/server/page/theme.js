// @ts-check
/**
 * Light or dark: sets what was chosen before anything is drawn, so it is no module and blocks.
 *
 * Nothing is stored while the choice is the system's own: the page then follows the system.
 */
(() => {
  const STORED = "espalier.theme";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  /** @returns {string | null} */
  const stored = () => {
    try {
      return localStorage.getItem(STORED);
    } catch {
      return null; // Storage may be forbidden.
    }
  };

  /** @param {string | null} theme */
  const show = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };

  show(stored());

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-theme-toggle]");
    if (!button) return;
    const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
    const label = () => {
      const text = isDark() ? "Use the light theme" : "Use the dark theme";
      button.setAttribute("aria-label", text);
      button.setAttribute("title", text);
    };
    button.addEventListener("click", () => {
      const next = isDark() ? "light" : "dark";
      const own = (next === "dark") === dark.matches;
      try {
        if (own) localStorage.removeItem(STORED);
        else localStorage.setItem(STORED, next);
      } catch {
        // The choice then lasts as long as the page.
      }
      show(own ? null : next);
      label();
    });
    dark.addEventListener("change", label);
    label();
  });
})();
