// Small maps for tests.
import type { BinMap } from "../src/data/types";

export function mapOf(given: {
  first: readonly number[];
  last: readonly number[];
  rows: readonly (readonly number[])[];
}): BinMap {
  return {
    version: "1",
    complete: true,
    width: 1,
    rows: given.rows.length,
    bins: given.first.length,
    first: given.first,
    last: given.last,
    columns: given.first.map(() => 1),
    planes: { extreme: Float32Array.from(given.rows.flat()) },
  };
}
