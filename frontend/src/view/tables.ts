// All layers as a table, for screen readers and for those who like numbers; and what the run was.
import { toNumber, type Run } from "../data/types";
import { formatNumber, formatStep } from "../model/numbers";
import { fill, h } from "./dom";

const COLUMNS = [
  "Layer",
  "Kind",
  "Elements",
  "Median norm",
  "5 %",
  "95 %",
  "Largest",
  "Update ratio",
  "Weight norm",
  "NaN or Inf",
  "Findings",
];
/** Rows of the table; beyond, it would be the slowest part of the page. */
const MOST_ROWS = 2000;

export class Tables {
  readonly element = h("section", { class: "tables" });

  update(run: Run, choose: (layer: string) => void): void {
    const key = `${run.run} ${run.version} ${String(run.complete)}`;
    const focused = this.element.contains(document.activeElement)
      ? document.activeElement?.textContent
      : undefined;
    const scrolled = this.element.querySelector(".scroll")?.scrollTop ?? 0;
    fill(this.element, key, () => [this.layers(run, choose), this.about(run)]);
    // A run that goes on has new numbers; who reads them stays where they are.
    const again = this.element.querySelector(".scroll");
    if (again !== null && again.scrollTop !== scrolled) again.scrollTop = scrolled;
    if (focused === undefined || this.element.contains(document.activeElement)) return;
    for (const one of this.element.querySelectorAll<HTMLElement>("button, summary")) {
      if (one.textContent === focused) one.focus({ preventScroll: true });
    }
  }

  private layers(run: Run, choose: (layer: string) => void): HTMLElement {
    const body = h("tbody", {});
    const open = this.isOpen("layers");
    const details = h(
      "details",
      { class: "panel", "data-part": "layers", open },
      h("summary", {}, `${layersOf(run)} as a table`),
    );
    const build = (): void => {
      if (body.childElementCount > 0) return;
      for (const layer of run.layers.slice(0, MOST_ROWS)) {
        const pick = h("button", { type: "button", class: "link" }, layer.name);
        pick.addEventListener("click", () => choose(layer.name));
        const numbers = [
          layer.median,
          layer.low,
          layer.high,
          layer.max,
          layer.update_ratio,
          layer.weight_norm,
        ];
        body.append(
          h(
            "tr",
            {},
            h("th", { scope: "row" }, pick),
            h("td", {}, layer.kind),
            h("td", { class: "number" }, formatStep(layer.elements)),
            ...numbers.map((value) =>
              h("td", { class: "number" }, value === null ? "–" : formatNumber(toNumber(value))),
            ),
            h("td", { class: "number" }, formatStep(layer.nonfinite)),
            h("td", {}, layer.findings.map((place) => run.findings[place]?.title ?? "").join(", ")),
          ),
        );
      }
    };
    details.addEventListener("toggle", build);
    if (open) build();
    const head = h("tr", {}, ...COLUMNS.map((name) => h("th", { scope: "col" }, name)));
    details.append(h("div", { class: "scroll" }, h("table", {}, h("thead", {}, head), body)));
    if (run.layers.length > MOST_ROWS) {
      details.append(h("p", { class: "hint" }, `The first ${formatStep(MOST_ROWS)} of them.`));
    }
    return details;
  }

  private about(run: Run): HTMLElement {
    const pairs = (values: Readonly<Record<string, unknown>>): HTMLElement => {
      const list = h("dl", {});
      for (const [name, value] of Object.entries(values)) {
        const text = typeof value === "string" ? value : JSON.stringify(value);
        list.append(h("div", {}, h("dt", {}, name), h("dd", {}, text)));
      }
      return list;
    };
    const segments = run.segments.map(({ number, started, first_step, steps, layers, problem }) => {
      const from = first_step === null ? "" : ` from step ${formatStep(first_step)}`;
      const what = `${formatStep(steps)} steps${from}, ${formatStep(layers)} layers`;
      return h("li", {}, `${number}: ${started}, ${what}${problem === "" ? "" : `. ${problem}`}`);
    });
    return h(
      "details",
      { class: "panel", "data-part": "about", open: this.isOpen("about") },
      h("summary", {}, "Configuration, environment and segments"),
      h(
        "div",
        { class: "columns" },
        h("div", {}, h("h3", {}, "GradWatch"), pairs(run.config)),
        h("div", {}, h("h3", {}, "Environment"), pairs(run.environment)),
        h("div", {}, h("h3", {}, "Segments of the recording"), h("ul", {}, ...segments)),
      ),
    );
  }

  /** What was unfolded stays so when the run grows. */
  private isOpen(part: string): boolean {
    return this.element.querySelector<HTMLDetailsElement>(`[data-part=${part}]`)?.open ?? false;
  }
}

function layersOf({ layers }: Run): string {
  return layers.length === 1 ? "The layer" : `All ${formatStep(layers.length)} layers`;
}
