// The heat map: layers by steps, labels on its left, what is chosen on top of it.
import type { MapName, Theme } from "../colour/maps";
import type { Scale } from "../colour/scale";
import type { BinMap, Row } from "../data/types";
import { spreadBins } from "../map/columns";
import { paint, type Odd, type Pixels } from "../map/pixels";
import { chooseLabels, type Arrangement } from "../map/rows";
import { fillTurns } from "../map/turns";
import { makeSurface, prepare, shorten, toCanvas } from "./canvas";
import { style } from "./dom";
import { RIGHT } from "./linechart";
import { cover } from "./patterns";

export interface HeatInput {
  readonly map: BinMap;
  readonly rows: readonly Row[];
  readonly medians: readonly number[];
  readonly arrangement: Arrangement;
  readonly scale: Scale;
  readonly colours: MapName;
  readonly theme: Theme;
  readonly from: number;
  readonly to: number;
  readonly width: number;
  readonly height: number;
  readonly gutter: number;
  readonly chosen: string | null;
}

export interface OverlayInput {
  readonly step: number | null;
  /** Line of the chosen row. */
  readonly line: number | null;
  /** Lines and steps of the chosen finding, ends exclusive. */
  readonly finding: {
    readonly lines: readonly (readonly [number, number])[];
    readonly from: number;
    readonly to: number;
    readonly colour: string;
  } | null;
  readonly hover: { readonly x: number; readonly line: number } | null;
  readonly brush: readonly [number, number] | null;
}

/** Pixels between two labels. */
const LABEL = 15;

export class HeatMap {
  readonly element = document.createElement("div");
  private readonly picture = makeSurface("picture");
  private readonly overlay = makeSurface("overlay");
  private input: HeatInput | undefined;
  private painted = "";
  private stored: { map: BinMap; pixels: Pixels; image: HTMLCanvasElement } | undefined;

  constructor() {
    this.element.className = "heat";
    this.element.append(this.picture.canvas, this.overlay.canvas);
  }

  /** Draws the picture; the same picture is not drawn twice. */
  update(input: HeatInput): void {
    this.input = input;
    const { map, scale, colours, theme, from, to, width, height, gutter, chosen, arrangement } =
      input;
    const rest = JSON.stringify([
      scale,
      colours,
      theme,
      from,
      to,
      width,
      height,
      gutter,
      arrangement.order,
    ]);
    const ratio = window.devicePixelRatio;
    if (this.stored?.map !== map || this.painted !== `${rest} ${ratio}`) {
      this.painted = `${rest} ${ratio}`;
      const began = performance.now();
      const pixels = paint({
        plane: fillTurns(map).planes.extreme ?? new Float32Array(0),
        bins: map.bins,
        order: arrangement.order,
        medians: input.medians,
        columns: spreadBins(map, from, to + 1, Math.max(1, Math.round(this.plotWidth * ratio))),
        height: Math.round(height * ratio),
        scale,
        map: colours,
        theme,
      });
      this.stored = { map, pixels, image: toCanvas(pixels) };
      performance.measure("gradwatch:paint", { start: began });
    }
    prepare(this.picture, width, height);
    const { context } = this.picture;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.stored.image, gutter, 0, this.plotWidth, height);
    cover(this.picture, this.stored.pixels, { left: gutter, width: this.plotWidth, height }, theme);
    this.separate();
    this.label(chosen);
  }

  get plotWidth(): number {
    const input = this.input;
    return input === undefined ? 0 : Math.max(1, input.width - input.gutter - RIGHT);
  }

  /** Returns the step under a horizontal position in the element. */
  stepAt(x: number): number {
    const { from, to, gutter } = this.input!;
    const step = Math.floor(from + ((x - gutter) / this.plotWidth) * (to + 1 - from));
    return Math.min(to, Math.max(from, step));
  }

  /** Returns the horizontal position of a step, or of the gap before it. */
  xOf(step: number): number {
    const { from, to, gutter } = this.input!;
    return gutter + ((step - from) / (to + 1 - from)) * this.plotWidth;
  }

  /** Returns the line at a vertical position. */
  lineAt(y: number): number {
    const lines = this.input!.arrangement.order.length;
    return Math.min(lines - 1, Math.max(0, Math.floor((y / this.input!.height) * lines)));
  }

  /** What the picture shows besides numbers. */
  get seen(): Readonly<Record<Odd, boolean>> | undefined {
    return this.stored?.pixels.seen;
  }

  private separate(): void {
    const { context } = this.picture;
    const { arrangement, height, gutter } = this.input!;
    const line = height / Math.max(1, arrangement.order.length);
    const large = arrangement.groups.filter(({ start, end }) => (end - start) * line >= 6);
    if (large.length < 2 || arrangement.groups.every(({ start, end }) => end - start === 1)) return;
    context.fillStyle = style("--panel");
    for (const { start } of arrangement.groups) {
      if (start > 0 && line >= 3)
        context.fillRect(gutter, Math.round(start * line) - 0.5, this.plotWidth, 1);
    }
    context.fillStyle = style("--faint");
    for (const { start, end } of large) {
      context.fillRect(gutter - 5, start * line + 1.5, 1.5, (end - start) * line - 3);
    }
  }

  private label(chosen: string | null): void {
    const { context } = this.picture;
    const { rows, arrangement, height, gutter } = this.input!;
    const line = height / Math.max(1, arrangement.order.length);
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const label of chooseLabels(rows, arrangement, chosen, Math.floor(height / LABEL))) {
      context.font = `${label.chosen ? "600 " : ""}11px system-ui, sans-serif`;
      context.fillStyle = style(label.chosen ? "--text" : "--muted");
      const y = Math.min(height - 6, Math.max(6, label.line * line));
      context.fillText(shorten(context, label.text, gutter - 14), gutter - 9, y);
    }
  }

  /** Draws what moves: cheap, so that it follows the pointer. */
  drawOverlay({ step, line, finding, hover, brush }: OverlayInput): void {
    if (this.input === undefined) return;
    const { width, height, gutter, arrangement, from, to } = this.input;
    prepare(this.overlay, width, height);
    const { context } = this.overlay;
    const tall = height / Math.max(1, arrangement.order.length);
    context.save();
    context.beginPath();
    context.rect(gutter - 1, 0, this.plotWidth + 2, height);
    context.clip();
    if (brush !== null) {
      context.fillStyle = style("--brush");
      context.fillRect(brush[0], 0, brush[1] - brush[0], height);
    }
    if (hover !== null) {
      context.fillStyle = style("--hover");
      context.fillRect(hover.x, 0, 1, height);
      context.fillRect(gutter, Math.round(hover.line * tall), this.plotWidth, 1);
      context.fillRect(gutter, Math.round((hover.line + 1) * tall) - 1, this.plotWidth, 1);
    }
    if (line !== null) {
      outline(context, gutter, line * tall, this.plotWidth, Math.max(3, tall), style("--text"), []);
    }
    if (finding !== null) {
      const left = this.xOf(Math.max(from, finding.from));
      const right = this.xOf(Math.min(to + 1, finding.to));
      for (const [top, bottom] of finding.lines) {
        const box = [
          left,
          top * tall,
          Math.max(4, right - left),
          Math.max(3, (bottom - top) * tall),
        ] as const;
        outline(context, ...box, style(finding.colour), [5, 3]);
      }
    }
    if (step !== null && step >= from && step <= to) {
      const x = Math.round(this.xOf(step + 0.5));
      context.fillStyle = style("--panel");
      context.fillRect(x - 1.5, 0, 3, height);
      context.fillStyle = style("--text");
      context.fillRect(x - 0.5, 0, 1, height);
    }
    context.restore();
  }
}

/** A line that is seen on dark and on light cells alike. */
function outline(
  context: CanvasRenderingContext2D,
  x: number,
  y: number,
  width: number,
  height: number,
  colour: string,
  dash: readonly number[],
): void {
  const box = [x + 0.75, y + 0.75, Math.max(1, width - 1.5), Math.max(1, height - 1.5)] as const;
  context.setLineDash([]);
  context.lineWidth = 3;
  context.strokeStyle = style("--panel");
  context.strokeRect(...box);
  context.setLineDash([...dash]);
  context.lineWidth = 1.5;
  context.strokeStyle = colour;
  context.strokeRect(...box);
  context.setLineDash([]);
}
