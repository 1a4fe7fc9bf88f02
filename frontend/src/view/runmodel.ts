// Everything that has been loaded about one run.
import type { BinMap, Run, Series, Source, Step } from "../data/types";
import { REACH } from "../map/turns";
import { plannedGap } from "../model/words";
import type { ViewState, Window } from "../model/state";
import { Slot } from "./slot";

/** Most cells of a map to ask for: beyond, a screen cannot show more anyway. */
const MOST_CELLS = 2_000_000;
const LEAST_BINS = 64;

export class RunModel {
  /** Version that the list of runs names; the run is loaded again when it changes. */
  version = "";
  /** Whether it is still being written; the run is loaded again when that ends, since it says so. */
  writing = false;
  readonly about: Slot<Run>;
  readonly map: Slot<BinMap>;
  readonly strips: Slot<BinMap>;
  readonly step: Slot<Step>;
  /** Which series and window `map` is of: the picture of the last one stays until the next is here. */
  mapSeries = "";

  constructor(
    readonly name: string,
    private readonly source: Source,
    private readonly changed: () => void,
  ) {
    this.about = new Slot(() => {
      this.changed();
      // A large recording is read in pieces; what is there is right.
      if (this.about.value?.complete === false) setTimeout(() => this.again(), 300);
    });
    this.map = new Slot(changed);
    this.strips = new Slot(changed);
    this.step = new Slot(changed);
  }

  private pass = 0;

  private again(): void {
    this.pass++;
    this.load();
  }

  /** Loads what is said about the run, if it has changed. */
  load(): void {
    const key = `${this.version} ${this.pass} ${String(this.writing)}`;
    this.about.ask(key, () => this.source.run(this.name));
  }

  get run(): Run | undefined {
    return this.about.value;
  }

  /** The series that the state asks for; the first one if this run has none such. */
  series(state: ViewState): Series | undefined {
    const maps = this.run?.series.filter((one) => one.name !== "strips") ?? [];
    return maps.find((one) => one.name === state.series) ?? maps[0];
  }

  /** The whole run, both ends inclusive. */
  get extent(): Window {
    return { from: this.run?.first_step ?? 0, to: this.run?.last_step ?? 0 };
  }

  /** Loads the map and the strips for what is shown. */
  loadMap(state: ViewState, width: number): void {
    const run = this.run;
    const series = this.series(state);
    if (run === undefined || series === undefined || run.steps === 0 || width < 1) return;
    const bins = Math.max(
      LEAST_BINS,
      Math.min(width, Math.floor(MOST_CELLS / Math.max(1, series.rows.length))),
    );
    const window = state.window ?? {};
    const key = JSON.stringify([run.version, run.complete, this.pass, window]);
    const query = { run: this.name, ...window };
    const from = state.window?.from;
    this.map.ask(`${key} ${series.name} ${bins}`, async () => {
      const map = await this.source.map({
        ...query,
        ...(from === undefined ? {} : { from: Math.max(this.extent.from, from - REACH) }),
        series: series.name,
        bins: bins + (from === undefined ? 0 : REACH),
        stats: ["extreme"],
      });
      this.mapSeries = series.name;
      return { ...map, planned: plannedGap(series.name, run) };
    });
    if (run.series.some((one) => one.name === "strips")) {
      this.strips.ask(`${key} ${width}`, () =>
        this.source.map({
          ...query,
          series: "strips",
          bins: width,
          stats: ["extreme", "min", "mean", "max"],
        }),
      );
    }
  }

  /** Loads the exact values of the pinned step, or of the last one. */
  loadStep(state: ViewState): void {
    const run = this.run;
    if (run === undefined || run.steps === 0) return;
    const last = this.extent.to;
    const step = state.step ?? last;
    const place = run.layers.findIndex((layer) => layer.name === this.layerName(state));
    const layer = place < 0 ? undefined : place;
    // The end of a growing run changes; what lies before it does not.
    const version = step >= last ? run.version : "";
    this.step.ask(`${version} ${step} ${place}`, () => this.source.step(this.name, step, layer));
  }

  /** Name of the layer that the chosen row belongs to. */
  layerName(state: ViewState): string | null {
    if (state.layer === null) return null;
    const row = this.series(state)?.rows.find((one) => one.name === state.layer);
    if (row?.layer === null || row === undefined) return state.layer;
    return this.run?.layers[row.layer]?.name ?? state.layer;
  }
}
