// Rows that are measured by turns: each value stands until the row's own next one.
import type { BinMap, Stat } from "../data/types";

/** A gap this many times wider than usual is a hole, and is drawn as one. */
export const HOLE = 2.5;
/** Steps before a window that are asked for too: what stands at its beginning may have been said there. */
export const REACH = 64;
/** Nine gaps of ten are no wider than the usual one: runs are sampled more closely at their start. */
const USUAL = 0.9;

/** Returns the width that nine of ten gaps do not exceed, or the planned one if that is wider; 1 without any. */
export function usualGap(gaps: number[], planned = 0): number {
  return Math.max(planned, gaps.sort((a, b) => a - b)[Math.floor(USUAL * gaps.length)] ?? 1);
}

/**
 * For each bin of a row the bin whose value it shows: itself, or where nothing was measured the last
 * one before it. Optimizers that take turns leave such gaps in the rows of each other's layers. Undefined
 * if there is nothing to fill; -1 where a hole is too wide for that.
 */
function standing(map: BinMap, row: number): Int32Array | undefined {
  const plane = map.planes.extreme;
  if (plane === undefined) return undefined;
  const values = plane.subarray(row * map.bins, (row + 1) * map.bins);
  if (!values.includes(-Infinity)) return undefined;
  const measured: number[] = [];
  values.forEach((value, bin) => {
    if (value !== -Infinity) measured.push(bin);
  });
  if (measured.length < 2) return undefined;
  const gapAfter = (place: number): number =>
    map.first[measured[place + 1]!]! - map.last[measured[place]!]!;
  const usual = usualGap(
    measured.slice(1).map((_, place) => gapAfter(place)),
    map.planned,
  );
  const source = new Int32Array(map.bins).fill(-1);
  measured.forEach((bin, place) => {
    source[bin] = bin;
    const next = measured[place + 1];
    const near = next === undefined || gapAfter(place) <= HOLE * usual;
    const end = map.last[bin]! + usual;
    for (let after = bin + 1; near && after < (next ?? map.bins); after++) {
      // Behind the last one nobody knows how long it stands; as long as usual, then.
      if (next === undefined && map.first[after]! >= end) break;
      source[after] = bin;
    }
  });
  return source;
}

const filled = new WeakMap<BinMap, BinMap>();

/** Returns the map with the gaps filled that turns have left in its rows. */
export function fillTurns(map: BinMap): BinMap {
  const known = filled.get(map);
  if (known !== undefined) return known;
  const copies = new Map<Stat, Float32Array>();
  for (let row = 0; row < map.rows; row++) {
    const source = standing(map, row);
    if (source === undefined) continue;
    for (const [name, plane] of Object.entries(map.planes)) {
      const stat = name as Stat;
      const copy = copies.get(stat) ?? Float32Array.from(plane);
      copies.set(stat, copy);
      source.forEach((from, bin) => {
        if (from >= 0) copy[row * map.bins + bin] = plane[row * map.bins + from]!;
      });
    }
  }
  const result =
    copies.size === 0 ? map : { ...map, planes: { ...map.planes, ...Object.fromEntries(copies) } };
  filled.set(map, result);
  return result;
}

/** Returns the bin whose value a bin shows; null if it shows nothing. */
export function standingBin(map: BinMap, row: number, bin: number): number | null {
  const value = map.planes.extreme?.[row * map.bins + bin] ?? -Infinity;
  if (value !== -Infinity) return bin;
  const from = standing(map, row)?.[bin] ?? -1;
  return from < 0 ? null : from;
}
