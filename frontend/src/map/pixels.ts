// The picture of the heat map: values to pixels. Where several steps or several layers meet in one
// pixel, the one that stands out most is shown, so that no zoom and no size of the window hides it.
import { Ruler, type Scale } from "../colour/scale";
import { EXCEPTIONS, pixel, table, TABLE, type MapName, type Theme } from "../colour/maps";
import { NO_GRADIENT } from "../data/types";
import type { Columns } from "./columns";

export interface PixelInput {
  /** Plane `extreme`, row-major. */
  readonly plane: Float32Array;
  readonly bins: number;
  /** The rows of the plane from top to bottom. */
  readonly order: readonly number[];
  /** Median of each row of the plane. */
  readonly medians: readonly number[];
  readonly columns: Columns;
  /** Most rows of pixels there is room for. */
  readonly height: number;
  readonly scale: Scale;
  readonly map: MapName;
  readonly theme: Theme;
}

export interface Pixels {
  readonly width: number;
  readonly height: number;
  /** RGBA, row-major. */
  readonly colours: Uint32Array;
  /** Which `PATTERN` goes over a pixel; undefined if all are plain. */
  readonly patterns: Uint8Array | undefined;
  /** Which words of the legend the picture needs. */
  readonly seen: Readonly<Record<Odd, boolean>>;
}

/** What is no number, or none on a logarithmic scale. */
export type Odd = "nan" | "inf" | "zero" | "noGradient" | "nothing";

/** What is drawn over a cell so that it is told apart without colour. */
export const PATTERN = { plain: 0, broken: 1, zero: 2, noGradient: 3 } as const;

/** How much a cell stands out: NaN over Inf over numbers, however far, over nothing. */
const NAN = 4;
const INF = 3;
const FARTHEST = 2;
const NONE = -1;
const NOTHING = -2;
/** Stands for a zero among the places, which has no logarithm. */
const ZERO = Number.NaN;

/** The cells of one row of pixels: for each bin the one that stands out most. */
class Strip {
  readonly stands: Float64Array;
  readonly places: Float64Array;

  constructor(readonly bins: number) {
    this.stands = new Float64Array(bins);
    this.places = new Float64Array(bins);
  }

  clear(): void {
    this.stands.fill(NOTHING);
  }

  /** Adds a row of the plane. The innermost loop of all: no objects are made here. */
  add(plane: Float32Array, start: number, ruler: Ruler): void {
    const { stands, places, bins } = this;
    const { log } = ruler;
    for (let bin = 0; bin < bins; bin++) {
      const value = plane[start + bin]!;
      if (value === -Infinity) continue;
      let place = 0;
      let stand = NAN;
      if (value === Infinity) {
        stand = INF;
      } else if (value === NO_GRADIENT) {
        stand = NONE;
      } else if (value === value) {
        place = ruler.at(value);
        const far = place < 0 ? -place : place;
        // 0 to 2, in order: a distance has no end.
        stand = FARTHEST * (far === Infinity ? 1 : far / (1 + far));
        if (value === 0 && log) place = ZERO;
      }
      if (stand > stands[bin]!) {
        stands[bin] = stand;
        places[bin] = place;
      }
    }
  }
}

/** Paints the map. One pixel is one cell; the canvas stretches it vertically. */
export function paint(input: PixelInput): Pixels {
  const { plane, bins, order, medians, columns, scale } = input;
  const width = columns.start.length;
  const height = Math.min(order.length, Math.max(1, input.height));
  const colours = new Uint32Array(width * height);
  const lut = table(input.map, input.theme);
  const special = EXCEPTIONS[input.theme];
  const [nan, inf, none] = [pixel(special.nan), pixel(special.inf), pixel(special.none)];
  const zero = pixel(special.zero);
  const seen = { nan: false, inf: false, zero: false, noGradient: false, nothing: false };
  const half = (TABLE - 1) / 2;
  const strip = new Strip(bins);
  let patterns: Uint8Array | undefined;
  for (let y = 0; y < height; y++) {
    const top = Math.floor((y * order.length) / height);
    const bottom = Math.max(top + 1, Math.floor(((y + 1) * order.length) / height));
    strip.clear();
    for (let line = top; line < bottom; line++) {
      const row = order[line]!;
      strip.add(plane, row * bins, new Ruler(scale, medians[row]!));
    }
    const { stands, places } = strip;
    let lastStart = -1;
    let lastEnd = -1;
    let colour = none;
    let pattern: number = PATTERN.plain;
    for (let x = 0; x < width; x++) {
      const start = columns.start[x]!;
      const end = columns.end[x]!;
      if (start !== lastStart || end !== lastEnd) {
        lastStart = start;
        lastEnd = end;
        let most = NOTHING;
        let place = 0;
        for (let bin = start; bin < end; bin++) {
          if (stands[bin]! > most) {
            most = stands[bin]!;
            place = places[bin]!;
          }
        }
        pattern = PATTERN.plain;
        if (most === NAN) {
          [colour, pattern, seen.nan] = [nan, PATTERN.broken, true];
        } else if (most === INF) {
          [colour, pattern, seen.inf] = [inf, PATTERN.broken, true];
        } else if (most === NOTHING) {
          [colour, seen.nothing] = [none, true];
        } else if (most === NONE) {
          [colour, pattern, seen.noGradient] = [none, PATTERN.noGradient, true];
        } else if (place !== place) {
          [colour, pattern, seen.zero] = [zero, PATTERN.zero, true];
        } else {
          colour = lut[Math.round(half + half * Math.min(1, Math.max(-1, place)))]!;
        }
      }
      colours[y * width + x] = colour;
      if (pattern !== PATTERN.plain) {
        (patterns ??= new Uint8Array(width * height))[y * width + x] = pattern;
      }
    }
  }
  return { width, height, colours, patterns, seen };
}
