// What is under the pointer, in two lines.
import type { BinMap, Series } from "../data/types";
import { binAt } from "../map/columns";
import { standingBin } from "../map/turns";
import { formatNumber, formatStep } from "../model/numbers";

/** `index` is the row's place in the map's planes. */
export function tipText(series: Series, map: BinMap, index: number, step: number): string {
  const row = series.rows[index]!;
  const bin = binAt(map.first, step);
  // Where optimizers take turns, a cell shows the layer's own latest step, and says so.
  const of = standingBin(map, index, bin) ?? bin;
  const value = map.planes.extreme?.[index * map.bins + of] ?? -Infinity;
  const [first, last] = [map.first[of] ?? step, map.last[of] ?? step];
  const steps =
    first === last ? `step ${formatStep(first)}` : `steps ${formatStep(first)}–${formatStep(last)}`;
  const shown =
    value === -Infinity
      ? "nothing measured"
      : value === 0 && series.log
        ? "exactly 0"
        : formatNumber(value);
  return `${row.name}${row.kind === "" ? "" : ` (${row.kind})`}\n${steps}: ${shown}`;
}
