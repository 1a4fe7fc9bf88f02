// Numbers as people read them.
import { NO_GRADIENT } from "../data/types";

/** Formats a norm or a ratio with three digits: "0.0345", "1.2e-7", "3,290". */
export function formatNumber(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (value === NO_GRADIENT) return "no gradient";
  if (!Number.isFinite(value)) return value > 0 ? "Inf" : "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) {
    const [digits, power] = value.toExponential(1).split("e");
    return `${digits!}e${Number(power)}`;
  }
  return size >= 1000
    ? Math.round(value).toLocaleString("en-US")
    : String(Number(value.toPrecision(3)));
}

/** Formats a step: "12,345". */
export function formatStep(step: number): string {
  return step.toLocaleString("en-US");
}

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** Formats a power of ten: "10⁻³"; 1 and 10 stay as they are. */
export function formatPower(power: number): string {
  if (power === 0) return "1";
  if (power === 1) return "10";
  const digits = Array.from(String(Math.abs(power)), (digit) => SUPERSCRIPTS[Number(digit)]!);
  return `10${power < 0 ? "⁻" : ""}${digits.join("")}`;
}

/** Returns whole powers of ten between two exponents, at most `most` of them. */
export function powerTicks(low: number, high: number, most: number): readonly number[] {
  const span = Math.floor(high) - Math.ceil(low);
  const every = Math.max(1, Math.ceil(span / Math.max(1, most - 1)));
  const ticks: number[] = [];
  for (let power = Math.ceil(low / every) * every; power <= high; power += every) {
    ticks.push(power === 0 ? 0 : power);
  }
  return ticks;
}

/** Returns logarithms of 1, 2 and 5 times a power of ten within less than about a decade. */
export function mantissaTicks(low: number, high: number): number[] {
  const ticks: number[] = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const mantissa of [1, 2, 5]) {
      const tick = power + Math.log10(mantissa);
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  }
  return ticks;
}

/** Returns round steps between two ends, about `most` of them. */
export function stepTicks(from: number, to: number, most: number): number[] {
  const raw = Math.max(1, (to - from) / Math.max(1, most));
  const power = 10 ** Math.floor(Math.log10(raw));
  const every =
    [1, 2, 2.5, 5, 10].map((m) => m * power).find((e) => e >= raw && e % 1 === 0) ?? 10 * power;
  const ticks: number[] = [];
  for (let step = Math.ceil(from / every) * every; step <= to; step += every) ticks.push(step);
  return ticks;
}
