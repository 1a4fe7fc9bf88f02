// What the view shows, apart from data. All of it travels in the address, so that a link shows the
// same thing to someone else.
import { MAPS, type MapName } from "../colour/maps";
import { ORDERS, type RowOrder } from "../map/rows";

/** The run that a finding is one of, where two are shown. */
export const SIDES = ["run", "compare"] as const;
export type Side = (typeof SIDES)[number];
export const SCALES = ["absolute", "own"] as const;
export type ScaleName = (typeof SCALES)[number];

export interface ViewState {
  /** Run shown; null: the first. */
  readonly run: string | null;
  /** Run next to it. */
  readonly compare: string | null;
  readonly series: string;
  readonly scale: ScaleName;
  readonly rows: RowOrder;
  readonly colours: MapName;
  /** Steps shown, both inclusive; null: the whole run, which grows. */
  readonly window: Window | null;
  /** Pinned step; null: the last one, which moves. */
  readonly step: number | null;
  /** Chosen row, by its name. */
  readonly layer: string | null;
  /** Chosen finding, by its place in the diagnosis. */
  readonly finding: number | null;
  readonly of: Side;
}

export interface Window {
  readonly from: number;
  readonly to: number;
}

export const START: ViewState = {
  run: null,
  compare: null,
  series: "grad_norm",
  scale: "absolute",
  rows: "depth",
  colours: "health",
  window: null,
  step: null,
  layer: null,
  finding: null,
  of: "run",
};

/** Returns the parts of an address that differ from the start. */
export function toParameters(state: ViewState): Record<string, string> {
  const result: Record<string, string> = {};
  const put = (name: string, value: string | number | null, usual: string | null): void => {
    if (value !== null && value !== usual) result[name] = String(value);
  };
  put("run", state.run, null);
  put("compare", state.compare, null);
  put("series", state.series, START.series);
  put("scale", state.scale, START.scale);
  put("rows", state.rows, START.rows);
  put("colours", state.colours, START.colours);
  put("from", state.window?.from ?? null, null);
  put("to", state.window?.to ?? null, null);
  put("step", state.step, null);
  put("layer", state.layer, null);
  put("finding", state.finding, null);
  if (state.finding !== null) put("of", state.of, START.of);
  return result;
}

/** Reads a state; what makes no sense is as it is at the start. */
export function fromParameters(given: Readonly<Record<string, string | undefined>>): ViewState {
  const choice = <T extends string>(name: string, choices: readonly T[], usual: T): T =>
    choices.find((one) => one === given[name]) ?? usual;
  const whole = (name: string): number | null => {
    const text = given[name];
    return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : null;
  };
  const [from, to] = [whole("from"), whole("to")];
  return {
    run: given.run ?? null,
    compare: given.compare ?? null,
    series: given.series ?? START.series,
    scale: choice("scale", SCALES, START.scale),
    rows: choice("rows", ORDERS, START.rows),
    colours: choice("colours", MAPS, START.colours),
    window: from !== null && to !== null && from < to ? { from, to } : null,
    step: whole("step"),
    layer: given.layer ?? null,
    finding: whole("finding"),
    of: choice("of", SIDES, START.of),
  };
}
