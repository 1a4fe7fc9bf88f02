// A line over steps, drawn by uPlot: the mean of each bin as a line, its range as a band.
import uPlot from "uplot";
import { binEnds } from "../map/columns";
import { fillTurns } from "../map/turns";
import { isNumber, type BinMap } from "../data/types";
import { stepTicks } from "../model/numbers";
import { label, padded, ticks } from "./axes";
import { style } from "./dom";

/** One line; `colour` is a custom property. */
export interface Line {
  readonly row: number;
  readonly colour: string;
  readonly dashed?: boolean;
}

export interface Mark {
  readonly step: number;
  readonly colour: string;
  readonly dashed: boolean;
}

export interface ChartInput {
  readonly map: BinMap;
  readonly lines: readonly Line[];
  readonly log: boolean;
  readonly from: number;
  readonly to: number;
  readonly width: number;
  readonly marks: readonly Mark[];
}

export interface ChartOptions {
  readonly height: number;
  /** Room for the labels on the left, in pixels. */
  readonly gutter: () => number;
  /** Whether it has labels of steps below. */
  readonly steps: boolean;
  readonly zoomed: (from: number, to: number) => void;
  readonly picked: (step: number) => void;
}

export const RIGHT = 10;
const X_AXIS = 24;
/** Fewer values than this get dots. */
const POINTS = 16;

export class LineChart {
  private plot: uPlot | undefined;
  private input: ChartInput | undefined;
  private shape = "";
  /** Bins that hold NaN or Inf, and those that hold a zero which has no logarithm, as ranges of steps. */
  private broken: [number, number][] = [];
  private zeros: [number, number][] = [];
  /** Whether any value has a place on the scale: without one, its labels would mean nothing. */
  private scaled = false;

  constructor(
    private readonly host: HTMLElement,
    private readonly options: ChartOptions,
  ) {}

  update(input: ChartInput): void {
    this.input = input;
    const height = this.options.height + (this.options.steps ? X_AXIS : 0);
    const shape = JSON.stringify([input.lines, input.log, this.options.gutter()]);
    const data = this.values(input);
    if (this.plot === undefined || shape !== this.shape) {
      this.plot?.destroy();
      this.shape = shape;
      this.plot = new uPlot(this.describe(input, height), data, this.host);
    } else {
      if (this.plot.width !== input.width || this.plot.height !== height) {
        this.plot.setSize({ width: input.width, height });
      }
      this.plot.setData(data, true);
    }
  }

  destroy(): void {
    this.plot?.destroy();
    this.plot = undefined;
  }

  /** Whether it has bars at its lower edge for what is exactly zero. */
  get hasZeros(): boolean {
    return this.zeros.length > 0;
  }

  private values({ map: given, lines, log }: ChartInput): uPlot.AlignedData {
    const map = fillTurns(given);
    const ends = binEnds(map);
    const x = map.first.map((first, bin) => (first + map.last[bin]! + 1) / 2);
    const show = (value: number): number | null => {
      if (!isNumber(value) || (log && value <= 0)) return null;
      return log ? Math.log10(value) : value;
    };
    const planes = [map.planes.mean, map.planes.min, map.planes.max].map(
      (plane) => plane ?? map.planes.extreme,
    );
    const columns = lines.flatMap(({ row }) =>
      planes.map((plane) => x.map((_, bin) => show(plane?.[row * map.bins + bin] ?? Number.NaN))),
    );
    this.broken = [];
    this.zeros = [];
    for (const { row } of lines) {
      for (let bin = 0; bin < map.bins; bin++) {
        const value = map.planes.extreme?.[row * map.bins + bin] ?? 0;
        if (Number.isNaN(value) || value === Infinity) {
          addRange(this.broken, map.first[bin]!, ends[bin]!);
        }
        const least = (map.planes.min ?? map.planes.extreme)?.[row * map.bins + bin];
        if (log && least === 0) addRange(this.zeros, map.first[bin]!, ends[bin]!);
      }
    }
    this.scaled = columns.some((column) => column.some((value) => value !== null));
    return [x, ...columns] as uPlot.AlignedData;
  }

  private describe(input: ChartInput, height: number): uPlot.Options {
    const { steps, gutter, zoomed, picked } = this.options;
    const font = "11px system-ui, sans-serif";
    const axis = { stroke: () => style("--muted"), font, ticks: { show: false } };
    const grid = { stroke: () => style("--line"), width: 1 };
    return {
      width: input.width,
      height,
      padding: [6, RIGHT, steps ? 0 : 6, 0],
      legend: { show: false },
      cursor: {
        y: false,
        points: { show: false },
        drag: { x: true, y: false, setScale: false },
        bind: {
          dblclick: () => () => {
            zoomed(Number.NaN, Number.NaN);
            return null;
          },
        },
      },
      scales: {
        x: { time: false, range: () => [this.input!.from, this.input!.to + 1] },
        y: { range: (_, low, high) => padded(low, high, input.log) },
      },
      axes: [
        {
          ...axis,
          grid: { ...grid, show: true },
          show: true,
          size: steps ? X_AXIS : 0,
          splits: (u) =>
            stepTicks(
              this.input!.from,
              this.input!.to,
              Math.max(2, Math.floor(u.bbox.width / devicePixelRatio / 80)),
            ),
          values: (_, splits) => splits.map((step) => (steps ? step.toLocaleString("en-US") : "")),
        },
        {
          ...axis,
          grid,
          size: gutter,
          splits: (_u, _i, low, high) =>
            this.scaled ? ticks(low, high, input.log, this.options.height) : [],
          values: (_, splits) => splits.map((value) => label(value, input.log)),
        },
      ],
      series: [
        {},
        ...input.lines.flatMap(({ colour, dashed }) => [
          {
            stroke: () => style(colour),
            width: 1.25,
            // A few samples in a wide window: each is seen, also one that stands alone.
            points: {
              show: (_: uPlot, _i: number, from: number, to: number) => to - from < POINTS,
            },
            ...(dashed ? { dash: [4, 3] } : {}),
          },
          // The edges of the band: a spike is as high as it was, whatever the mean says.
          { stroke: () => fade(colour), width: 1, points: { show: false } },
          { stroke: () => fade(colour), width: 1, points: { show: false } },
        ]),
      ],
      bands: input.lines.map(({ colour }, i) => ({
        series: [3 * i + 3, 3 * i + 2],
        fill: () => fade(colour),
      })),
      hooks: {
        drawAxes: [(u) => this.drawMarks(u)],
        setSelect: [
          (u) => {
            if (u.select.width < 4) return;
            const from = u.posToVal(u.select.left, "x");
            const to = u.posToVal(u.select.left + u.select.width, "x");
            u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
            zoomed(Math.floor(from), Math.floor(to));
          },
        ],
        ready: [
          (u) => {
            u.over.addEventListener("click", (event) => {
              const left = event.clientX - u.over.getBoundingClientRect().left;
              picked(Math.floor(u.posToVal(left, "x")));
            });
          },
        ],
      },
    };
  }

  private drawMarks(u: uPlot): void {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    const ratio = devicePixelRatio;
    const bar = 4 * ratio;
    const edges = [
      ["--nan", this.broken, bbox.top],
      ["--zero", this.zeros, bbox.top + bbox.height - bar],
    ] as const;
    for (const [colour, ranges, top] of edges) {
      ctx.fillStyle = style(colour);
      for (const [first, end] of ranges) {
        const left = u.valToPos(first, "x", true);
        ctx.fillRect(left, top, Math.max(2 * ratio, u.valToPos(end, "x", true) - left), bar);
      }
    }
    for (const { step, colour, dashed } of this.input?.marks ?? []) {
      const x = Math.round(u.valToPos(step + 0.5, "x", true));
      ctx.strokeStyle = style(colour);
      ctx.lineWidth = ratio;
      ctx.setLineDash(dashed ? [3 * ratio, 3 * ratio] : []);
      ctx.beginPath();
      ctx.moveTo(x + 0.5, bbox.top);
      ctx.lineTo(x + 0.5, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}

/** Adds a range of steps; one that goes on where the last one ends makes that longer. */
function addRange(ranges: [number, number][], first: number, end: number): void {
  const last = ranges.at(-1);
  if (last?.[1] === first) last[1] = end;
  else ranges.push([first, end]);
}

/** Makes a colour of the style sheet, which is #rrggbb, see-through. */
function fade(colour: string): string {
  return `${style(colour)}48`;
}
