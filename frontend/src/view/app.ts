// The page: state on one side, data on the other, and what is drawn of both.
import { toNumber, type RunEntry, type Source } from "../data/types";
import { openAddress, type Address } from "../model/address";
import { pressKey, showFinding } from "../model/keys";
import { formatNumber, formatStep } from "../model/numbers";
import { fromParameters, SIDES, toParameters, type ViewState } from "../model/state";
import { mapsOf, titleOf } from "../model/words";
import { Detail } from "./detail";
import { Diagnosis } from "./diagnosis";
import { h, setText } from "./dom";
import { Drill } from "./drill";
import { Help } from "./help";
import { Pane } from "./pane";
import { Player } from "./player";
import { Profile } from "./profile";
import { RunModel } from "./runmodel";
import { prepareRun, prepareScene, surroundings, type Scene, type Shown } from "./shown";
import { Tables } from "./tables";
import { ThemeWatch } from "./theme";
import { Toolbar } from "./toolbar";

/** Milliseconds between two looks at what has grown. */
const POLL = 4000;
/** Width of the page below which it has one column, in pixels. */
const NARROW = 900;

/** What belongs to one of the runs on the page. */
interface Part {
  readonly model: RunModel;
  readonly diagnosis: Diagnosis;
  readonly pane: Pane;
  readonly drill: Drill;
}

export class App {
  private state: ViewState;
  private runs: readonly RunEntry[] = [];
  private parts: Part[] = [];
  private frame = 0;
  private trouble = "";
  private problems: readonly string[] = [];
  private loaded = false;
  private shown: readonly Shown[] = [];
  private scene: Scene | undefined;

  private readonly address: Address;
  private readonly themes: ThemeWatch;
  private readonly help = new Help();
  private readonly toolbar: Toolbar;
  private readonly message = h("div", { class: "message", role: "alert", hidden: true });
  private readonly diagnoses = h("div", { class: "diagnoses" });
  private readonly panes = h("div", { class: "panes" });
  private readonly side = h("aside", {
    class: "panel side",
    "aria-label": "Depth profile and exact values",
  });
  private readonly drills = h("div", { class: "drills" });
  private readonly main = h("main", {});
  private readonly spoken = h("p", { class: "unseen", role: "status", "aria-live": "polite" });
  private readonly player: Player;
  private readonly profile: Profile;
  private readonly detail = new Detail();
  private readonly tables = new Tables();

  constructor(
    private readonly root: HTMLElement,
    private readonly source: Source,
  ) {
    const draw = (): void => this.draw();
    this.address = openAddress(!source.live);
    this.state = fromParameters(this.address.read());
    this.address.watch(() => {
      const given = this.address.read();
      // TensorBoard's other tabs have addresses too; who comes back finds what he left.
      if (Object.keys(given).length > 0) this.set(fromParameters(given));
    });
    this.themes = new ThemeWatch(!source.live, draw);
    const moon = h(
      "button",
      { type: "button", class: "round", "aria-label": "Dark or light", title: "Dark or light" },
      "◐",
    );
    moon.addEventListener("click", () => {
      this.themes.toggle();
      draw();
    });
    const change = (next: Partial<ViewState>): void => this.set({ ...this.state, ...next });
    this.toolbar = new Toolbar(change, source.live ? [this.help.button] : [moon, this.help.button]);
    this.player = new Player(change);
    this.profile = new Profile((layer) => change({ layer }));
    this.side.append(this.profile.element, this.player.element, this.detail.element);
    this.main.append(
      this.diagnoses,
      this.toolbar.controls,
      h("div", { class: "stage" }, h("div", { class: "left" }, this.panes, this.drills), this.side),
      this.tables.element,
    );
    this.root.append(this.toolbar.element, this.message, this.main, this.spoken, this.help.element);
    document.addEventListener("keydown", (event) => this.press(event));
    new ResizeObserver(draw).observe(this.root);
    window.addEventListener("focus", () => void this.poll());
  }

  /** Loads what there is, and keeps looking if more may come. */
  start(): void {
    void this.poll();
    if (!this.source.live) return;
    setInterval(() => {
      if (!document.hidden) void this.poll();
    }, POLL);
  }

  /** Looks whether anything has grown. */
  private async poll(): Promise<void> {
    try {
      const { runs, problems } = await this.source.runs();
      this.runs = runs;
      this.problems = problems;
      this.trouble = "";
    } catch (error) {
      this.trouble = error instanceof Error ? error.message : String(error);
    }
    this.loaded = true;
    this.draw();
  }

  private set(next: ViewState): void {
    if (JSON.stringify(next) === JSON.stringify(this.state)) return;
    const pointed = next.finding !== this.state.finding && next.finding !== null;
    this.state = next;
    this.address.write(toParameters(next));
    this.draw();
    if (pointed || next.layer !== null || next.step !== null) this.speak();
  }

  /** Draws with the next picture of the screen, however often it is called until then. */
  private draw(): void {
    if (this.frame !== 0) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      const began = performance.now();
      this.update();
      // For the browser's own profiler, and for benchmarks/view_in_browser.py.
      performance.measure("gradwatch:update", { start: began });
    });
  }

  private update(): void {
    const first = this.runs.find(({ run }) => run === this.state.run) ?? this.runs[0];
    if (first !== undefined && this.state.run === null)
      this.state = { ...this.state, run: first.run };
    const second = this.runs.find(({ run }) => run === this.state.compare && run !== first?.run);
    this.adjust([first, second].filter((entry) => entry !== undefined));
    const narrow = this.root.clientWidth < NARROW;
    this.root.classList.toggle("narrow", narrow);
    this.root.classList.toggle("double", this.parts.length > 1);
    this.shown = this.parts
      .map(({ model }, place) => prepareRun(model, this.state, SIDES[place]!))
      .filter((one) => one !== null);
    this.say();
    const [lead] = this.shown;
    this.toolbar.update(
      this.runs,
      this.state,
      this.parts[0]?.model.run?.series ?? [],
      lead?.series.name ?? this.state.series,
    );
    this.parts.forEach(({ model, diagnosis }, place) => {
      diagnosis.element.hidden = model.run === undefined;
      if (model.run === undefined) return;
      const chosen = this.state.of === SIDES[place] ? this.state.finding : null;
      diagnosis.update(model.run, chosen, this.parts.length > 1);
    });
    this.main.classList.toggle("without", lead === undefined);
    if (lead === undefined) return;
    this.scene = prepareScene(this.shown, this.state, this.themes.theme, narrow);
    this.drawParts(this.scene);
    this.profile.update(this.shown, this.scene);
    this.player.update(this.scene);
    this.detail.update(lead, this.scene);
    this.tables.update(lead.run, (layer) => this.set({ ...this.state, layer }));
  }

  private drawParts(scene: Scene): void {
    for (const { model, pane, drill } of this.parts) {
      const one = this.shown.find((candidate) => candidate.model === model);
      pane.element.hidden = one === undefined;
      if (one === undefined) continue;
      pane.update(one, scene, this.parts.length > 1);
      model.loadMap(this.state, pane.plotWidth);
      model.loadStep(this.state);
      drill.update(one, scene, this.parts.length > 1);
    }
  }

  /** Keeps one part for each run that is shown. */
  private adjust(entries: readonly RunEntry[]): void {
    const same =
      entries.map(({ run }) => run).join("\n") ===
      this.parts.map(({ model }) => model.name).join("\n");
    if (!same) {
      const kept = new Map(this.parts.map((part) => [part.model.name, part]));
      this.parts = entries.map(({ run }) => kept.get(run) ?? this.makePart(run));
      for (const [name, { pane, drill }] of kept) {
        if (this.parts.some(({ model }) => model.name === name)) continue;
        pane.destroy();
        drill.destroy();
      }
      this.diagnoses.replaceChildren(...this.parts.map(({ diagnosis }) => diagnosis.element));
      this.panes.replaceChildren(...this.parts.map(({ pane }) => pane.element));
      this.drills.replaceChildren(...this.parts.map(({ drill }) => drill.element));
    }
    entries.forEach(({ version }, i) => {
      const { model } = this.parts[i]!;
      model.version = version;
      model.load();
    });
  }

  private makePart(run: string): Part {
    const change = (next: Partial<ViewState>): void => this.set({ ...this.state, ...next });
    const draw = (): void => this.draw();
    const pane: Pane = new Pane(change, (kind, index, step) => {
      if (kind === "finding") this.point(index, pane);
      else change({ step });
    });
    return {
      model: new RunModel(run, this.source, draw),
      diagnosis: new Diagnosis((finding) => this.point(finding, pane)),
      pane,
      drill: new Drill(this.source, change, draw),
    };
  }

  /** Shows the place of a finding in the map. */
  private point(finding: number, pane: Pane): void {
    const place = this.parts.findIndex((one) => one.pane === pane);
    const one = this.shown.find(({ model }) => model === this.parts[place]?.model);
    if (one === undefined || this.scene === undefined) return;
    const around = surroundings(one, this.scene.extent);
    this.set(showFinding(this.state, around, finding, SIDES[place]));
    pane.show();
  }

  private press(event: KeyboardEvent): void {
    const target = event.target as Element;
    if (event.ctrlKey || event.metaKey || event.altKey || this.help.element.open) return;
    if (target.closest("input, select, textarea") !== null) return;
    if (event.key === "?") {
      this.help.open();
      return;
    }
    const [lead] = this.shown;
    if (lead === undefined || this.scene === undefined) return;
    // Space presses the button that has the focus, and arrows scroll the page, outside of the map.
    const inMap = target.closest(".heat") !== null;
    if (event.key === " " && (inMap || target === document.body)) {
      event.preventDefault();
      this.player.toggle();
      return;
    }
    if (/^(Arrow|Home|End)/.test(event.key) && !inMap && target !== document.body) return;
    const next = pressKey(
      event.key,
      event.shiftKey,
      this.state,
      surroundings(lead, this.scene.extent),
    );
    if (next === null) return;
    event.preventDefault();
    this.set(next);
  }

  /** What a screen reader says after a change: the same that the eye sees in the map. */
  private speak(): void {
    const [lead] = this.shown;
    if (lead === undefined) return;
    const { step, layer } = this.state;
    const told = lead.finding === null ? undefined : lead.run.findings[lead.finding];
    const row = lead.series.rows.findIndex(({ name }) => name === layer);
    const at = lead.model.step.value;
    const values =
      at?.step === step || step === null ? at?.series[lead.series.name]?.values : undefined;
    const value = row < 0 || values === undefined ? "" : formatNumber(toNumber(values[row]));
    const parts = [
      told === undefined ? "" : `${told.title}, ${told.where}`,
      layer ?? "",
      step === null ? "" : `step ${formatStep(step)}`,
      value === "" ? "" : `${titleOf(lead.series)} ${value}`,
    ];
    setText(this.spoken, parts.filter((part) => part !== "").join(", "));
  }

  /** Messages instead of a map, and the state of the run in the corner. */
  private say(): void {
    const errors = this.parts
      .map(({ model }) => model.about.error || model.map.error)
      .filter((e) => e !== "");
    const texts = [...(this.trouble === "" ? [] : [this.trouble]), ...errors, ...this.problems];
    const wanted = this.state.run;
    if (this.loaded && this.trouble === "" && this.runs.length === 0) {
      texts.unshift(
        "No run below this log directory has a recording yet. Train with callbacks=[GradWatch()] and a " +
          "logger; this page shows it as soon as the first steps are written.",
      );
    } else if (
      wanted !== null &&
      this.runs.length > 0 &&
      !this.runs.some(({ run }) => run === wanted)
    ) {
      texts.unshift(`There is no run "${wanted}" here; this is "${this.runs[0]!.run}".`);
    }
    const blank = this.parts.map(({ model }) => model.run).filter((run) => run !== undefined);
    for (const { run, steps, series } of blank) {
      if (steps > 0 && mapsOf(series).length === 0) {
        texts.push(`In "${run}" no layer has had a gradient other than zero, so there is no map.`);
      }
    }
    this.message.hidden = texts.length === 0;
    setText(this.message, texts.join("\n"));
    const run = this.parts[0]?.model.run;
    if (this.trouble !== "") this.toolbar.say("not connected", "trouble");
    else if (run === undefined)
      this.toolbar.say(
        this.loaded && this.runs.length === 0 ? "waiting for a run" : "loading",
        "still",
      );
    else if (run.last_step === null) this.toolbar.say("no step yet", "still");
    else {
      const step = `step ${formatStep(run.last_step)}`;
      this.toolbar.say(
        run.writing && this.source.live ? `${step} · live` : step,
        run.writing ? "live" : "still",
      );
    }
  }
}
