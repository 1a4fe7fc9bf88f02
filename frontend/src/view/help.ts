// The list of keys, in a dialog of the browser's own.
import { HELP } from "../model/keys";
import { h } from "./dom";

export class Help {
  readonly element = h("dialog", { class: "help", "aria-label": "Keys" });
  readonly button = h(
    "button",
    { type: "button", class: "round", "aria-label": "Keys", title: "Keys (?)" },
    "?",
  );

  constructor() {
    const list = h("dl", {});
    const mouse: readonly (readonly [string, string])[] = [
      ["drag", "zoom into these steps"],
      ["Shift + drag", "move the window"],
      ["Ctrl + wheel", "zoom around the pointer"],
      ["click", "pin the step and choose the layer"],
      ["double click", "show the whole run"],
    ];
    for (const [key, text] of [...HELP, ...mouse]) {
      list.append(h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)));
    }
    const close = h("button", { type: "button" }, "Close");
    close.addEventListener("click", () => this.element.close());
    this.button.addEventListener("click", () => this.open());
    this.element.append(h("h2", {}, "Keys and pointer"), list, close);
  }

  open(): void {
    if (!this.element.open) this.element.showModal();
  }
}
