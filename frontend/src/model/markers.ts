// Findings and actions as marks over the map.
import type { Action, Finding, Severity } from "../data/types";

/** A shape tells codes apart without colour. Drawn as a path in a box of 12 by 12. */
export interface Glyph {
  readonly path: string;
  /** Custom property of the style sheet that holds its colour. */
  readonly colour: string;
}

const SHAPES: Readonly<Record<string, Glyph>> = {
  vanishing: { path: "M1 2h10l-5 9z", colour: "--vanishing" },
  exploding: { path: "M1 10h10l-5-9z", colour: "--exploding" },
  nonfinite: { path: "M1 3l2-2 3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3z", colour: "--nonfinite" },
  spike: { path: "M4.5 1h3l-.6 6.5h-1.800zM4.700 9h2.600v2.500h-2.600z", colour: "--exploding" },
  dead_units: { path: "M1 1h10v10h-10zM3 3v6h6v-6z", colour: "--warning" },
  saturated: { path: "M1 1h10v10h-10z", colour: "--warning" },
  stalled: { path: "M2 1h3v10h-3zM7 1h3v10h-3z", colour: "--warning" },
  oscillating: {
    path: "M0 8l3-6 3 5 3-6 3 4-1.500 1.500-1.300-1.700-3 6-3-5-1.500 3z",
    colour: "--warning",
  },
  no_gradient: { path: "M6 1a5 5 0 1 0 .01 0zM6 3a3 3 0 1 1-.01 0z", colour: "--muted" },
};
const OTHER: Glyph = { path: "M6 1a5 5 0 1 0 .01 0z", colour: "--warning" };
export const ACTION: Glyph = { path: "M6 0l6 6-6 6-6-6z", colour: "--action" };

export function glyphOf(code: string): Glyph {
  return SHAPES[code] ?? OTHER;
}

/** A word for each severity, since colour alone tells some people nothing. */
export const SEVERITY: Readonly<Record<Severity, string>> = {
  ERROR: "error",
  WARNING: "warning",
  INFO: "note",
};

export interface Marker {
  readonly kind: "finding" | "action";
  /** Place in `findings` or in `actions`. */
  readonly index: number;
  readonly first: number;
  readonly last: number;
  readonly glyph: Glyph;
  readonly text: string;
}

/** Most marks of one action that get a button of their own; more are drawn as bars only. */
const MOST_BUTTONS = 12;

/** Returns the marks in the order of their first step. */
export function markersOf(findings: readonly Finding[], actions: readonly Action[]): Marker[] {
  const marks: Marker[] = findings.map((finding, index) => ({
    kind: "finding",
    index,
    first: finding.first_step,
    last: finding.last_step,
    glyph: glyphOf(finding.code),
    text: `${finding.title}: ${finding.where}`,
  }));
  actions.forEach((action, index) => {
    if (action.spans.length > MOST_BUTTONS) return;
    for (const [first, last, count] of action.spans) {
      const times = count > 1 ? `, ${count} times` : "";
      marks.push({
        kind: "action",
        index,
        first,
        last,
        glyph: ACTION,
        text: `${action.action}${times}: ${action.reason}`,
      });
    }
  });
  return marks.sort((a, b) => a.first - b.first || a.index - b.index);
}

/** Returns the lines that have one of these names, as ranges of neighbours. */
export function lineRanges(
  wanted: ReadonlySet<string>,
  lines: readonly string[],
): readonly (readonly [number, number])[] {
  const ranges: [number, number][] = [];
  lines.forEach((name, line) => {
    if (!wanted.has(name)) return;
    const last = ranges.at(-1);
    if (last?.[1] === line) last[1] = line + 1;
    else ranges.push([line, line + 1]);
  });
  return ranges;
}
