// What stands at the edge of the depth profile for values that have no place on its scale.
import { NO_GRADIENT } from "../data/types";

/** Signs of what has no place on the scale: where they stand, in which colour, and what they mean. */
export const SIGNS = {
  broken: { text: "✖", colour: "--nan", left: false, words: "✖ NaN or Inf" },
  zero: { text: "0", colour: "--zero", left: true, words: "0 exactly zero" },
  noGradient: { text: "–", colour: "--muted", left: true, words: "– no gradient" },
} as const;
export type Sign = keyof typeof SIGNS;

/** Returns the sign of a value; null if it has a place on the scale. */
export function signOf(value: number, log: boolean): Sign | null {
  if (value === NO_GRADIENT) return "noGradient";
  if (!Number.isFinite(value)) return "broken";
  return log && value === 0 ? "zero" : null;
}
