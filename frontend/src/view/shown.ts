// What the parts of the page are given to show: worked out once for all of them.
import { chooseScale, type Scale } from "../colour/scale";
import { type Theme } from "../colour/maps";
import { toNumber, type Run, type Series } from "../data/types";
import { arrange, type Arrangement } from "../map/rows";
import { glyphOf } from "../model/markers";
import type { Surroundings } from "../model/keys";
import type { Side, ViewState, Window } from "../model/state";
import { rowsFor, seriesFor } from "../model/words";
import type { Mark } from "./linechart";
import type { RunModel } from "./runmodel";

/** One run, ready to be drawn. */
export interface Shown {
  readonly model: RunModel;
  readonly run: Run;
  readonly series: Series;
  readonly arrangement: Arrangement;
  readonly medians: readonly number[];
  /** Name of each line's row, from top to bottom. */
  readonly lines: readonly string[];
  /** Place of the chosen finding, if it is one of this run. */
  readonly finding: number | null;
}

/** What all parts share. */
export interface Scene {
  readonly state: ViewState;
  readonly theme: Theme;
  readonly scale: Scale;
  readonly window: Window;
  /** First and last step of all runs shown. */
  readonly extent: Window;
  readonly step: number;
  readonly narrow: boolean;
}

/** Changes the state; the page follows. */
export type Change = (next: Partial<ViewState>) => void;

export function prepareRun(model: RunModel, state: ViewState, side: Side): Shown | null {
  const run = model.run;
  const series = model.series(state);
  if (run === undefined || series === undefined || run.steps === 0) return null;
  const arrangement = arrange(series.rows, state.rows);
  return {
    model,
    run,
    series,
    arrangement,
    medians: series.rows.map((row) => toNumber(row.median)),
    lines: arrangement.order.map((row) => series.rows[row]!.name),
    finding: state.of === side ? state.finding : null,
  };
}

export function prepareScene(
  shown: readonly Shown[],
  state: ViewState,
  theme: Theme,
  narrow: boolean,
): Scene {
  const extents = shown.map(({ model }) => model.extent);
  const extent = {
    from: Math.min(...extents.map(({ from }) => from)),
    to: Math.max(...extents.map(({ to }) => to)),
  };
  return {
    state,
    theme,
    scale: chooseScale(
      shown.map(({ series }) => series),
      state.scale === "own",
    ),
    window: state.window ?? extent,
    extent,
    step: state.step ?? extent.to,
    narrow,
  };
}

/** What the keyboard moves in: the rows and findings of the first run. */
export function surroundings({ run, lines }: Shown, extent: Window): Surroundings {
  return {
    first: extent.from,
    last: extent.to,
    rows: lines,
    findings: run.findings.map((finding) => {
      const series = seriesFor(finding, run);
      return {
        series: series?.name ?? "grad_norm",
        step: finding.first_step,
        layer: series === undefined ? null : ([...rowsFor(finding, series, run)][0] ?? null),
      };
    }),
  };
}

/** Vertical marks in the charts: the pinned step, and the chosen finding. */
export function marksOf(shown: Shown, scene: Scene): readonly Mark[] {
  const marks: Mark[] = [];
  const finding = shown.finding === null ? undefined : shown.run.findings[shown.finding];
  if (finding !== undefined) {
    const { colour } = glyphOf(finding.code);
    marks.push({ step: finding.first_step, colour, dashed: true });
    if (finding.last_step > finding.first_step) {
      marks.push({ step: finding.last_step, colour, dashed: true });
    }
  }
  marks.push({ step: scene.step, colour: "--text", dashed: false });
  return marks;
}
