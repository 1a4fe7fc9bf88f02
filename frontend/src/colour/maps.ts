// The colour maps, and the colours of what is no number.
import { fromLab, hex, toLab, type Rgb } from "./oklab";

export const MAPS = ["health", "viridis"] as const;
export type MapName = (typeof MAPS)[number];
export type Theme = "light" | "dark";

/**
 * Stops at equal distances from -1 (vanishing) over 0 (the reference) to 1 (exploding).
 *
 * Blue against orange: every kind of colour blindness keeps these two apart, which red against green
 * or blue against violet would not survive; test/maps.test.ts simulates it. Each arm also changes its
 * lightness all the way, so that "how far" can be read without hue.
 */
const HEALTH: Record<Theme, readonly string[]> = {
  light: [
    "#160f52",
    "#1f2f93",
    "#2f5fce",
    "#5c97ea",
    "#a3c8f5",
    "#f4f1e6",
    "#fbcf7a",
    "#f39a36",
    "#dd5b1f",
    "#a82413",
    "#67040d",
  ],
  dark: [
    "#c3bcff",
    "#9a9fff",
    "#7391ff",
    "#4a78dd",
    "#345089",
    "#2c3138",
    "#7a4a1c",
    "#bb6420",
    "#ee8331",
    "#ffa043",
    "#ffc168",
  ],
};

// Sampled from viridis by van der Walt and Smith, released under CC0.
const VIRIDIS: readonly string[] = [
  "#440154",
  "#482878",
  "#3e4a89",
  "#31688e",
  "#26828e",
  "#1f9e89",
  "#35b779",
  "#6ece58",
  "#b5de2b",
  "#fde725",
];

/**
 * What a cell shows that no place on the map is right for: NaN, Inf, a gradient of exactly zero, no
 * gradient, nothing measured.
 *
 * Two maps use up most of what the colour-blind can tell apart, so that each but the last has a pattern too:
 * NaN and Inf are hatched, zeros dotted, and where there is no gradient lines lean the other way.
 */
export interface Exceptions {
  readonly nan: Rgb;
  readonly inf: Rgb;
  readonly zero: Rgb;
  readonly none: Rgb;
  /** Lines over NaN and Inf, dots over zeros. */
  readonly hatch: Rgb;
  /** Lines where there is no gradient. */
  readonly lines: Rgb;
}

export const EXCEPTIONS: Record<Theme, Exceptions> = {
  light: {
    nan: hex("#8700ff"),
    inf: hex("#000000"),
    zero: hex("#695a5a"),
    none: hex("#e4e7eb"),
    hatch: hex("#ffffff"),
    lines: hex("#5b6875"),
  },
  dark: {
    nan: hex("#9600fa"),
    inf: hex("#000000"),
    zero: hex("#695a5a"),
    none: hex("#1d2126"),
    hatch: hex("#ffffff"),
    lines: hex("#9aa6b3"),
  },
};

/** Number of colours in a table: odd, so that the reference has one of its own. */
export const TABLE = 513;

function stops(name: MapName, theme: Theme): readonly string[] {
  return name === "health" ? HEALTH[theme] : VIRIDIS;
}

/** Returns the colour at a position from -1 to 1. */
export function colourAt(name: MapName, theme: Theme, position: number): Rgb {
  const list = stops(name, theme);
  const place = ((Math.min(1, Math.max(-1, position)) + 1) / 2) * (list.length - 1);
  const left = Math.min(Math.floor(place), list.length - 2);
  const part = place - left;
  const [a, b] = [toLab(hex(list[left]!)), toLab(hex(list[left + 1]!))];
  return fromLab([
    a[0] + part * (b[0] - a[0]),
    a[1] + part * (b[1] - a[1]),
    a[2] + part * (b[2] - a[2]),
  ]);
}

/** Packs a colour as a little-endian RGBA pixel, as ImageData holds it. */
export function pixel([red, green, blue]: Rgb): number {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

const tables = new Map<string, Uint32Array>();

/** Returns the `TABLE` pixels of a map, from -1 to 1. */
export function table(name: MapName, theme: Theme): Uint32Array {
  const key = `${name} ${theme}`;
  let pixels = tables.get(key);
  if (pixels === undefined) {
    pixels = new Uint32Array(TABLE);
    for (let i = 0; i < TABLE; i++) {
      pixels[i] = pixel(colourAt(name, theme, (2 * i) / (TABLE - 1) - 1));
    }
    tables.set(key, pixels);
  }
  return pixels;
}
