// What is under the pointer, in two lines.
import type { BinMap, Row } from "../data/types";
import { binAt } from "../map/columns";
import { formatNumber, formatStep } from "../model/numbers";

/** `index` is the row's place in the map's planes. */
export function tipText(row: Row, map: BinMap, index: number, step: number): string {
  const bin = binAt(map.first, step);
  const value = map.planes.extreme?.[index * map.bins + bin] ?? -Infinity;
  const [first, last] = [map.first[bin] ?? step, map.last[bin] ?? step];
  const steps =
    first === last ? `step ${formatStep(first)}` : `steps ${formatStep(first)}–${formatStep(last)}`;
  const shown = value === -Infinity ? "nothing measured" : formatNumber(value);
  return `${row.name}${row.kind === "" ? "" : ` (${row.kind})`}\n${steps}: ${shown}`;
}
