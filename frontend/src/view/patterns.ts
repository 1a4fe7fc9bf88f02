// What is drawn over cells that are no number, so that they are told apart without colour.
import { EXCEPTIONS, type Theme } from "../colour/maps";
import { css, type Rgb } from "../colour/oklab";
import { PATTERN, type Pixels } from "../map/pixels";
import { makeSurface, prepare, toCanvas, type Surface } from "./canvas";

/** Pixels between two lines over NaN and Inf, and where there is no gradient. */
const HATCH = 9;
const LINES = 12;

export interface Box {
  readonly left: number;
  readonly width: number;
  readonly height: number;
}

/** Draws the patterns of a picture over it. */
export function cover(picture: Surface, pixels: Pixels, box: Box, theme: Theme): void {
  const { hatch, lines } = EXCEPTIONS[theme];
  const { seen } = pixels;
  if (seen.nan || seen.inf) over(picture, pixels, box, PATTERN.broken, hatch, slanted(1, HATCH));
  if (seen.noGradient) over(picture, pixels, box, PATTERN.noGradient, lines, slanted(-1, LINES));
  if (seen.zero) over(picture, pixels, box, PATTERN.zero, hatch, dotted);
}

type Draw = (context: CanvasRenderingContext2D, box: Box) => void;

function over(
  { context }: Surface,
  { patterns, width, height }: Pixels,
  box: Box,
  which: number,
  colour: Rgb,
  draw: Draw,
): void {
  if (patterns === undefined) return;
  const colours = new Uint32Array(patterns.length);
  patterns.forEach((one, i) => {
    if (one === which) colours[i] = 0xff000000;
  });
  const layer = makeSurface("");
  prepare(layer, box.width, box.height);
  layer.context.imageSmoothingEnabled = false;
  layer.context.drawImage(toCanvas({ width, height, colours }), 0, 0, box.width, box.height);
  layer.context.globalCompositeOperation = "source-in";
  layer.context.strokeStyle = css(colour);
  layer.context.lineWidth = 1;
  // One path: composed piece by piece, each piece would erase those before it.
  layer.context.beginPath();
  draw(layer.context, box);
  layer.context.stroke();
  context.globalAlpha = 0.75;
  context.drawImage(layer.canvas, box.left, 0, box.width, box.height);
  context.globalAlpha = 1;
}

/** Lines that rise to the right, or with -1 fall. They cross every cell that is not very small. */
function slanted(lean: 1 | -1, apart: number): Draw {
  return (context, { width, height }) => {
    const [start, end] = lean > 0 ? [height, 0] : [0, height];
    for (let x = -height; x < width; x += apart) {
      context.moveTo(x, start);
      context.lineTo(x + height, end);
    }
  };
}

const dotted: Draw = (context, { width, height }) => {
  for (let row = 0; 6 * row < height; row++) {
    for (let x = row % 2 === 0 ? 3 : 7; x < width; x += 8) {
      context.moveTo(x, 6 * row + 3);
      context.lineTo(x + 1.5, 6 * row + 3);
    }
  }
};
