// Dark or light: as TensorBoard says, as the system says, or as the reader of a report chooses.
import type { Theme } from "../colour/maps";

export class ThemeWatch {
  private chosen: Theme | null = null;
  private readonly system = window.matchMedia("(prefers-color-scheme: dark)");
  private readonly host: HTMLElement | null;

  constructor(embedded: boolean, changed: () => void) {
    this.host = embedded ? null : hostBody();
    const update = (): void => {
      this.show();
      changed();
    };
    this.system.addEventListener("change", update);
    if (this.host !== null) {
      new MutationObserver(update).observe(this.host, {
        attributes: true,
        attributeFilter: ["class"],
      });
    }
    this.show();
  }

  get theme(): Theme {
    if (this.chosen !== null) return this.chosen;
    if (this.host !== null) return this.host.classList.contains("dark-mode") ? "dark" : "light";
    return this.system.matches ? "dark" : "light";
  }

  /** Changes to the other theme, for pages that nobody else themes. */
  toggle(): void {
    this.chosen = this.theme === "dark" ? "light" : "dark";
    this.show();
  }

  private show(): void {
    document.documentElement.dataset.theme = this.theme;
  }
}

function hostBody(): HTMLElement | null {
  try {
    return window.parent === window ? null : window.parent.document.body;
  } catch {
    return null;
  }
}
