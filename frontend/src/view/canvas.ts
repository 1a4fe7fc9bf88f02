// Drawing on a canvas in CSS pixels, sharp on every screen.
import type { Pixels } from "../map/pixels";

export interface Surface {
  readonly canvas: HTMLCanvasElement;
  readonly context: CanvasRenderingContext2D;
}

export function makeSurface(className: string): Surface {
  const canvas = document.createElement("canvas");
  canvas.className = className;
  canvas.setAttribute("aria-hidden", "true");
  const context = canvas.getContext("2d");
  if (context === null) throw new Error("This browser has no 2D canvas.");
  return { canvas, context };
}

/** Gives a surface its size and clears it; from here on, units are CSS pixels. */
export function prepare({ canvas, context }: Surface, width: number, height: number): void {
  const ratio = window.devicePixelRatio;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
}

/** Shortens a text in its middle: both ends of a dotted name say something. */
export function shorten(context: CanvasRenderingContext2D, text: string, room: number): string {
  if (context.measureText(text).width <= room) return text;
  let keep = text.length - 1;
  let short = text;
  while (keep > 2 && context.measureText(short).width > room) {
    keep--;
    const head = Math.ceil(keep / 3);
    short = `${text.slice(0, head)}…${text.slice(text.length - (keep - head))}`;
  }
  return short;
}

/** Returns pixels as a picture that can be drawn at any size. */
export function toCanvas({
  width,
  height,
  colours,
}: Pick<Pixels, "width" | "height" | "colours">): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, width);
  canvas.height = Math.max(1, height);
  if (width === 0 || height === 0) return canvas;
  const bytes = new Uint8ClampedArray(colours.buffer as ArrayBuffer);
  canvas.getContext("2d")!.putImageData(new ImageData(bytes, width, height), 0, 0);
  return canvas;
}
