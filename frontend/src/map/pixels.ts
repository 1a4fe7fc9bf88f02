// The picture of the heat map: values to pixels. Where several steps or several layers meet in one
// pixel, the one that stands out most is shown, so that no zoom and no size of the window hides it.
import { position, type Scale } from "../colour/scale";
import { EXCEPTIONS, pixel, table, TABLE, type MapName, type Theme } from "../colour/maps";
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
  /** 1 where a NaN or an Inf is shown, to be hatched; undefined if there is none. */
  readonly broken: Uint8Array | undefined;
}

/** How much a cell stands out: NaN over Inf over numbers over nothing. */
function weight(value: number, place: number): number {
  if (Number.isNaN(value)) return Infinity;
  if (value === Infinity) return 1e300;
  if (value === -Infinity) return -1;
  return Math.min(1e299, Math.abs(place));
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
  const half = (TABLE - 1) / 2;
  let broken: Uint8Array | undefined;
  for (let y = 0; y < height; y++) {
    const top = Math.floor((y * order.length) / height);
    const bottom = Math.max(top + 1, Math.floor(((y + 1) * order.length) / height));
    let [lastStart, lastEnd] = [-1, -1];
    let [colour, isBroken] = [none, false];
    for (let x = 0; x < width; x++) {
      const [start, end] = [columns.start[x]!, columns.end[x]!];
      if (start !== lastStart || end !== lastEnd) {
        [lastStart, lastEnd] = [start, end];
        let [chosen, place, most] = [-Infinity, 0, -1];
        for (let line = top; line < bottom; line++) {
          const row = order[line]!;
          for (let bin = start; bin < end; bin++) {
            const value = plane[row * bins + bin]!;
            const here = Number.isFinite(value) ? position(scale, value, medians[row]!) : 0;
            const stands = weight(value, here);
            if (stands > most) [chosen, place, most] = [value, here, stands];
          }
        }
        isBroken = Number.isNaN(chosen) || chosen === Infinity;
        if (Number.isNaN(chosen)) colour = nan;
        else if (chosen === Infinity) colour = inf;
        else if (chosen === -Infinity) colour = none;
        else colour = lut[Math.round(half + half * Math.min(1, Math.max(-1, place)))]!;
      }
      colours[y * width + x] = colour;
      if (isBroken) (broken ??= new Uint8Array(width * height))[y * width + x] = 1;
    }
  }
  return { width, height, colours, broken };
}
