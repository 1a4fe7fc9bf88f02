// The one or two runs on the page, each with its diagnosis, its map and its curves.
import type { RunEntry, Source } from "../data/types";
import { SIDES, type Side, type ViewState } from "../model/state";
import { Diagnosis } from "./diagnosis";
import { h } from "./dom";
import { Drill } from "./drill";
import { Pane } from "./pane";
import { RunModel } from "./runmodel";
import { prepareRun, type Change, type Scene, type Shown } from "./shown";

interface Part {
  readonly model: RunModel;
  readonly diagnosis: Diagnosis;
  readonly pane: Pane;
  readonly drill: Drill;
}

/** What a part tells the page. */
export interface Wishes {
  readonly change: Change;
  /** Something has been loaded. */
  readonly draw: () => void;
  /** A finding of one side is to be shown in the map. */
  readonly point: (finding: number, side: Side) => void;
}

export class Parts {
  readonly diagnoses = h("div", { class: "diagnoses" });
  readonly panes = h("div", { class: "panes" });
  readonly drills = h("div", { class: "drills" });
  private parts: Part[] = [];

  constructor(
    private readonly source: Source,
    private readonly wishes: Wishes,
  ) {}

  get models(): readonly RunModel[] {
    return this.parts.map(({ model }) => model);
  }

  /** Whether two runs are on the page, so that each has to say its name. */
  get named(): boolean {
    return this.parts.length > 1;
  }

  /** Keeps one part for each run that is shown, and loads what has changed. */
  adjust(entries: readonly RunEntry[]): void {
    const names = entries.map(({ run }) => run);
    if (JSON.stringify(names) !== JSON.stringify(this.models.map(({ name }) => name))) {
      const kept = new Map(this.parts.map((part) => [part.model.name, part]));
      this.parts = names.map((run) => kept.get(run) ?? this.make(run));
      for (const [name, { pane, drill }] of kept) {
        if (names.includes(name)) continue;
        pane.destroy();
        drill.destroy();
      }
      this.diagnoses.replaceChildren(...this.parts.map(({ diagnosis }) => diagnosis.element));
      this.panes.replaceChildren(...this.parts.map(({ pane }) => pane.element));
      this.drills.replaceChildren(...this.parts.map(({ drill }) => drill.element));
    }
    entries.forEach(({ version, writing }, place) => {
      const { model } = this.parts[place]!;
      model.version = version;
      model.writing = writing;
      model.load();
    });
  }

  /** Returns the runs that have something to draw. */
  prepare(state: ViewState): readonly Shown[] {
    return this.parts
      .map(({ model }, place) => prepareRun(model, state, SIDES[place]!))
      .filter((one) => one !== null);
  }

  drawDiagnoses(state: ViewState): void {
    this.parts.forEach(({ model, diagnosis }, place) => {
      diagnosis.element.hidden = model.run === undefined;
      if (model.run === undefined) return;
      const chosen = state.of === SIDES[place] ? state.finding : null;
      diagnosis.update(model.run, chosen, this.named);
    });
  }

  drawMaps(shown: readonly Shown[], scene: Scene): void {
    for (const { model, pane, drill } of this.parts) {
      const one = shown.find((candidate) => candidate.model === model);
      pane.element.hidden = one === undefined;
      if (one === undefined) continue;
      pane.update(one, scene, this.named);
      model.loadMap(scene.state, pane.plotWidth);
      model.loadStep(scene.state);
      drill.update(one, scene, this.named);
    }
  }

  /** Brings the map of a side into view. */
  reveal(side: Side): void {
    this.parts[SIDES.indexOf(side)]?.pane.show();
  }

  private make(run: string): Part {
    const { change, draw, point } = this.wishes;
    const side = (): Side => SIDES[this.models.findIndex(({ name }) => name === run)] ?? "run";
    return {
      model: new RunModel(run, this.source, draw),
      diagnosis: new Diagnosis((finding) => point(finding, side())),
      pane: new Pane(change, (kind, index, step) => {
        if (kind === "finding") point(index, side());
        else change({ step });
      }),
      drill: new Drill(this.source, change, draw),
    };
  }
}
