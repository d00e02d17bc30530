// @ts-check
/**
 * The panel of model and settings: two tabs, and on narrow screens a sheet over the page.
 * @module
 */
import { byId, composes } from "./dom.js";

const NARROW = "(max-width: 62rem)";

/** @returns {{ show(tab: "model" | "settings"): void }} Brings a tab to sight. */
export function setUpPanel() {
  const panel = byId("panel", HTMLElement);
  const opener = byId("open-panel", HTMLButtonElement);
  const closer = byId("close-panel", HTMLButtonElement);
  const narrow = matchMedia(NARROW);
  const tabs = [byId("tab-model", HTMLButtonElement), byId("tab-settings", HTMLButtonElement)];
  const behind = [byId("main", HTMLElement), byId("skip", HTMLElement)];

  /** @param {HTMLButtonElement} chosen */
  const select = (chosen) => {
    for (const tab of tabs) {
      const is = tab === chosen;
      tab.setAttribute("aria-selected", String(is));
      tab.tabIndex = is ? 0 : -1;
      byId(tab.getAttribute("aria-controls") ?? "", HTMLElement).hidden = !is;
    }
  };

  /** @param {boolean} open */
  const setOpen = (open) => {
    panel.classList.toggle("open", open);
    opener.setAttribute("aria-expanded", String(open));
    // What lies under the sheet is out of reach while it is open, and the sheet while it is not.
    for (const element of [...behind, ...document.querySelectorAll(".bar")]) {
      /** @type {HTMLElement} */ (element).inert = open && narrow.matches;
    }
    panel.inert = !open && narrow.matches;
  };

  const close = () => {
    setOpen(false);
    opener.focus();
  };

  for (const tab of tabs) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", ({ key }) => {
      if (key !== "ArrowLeft" && key !== "ArrowRight") return;
      const other = tabs[1 - tabs.indexOf(tab)];
      select(other);
      other.focus();
    });
  }
  opener.addEventListener("click", () => {
    setOpen(true);
    closer.focus();
  });
  closer.addEventListener("click", close);
  const isSheet = () => narrow.matches && panel.classList.contains("open");
  // Before others hear of it, wherever the focus is: an answer that is being written goes on.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !isSheet() || composes(event)) return;
    event.stopPropagation();
    close();
  }, true);
  document.addEventListener("pointerdown", (event) => {
    if (isSheet() && event.target instanceof Node && !panel.contains(event.target)) close();
  });
  narrow.addEventListener("change", () => setOpen(false));
  setOpen(false);

  return {
    show(name) {
      select(name === "model" ? tabs[0] : tabs[1]);
      if (narrow.matches) setOpen(true);
    },
  };
}
