// The page: state on one side, data on the other, and what is drawn of both.
import type { RunEntry, Source } from "../data/types";
import { openAddress, type Address } from "../model/address";
import { pressKey, showFinding } from "../model/keys";
import { fromParameters, SIDES, toParameters, type Side, type ViewState } from "../model/state";
import { Detail } from "./detail";
import { h, setText } from "./dom";
import { Help } from "./help";
import { messagesOf, spoken, statusOf, type Situation } from "./messages";
import { Parts } from "./parts";
import { Player } from "./player";
import { Profile } from "./profile";
import { prepareScene, surroundings, type Change, type Scene, type Shown } from "./shown";
import { Tables } from "./tables";
import { ThemeWatch } from "./theme";
import { Toolbar } from "./toolbar";

/** Milliseconds between two looks at what has grown. */
const POLL = 4000;
/** Width of the page below which it has one column, in pixels. */
const NARROW = 900;

export class App {
  private state: ViewState;
  private runs: readonly RunEntry[] = [];
  private frame = 0;
  private loaded = false;
  private touched = false;
  private trouble = "";
  private problems: readonly string[] = [];
  private shown: readonly Shown[] = [];
  private scene: Scene | undefined;

  private readonly address: Address;
  private readonly themes: ThemeWatch;
  private readonly parts: Parts;
  private readonly toolbar: Toolbar;
  private readonly player: Player;
  private readonly profile: Profile;
  private readonly detail = new Detail();
  private readonly tables = new Tables();
  private readonly help = new Help();
  private readonly main = h("main", {});
  private readonly message = h("div", { class: "message", role: "alert", hidden: true });
  private readonly speech = h("p", { class: "unseen", role: "status", "aria-live": "polite" });

  constructor(
    private readonly root: HTMLElement,
    private readonly source: Source,
  ) {
    const draw = (): void => this.draw();
    const change: Change = (next) => this.set({ ...this.state, ...next });
    this.address = openAddress(!source.live);
    this.state = fromParameters(this.address.read());
    this.address.watch(() => {
      const given = this.address.read();
      // TensorBoard's other tabs have addresses too; who comes back finds what he left.
      if (Object.keys(given).length > 0) this.set(fromParameters(given));
    });
    this.themes = new ThemeWatch(!source.live, draw);
    this.parts = new Parts(source, {
      change,
      draw,
      point: (finding, side) => this.point(finding, side),
    });
    const buttons = [this.help.button];
    if (!source.live) buttons.unshift(this.themeButton());
    this.toolbar = new Toolbar(change, buttons);
    this.player = new Player(change);
    this.profile = new Profile((layer) => change({ layer }));
    this.layOut();
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

  private layOut(): void {
    const { diagnoses, panes, drills } = this.parts;
    const name = "Depth profile and exact values";
    const side = h("aside", { class: "panel side", "aria-label": name });
    side.append(this.profile.element, this.player.element, this.detail.element);
    this.main.append(
      diagnoses,
      this.toolbar.controls,
      h("div", { class: "stage" }, h("div", { class: "left" }, panes, drills), side),
      this.tables.element,
    );
    this.root.append(this.toolbar.element, this.message, this.main, this.speech, this.help.element);
  }

  private themeButton(): HTMLButtonElement {
    const name = "Dark or light";
    const button = h(
      "button",
      { type: "button", class: "round", "aria-label": name, title: name },
      "◐",
    );
    button.addEventListener("click", () => {
      this.themes.toggle();
      this.draw();
    });
    return button;
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
    this.state = next;
    this.touched = true;
    this.address.write(toParameters(next));
    this.draw();
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
    if (first !== undefined && this.state.run === null) {
      this.state = { ...this.state, run: first.run };
    }
    const second = this.runs.find(({ run }) => run === this.state.compare && run !== first?.run);
    this.parts.adjust([first, second].filter((entry) => entry !== undefined));
    const narrow = this.root.clientWidth < NARROW;
    this.root.classList.toggle("narrow", narrow);
    this.root.classList.toggle("double", this.parts.named);
    this.shown = this.parts.prepare(this.state);
    const [lead] = this.shown;
    this.say();
    this.toolbar.update(
      this.runs,
      this.state,
      this.parts.models[0]?.run?.series ?? [],
      lead?.series.name ?? this.state.series,
    );
    this.parts.drawDiagnoses(this.state);
    this.main.classList.toggle("without", lead === undefined);
    if (lead === undefined) return;
    this.scene = prepareScene(this.shown, this.state, this.themes.theme, narrow);
    this.parts.drawMaps(this.shown, this.scene);
    this.profile.update(this.shown, this.scene);
    this.player.update(this.scene);
    this.detail.update(lead, this.scene);
    this.tables.update(lead.run, (layer) => this.set({ ...this.state, layer }));
    if (this.touched) setText(this.speech, spoken(lead, this.state));
  }

  private say(): void {
    const models = this.parts.models;
    const errors = models.map(({ about, map }) => about.error || map.error);
    const situation: Situation = {
      loaded: this.loaded,
      trouble: this.trouble,
      problems: [...errors.filter((error) => error !== ""), ...this.problems],
      names: this.runs.map(({ run }) => run),
      wanted: this.state.run,
      runs: models.map(({ run }) => run).filter((run) => run !== undefined),
      live: this.source.live,
    };
    const texts = messagesOf(situation);
    this.message.hidden = texts.length === 0;
    setText(this.message, texts.join("\n"));
    this.toolbar.say(statusOf(situation));
  }

  /** Shows the place of a finding in the map. */
  private point(finding: number, side: Side): void {
    const model = this.parts.models[SIDES.indexOf(side)];
    const one = this.shown.find((candidate) => candidate.model === model);
    if (one === undefined || this.scene === undefined) return;
    this.set(showFinding(this.state, surroundings(one, this.scene.extent), finding, side));
    this.parts.reveal(side);
  }

  private press(event: KeyboardEvent): void {
    const target = event.target as Element;
    const { key, shiftKey } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || this.help.element.open) return;
    if (target.closest("input, select, textarea") !== null) return;
    if (key === "?") {
      this.help.open();
      return;
    }
    const [lead] = this.shown;
    if (lead === undefined || this.scene === undefined) return;
    // Outside of the map, space presses the button that has the focus, and arrows scroll the page.
    const inMap = target.closest(".heat") !== null;
    if (!inMap && target !== document.body && /^( |Arrow|Home|End)/.test(key)) return;
    if (key === " ") {
      event.preventDefault();
      this.player.toggle();
      return;
    }
    const around = surroundings(lead, this.scene.extent);
    const next = pressKey(key, shiftKey, this.state, around);
    if (next === null) return;
    event.preventDefault();
    this.set(next);
  }
}
