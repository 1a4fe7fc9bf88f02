// From a value to a position on the colour map, -1 to 1.
import { toNumber, type Series } from "../data/types";

/** Coordinates (log10 where `log`) of both ends of the map and of its reference. */
export interface Scale {
  readonly log: boolean;
  /** Whether values are compared with the median of their own row. */
  readonly relative: boolean;
  readonly low: number;
  readonly middle: number;
  readonly high: number;
}

/** Decades to both sides of a row's own median: a hundredth and a hundredfold. */
const OWN_ARM = 2;
/**
 * What is right by itself: weights that change by a thousandth of their size at each step learn; a module
 * that passes on the error signal as it is has a gain of 1.
 */
const REFERENCE: Readonly<Record<string, number>> = { update_ratio: 1e-3, gain: 1 };
/** Share of the rows that stand next to the loss. A quarter of a vanishing network spans many decades. */
const NEAR_LOSS = 1 / 12;
/** Least and most decades from the reference to an end, so that noise looks like noise. */
const LEAST_ARM = 3;
const LEAST_GAIN_ARM = 1;
const MOST_ARM = 10;

/** Measures the values of one row: what is the same for all of them is worked out once. */
export class Ruler {
  readonly log: boolean;
  private readonly middle: number;
  private readonly perBelow: number;
  private readonly perAbove: number;
  /** A row that is zero at most steps has no range of its own: all of it is where it always is. */
  private readonly without: boolean;

  constructor(scale: Scale, median: number) {
    this.log = scale.log;
    this.without = scale.relative && scale.log && !(median > 0);
    const own = scale.relative ? (scale.log ? Math.log10(median) : median) : 0;
    this.middle = scale.middle + own;
    const [below, above] = [scale.middle - scale.low, scale.high - scale.middle];
    this.perBelow = below > 0 ? 1 / below : 0;
    this.perAbove = above > 0 ? 1 / above : 0;
  }

  /**
   * Returns the position of a finite value. Beyond the ends it goes on past -1 and 1, so that the
   * farthest can be found.
   */
  at(value: number): number {
    if (this.without) return value > 0 ? 1 : 0;
    const place = this.log ? (value > 0 ? Math.log10(value) : -Infinity) : value;
    const offset = place - this.middle;
    return offset < 0 ? offset * this.perBelow : offset * this.perAbove;
  }
}

/**
 * Chooses the scale for one series, or for the same series of several runs.
 *
 * In the absolute view the reference is the layers next to the loss: there the error signal begins, so
 * that what lies below has been lost on the way back, and what lies above has been added.
 */
export function chooseScale(series: readonly Series[], relative: boolean): Scale {
  const log = series.every((one) => one.log);
  if (relative) {
    const arm = log ? OWN_ARM : 1;
    return { log, relative, low: -arm, middle: 0, high: arm };
  }
  if (!log) return { log, relative, low: 0, middle: 0, high: 1 };
  const ends = series.flatMap((one) => [toNumber(one.low), toNumber(one.high)]).filter(usable);
  const middle = Math.log10(reference(series));
  const low = Math.floor(Math.log10(Math.min(...ends)));
  const high = Math.ceil(Math.log10(Math.max(...ends)));
  const least = series.every((one) => one.name === "gain") ? LEAST_GAIN_ARM : LEAST_ARM;
  const clamp = (arm: number): number => Math.min(MOST_ARM, Math.max(least, arm));
  return {
    log,
    relative,
    low: middle - clamp(ends.length > 0 ? middle - low : 0),
    middle,
    high: middle + clamp(ends.length > 0 ? high - middle : 0),
  };
}

function reference(series: readonly Series[]): number {
  const known = REFERENCE[series[0]?.name ?? ""];
  if (known !== undefined) return known;
  const medians = series.flatMap((one) => {
    const nearLoss = one.rows.slice(-Math.max(1, Math.round(one.rows.length * NEAR_LOSS)));
    const rows = one.name === "weight_norm" ? one.rows : nearLoss;
    return rows.map((row) => toNumber(row.median)).filter(usable);
  });
  if (medians.length === 0) return 1;
  medians.sort((a, b) => a - b);
  const middle = medians[medians.length >> 1]!;
  // A whole decade stays where it is while a run grows.
  return 10 ** Math.round(Math.log10(middle));
}

function usable(value: number): boolean {
  return value > 0 && Number.isFinite(value);
}
