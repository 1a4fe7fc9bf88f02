// Which runs, which series, how it is drawn.
import { MAPS } from "../colour/maps";
import type { RunEntry, Series } from "../data/types";
import { ORDERS } from "../map/rows";
import { SCALES, type ViewState } from "../model/state";
import { mapsOf, TIME_PROFILE, titleOf } from "../model/words";
import { fill, h, setAttribute, setText } from "./dom";
import type { Status } from "./messages";
import type { Change } from "./shown";

const WORDS: Readonly<Record<string, string>> = {
  absolute: "Absolute",
  own: "vs. own median",
  depth: "By depth",
  kind: "By kind",
  health: "Health",
  viridis: "Viridis",
};

export class Toolbar {
  readonly element = h("header", { class: "toolbar" });
  readonly controls = h("div", { class: "controls" });
  private readonly run = h("select", { "aria-label": "Run" });
  private readonly compare = h("select", { "aria-label": "Compare with" });
  private readonly status = h("p", { class: "status", role: "status" });
  private readonly series: Choice;
  private readonly time = h("select", { "aria-label": "Recurrent module" });
  private readonly scale: Choice;
  private readonly rows: Choice;
  private readonly colours: Choice;
  private readonly reset = h(
    "button",
    { type: "button", class: "reset", hidden: true },
    "Whole run",
  );

  constructor(change: Change, buttons: readonly HTMLElement[]) {
    const brand = h(
      "span",
      { class: "brand" },
      h("span", { class: "logo", "aria-hidden": "true" }),
      "GradWatch",
    );
    this.run.addEventListener("change", () => {
      change({ run: this.run.value, window: null, step: null, layer: null, finding: null });
    });
    this.compare.addEventListener("change", () => {
      change({ compare: this.compare.value === "" ? null : this.compare.value });
    });
    this.time.addEventListener("change", () => change({ series: this.time.value, layer: null }));
    this.series = new Choice("Show", (series) => change({ series }));
    this.scale = new Choice("Scale", (scale) => change({ scale: pick(SCALES, scale) }));
    this.rows = new Choice("Rows", (rows) => change({ rows: pick(ORDERS, rows) }));
    this.colours = new Choice("Colours", (colours) => change({ colours: pick(MAPS, colours) }));
    this.reset.addEventListener("click", () => change({ window: null }));
    const label = (text: string, select: HTMLElement): HTMLElement =>
      h("label", {}, h("span", {}, text), select);
    this.element.append(
      brand,
      label("Run", this.run),
      label("Compare", this.compare),
      h("span", { class: "space" }),
      this.status,
      ...buttons,
    );
    this.controls.append(
      this.series.element,
      this.time,
      this.scale.element,
      this.rows.element,
      this.colours.element,
      this.reset,
    );
  }

  update(
    runs: readonly RunEntry[],
    state: ViewState,
    series: readonly Series[],
    shown: string,
  ): void {
    const names = runs.map(({ run }) => run);
    fill(this.run, JSON.stringify(names), () => names.map((name) => option(name, runName(name))));
    // A link may name a run that is not there; then the first one is shown.
    this.run.value = state.run !== null && names.includes(state.run) ? state.run : (names[0] ?? "");
    const others = names.filter((name) => name !== this.run.value);
    fill(this.compare, JSON.stringify(others), () => [
      option("", "nothing"),
      ...others.map((name) => option(name, runName(name))),
    ]);
    this.compare.value = state.compare ?? "";
    this.compare.parentElement!.hidden = others.length === 0;
    const maps = mapsOf(series);
    const times = maps.filter(({ name }) => name.startsWith(TIME_PROFILE));
    const entries = maps
      .filter(({ name }) => !name.startsWith(TIME_PROFILE))
      .map((one) => [one.name, titleOf(one)] as const);
    const firstTime = times[0];
    const isTime = shown.startsWith(TIME_PROFILE);
    this.series.update(
      firstTime === undefined
        ? entries
        : [...entries, [isTime ? shown : firstTime.name, "Time profile"] as const],
      shown,
    );
    fill(this.time, JSON.stringify(times.map(({ name }) => name)), () =>
      times.map(({ name }) => option(name, name.slice(TIME_PROFILE.length))),
    );
    this.time.hidden = !isTime || times.length < 2;
    if (isTime) this.time.value = shown;
    const named = (values: readonly string[]): (readonly [string, string])[] =>
      values.map((value) => [value, WORDS[value] ?? value] as const);
    this.scale.update(named(SCALES), state.scale);
    this.rows.update(named(ORDERS), state.rows);
    this.colours.update(named(MAPS), state.colours);
    this.reset.hidden = state.window === null;
    if (state.window !== null) {
      const { from, to } = state.window;
      setText(this.reset, `Steps ${from.toLocaleString("en-US")}–${to.toLocaleString("en-US")} ✕`);
      setAttribute(this.reset, "aria-label", "Show the whole run");
    }
  }

  /** Says how far the run is, and whether more comes. */
  say({ text, level }: Status): void {
    setText(this.status, text);
    setAttribute(this.status, "data-level", level);
  }
}

/** A row of buttons of which one is pressed. */
class Choice {
  readonly element: HTMLElement;
  private readonly buttons = h("div", { class: "buttons" });

  constructor(
    name: string,
    private readonly chosen: (value: string) => void,
  ) {
    this.element = h(
      "div",
      { class: "choice", role: "group", "aria-label": name, "data-choice": name },
      h("span", {}, name),
      this.buttons,
    );
  }

  update(entries: readonly (readonly [string, string])[], value: string): void {
    fill(this.buttons, JSON.stringify(entries), () =>
      entries.map(([entry, words]) => {
        const button = h("button", { type: "button", "data-value": entry }, words);
        button.addEventListener("click", () => this.chosen(entry));
        return button;
      }),
    );
    for (const button of this.buttons.children) {
      setAttribute(button, "aria-pressed", String(button.getAttribute("data-value") === value));
    }
  }
}

function option(value: string, text: string): HTMLOptionElement {
  return h("option", { value }, text);
}

/** TensorBoard calls the log directory itself "."; people do not. */
function runName(name: string): string {
  return name === "." ? "this folder (.)" : name;
}

function pick<T extends string>(choices: readonly T[], value: string): T {
  return choices.find((one) => one === value) ?? choices[0]!;
}
