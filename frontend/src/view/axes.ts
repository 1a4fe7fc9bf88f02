// The vertical axis of a chart of lines: its range, where its labels stand and what they say.
import { formatNumber, formatPower, mantissaTicks, powerTicks } from "../model/numbers";

/** Leaves air above and below; a constant line stands in the middle. */
export function padded(low: number | null, high: number | null, log: boolean): [number, number] {
  if (low === null || high === null) return log ? [-1, 1] : [0, 1];
  if (!log && low === 0 && high === 0) return [0, 1];
  const least = log ? 0.4 : Math.max(1e-12, 0.05 * Math.max(Math.abs(low), Math.abs(high)));
  const air = Math.max(0.08 * (high - low), (least - (high - low)) / 2);
  return [low - air, high + air];
}

export function ticks(low: number, high: number, log: boolean, height: number): number[] {
  const most = Math.max(2, Math.floor(height / 26));
  if (log) {
    // Two labels at least, or nobody knows how tall the curve is.
    for (let count = most; count < most + 4; count++) {
      const powers = powerTicks(low, high, count);
      if (powers.length > 1) return [...powers];
    }
    const between = mantissaTicks(low, high);
    if (between.length > 0) return between.slice(0, most);
  }
  const raw = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const every = [1, 2, 2.5, 5, 10].map((m) => m * power).find((e) => e >= raw) ?? raw;
  const result: number[] = [];
  for (let i = Math.ceil(low / every); i * every <= high; i++) result.push(i * every);
  return result;
}

export function label(value: number, log: boolean): string {
  if (!log) return formatNumber(Math.abs(value) < 1e-15 ? 0 : value);
  return Number.isInteger(value)
    ? formatPower(value)
    : formatNumber(Number((10 ** value).toPrecision(3)));
}
