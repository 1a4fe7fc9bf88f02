// Where the page begins: TensorBoard calls `render()`, a report carries its data with it.
import styles from "virtual:styles";
import { EmbeddedSource, type Embedded } from "./data/embedded";
import { HttpSource } from "./data/http";
import type { Source } from "./data/types";
import { App } from "./view/app";

function mount(root: HTMLElement, source: Source): void {
  const sheet = document.createElement("style");
  sheet.textContent = styles;
  document.head.append(sheet);
  root.classList.add("gradwatch");
  new App(root, source).start();
}

/** Called by TensorBoard once the frame of the tab is there. */
export function render(): void {
  document.title = "GradWatch";
  document.documentElement.lang = "en";
  const root = document.createElement("div");
  document.body.append(root);
  mount(root, new HttpSource(new URL(".", import.meta.url).href));
}

const embedded = document.getElementById("gradwatch-data");
if (embedded !== null) {
  const root = document.getElementById("gradwatch") ?? document.body;
  try {
    mount(root, new EmbeddedSource(JSON.parse(embedded.textContent) as Embedded));
  } catch (error) {
    root.textContent = `This report cannot be shown: ${String(error)}`;
  }
}
