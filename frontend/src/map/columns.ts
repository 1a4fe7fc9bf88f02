// Which bins each column of pixels shows. Steps need not be evenly spaced.
import type { BinMap } from "../data/types";
import { HOLE, usualGap } from "./turns";

/** For each column of pixels the bins from `start` (inclusive) to `end` (exclusive); none if equal. */
export interface Columns {
  readonly start: Int32Array;
  readonly end: Int32Array;
}

/** Returns the step at which each bin ends on screen, exclusive. */
export function binEnds(map: BinMap): readonly number[] {
  const between: number[] = [];
  for (let bin = 1; bin < map.bins; bin++) between.push(map.first[bin]! - map.last[bin - 1]!);
  const usual = usualGap(between, map.planned);
  return map.first.map((_, bin) => {
    const last = map.last[bin]!;
    const next = map.first[bin + 1];
    if (next === undefined) return last + usual;
    return next - last <= HOLE * usual ? next : last + usual;
  });
}

/**
 * Spreads bins over columns of pixels.
 *
 * @param from First step of the window.
 * @param to Step after the last of the window.
 * @param width Number of columns.
 */
export function spreadBins(map: BinMap, from: number, to: number, width: number): Columns {
  const start = new Int32Array(width);
  const end = new Int32Array(width);
  const perStep = width / (to - from);
  const ends = binEnds(map);
  for (let bin = 0; bin < map.bins; bin++) {
    const [begin, stop] = [map.first[bin]!, ends[bin]!];
    if (stop <= from || begin >= to) continue;
    const left = Math.max(0, Math.floor((begin - from) * perStep));
    // However narrow a bin is, it has a column: no step is lost.
    const right = Math.min(width, Math.max(left + 1, Math.floor((stop - from) * perStep)));
    for (let x = left; x < right; x++) {
      if (start[x] === end[x]) start[x] = bin;
      end[x] = bin + 1;
    }
  }
  return { start, end };
}

/** Returns the last bin that begins at or before a step; the first if there is none. */
export function binAt(first: readonly number[], step: number): number {
  let [low, high] = [0, first.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (first[middle]! <= step) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low - 1);
}
