// The strips below the map: global norm before and after clipping, loss, learning rate.
import type { Change, Scene, Shown } from "./shown";
import type { Row } from "../data/types";
import { LineChart, type Line } from "./linechart";
import { fill, h } from "./dom";
import { marksOf } from "./shown";
import type { BinMap } from "../data/types";

interface Strip {
  readonly title: string;
  readonly rows: readonly (readonly [string, string, string])[];
  readonly height: number;
}

/** Title, rows with colour and words, height. */
const STRIPS: readonly Strip[] = [
  {
    title: "global norm",
    rows: [
      ["global_norm", "--ink", "before clipping"],
      ["clipped_norm", "--action", "after clipping"],
    ],
    height: 76,
  },
  { title: "loss", rows: [["loss", "--blue", ""]], height: 64 },
  { title: "learning rate", rows: [["lr", "--violet", ""]], height: 44 },
];

export class Strips {
  readonly element = h("div", { class: "strips" });
  private readonly charts: LineChart[];
  private readonly hosts: HTMLElement[];

  constructor(change: Change, gutter: () => number) {
    this.hosts = STRIPS.map(() => h("div", { class: "chart" }));
    this.charts = STRIPS.map(
      ({ height }, i) =>
        new LineChart(this.hosts[i]!, {
          height,
          gutter,
          steps: i === STRIPS.length - 1,
          zoomed: (from, to) => change({ window: from < to ? { from, to } : null }),
          picked: (step) => change({ step }),
        }),
    );
    STRIPS.forEach(({ title }, i) => {
      const name = h("div", { class: "strip", "data-strip": title }, h("h3", {}), this.hosts[i]!);
      this.element.append(name);
    });
  }

  update(shown: Shown, scene: Scene, width: number): void {
    const map = shown.model.strips.value;
    const rows = shown.run.series.find(({ name }) => name === "strips")?.rows;
    this.element.hidden = map === undefined || rows === undefined;
    if (map === undefined || rows === undefined || width < 200) return;
    STRIPS.forEach((strip, i) => {
      const lines = linesOf(strip, rows, map);
      const host = this.hosts[i]!.parentElement!;
      host.classList.toggle("empty", lines.length === 0);
      fill(host.querySelector("h3")!, JSON.stringify(lines.map(({ row }) => row)), () => [
        strip.title,
        ...strip.rows
          .filter(
            ([name, , words]) => words !== "" && lines.some(({ row }) => rows[row]?.name === name),
          )
          .map(([, colour, words]) => h("span", { style: `color: var(${colour})` }, words)),
      ]);
      this.charts[i]!.update({
        map,
        lines,
        log: lines.every(({ row }) => rows[row]?.log === true || spansDecades(map, row)),
        ...scene.window,
        width,
        marks: marksOf(shown, scene),
      });
    });
  }

  destroy(): void {
    for (const chart of this.charts) chart.destroy();
  }
}

/** Lines that say something: the clipped norm only where it differs. */
function linesOf(strip: Strip, rows: readonly Row[], map: BinMap): Line[] {
  const lines: Line[] = [];
  const plane = map.planes.extreme;
  if (plane === undefined) return lines;
  for (const [name, colour] of strip.rows) {
    const row = rows.findIndex((one) => one.name === name);
    if (row < 0) continue;
    const values = plane.subarray(row * map.bins, (row + 1) * map.bins);
    if (!values.some((value) => value !== -Infinity)) continue;
    const before = lines[0];
    if (before !== undefined) {
      if (!values.some(Number.isFinite)) continue;
      const first = plane.subarray(before.row * map.bins, (before.row + 1) * map.bins);
      if (values.every((value, bin) => isAbout(value, first[bin]!))) continue;
    }
    lines.push({ row, colour });
  }
  // The first is drawn on top: where both are the same, nothing has been clipped.
  return lines.reverse();
}

/** Ratio of largest to smallest value from which on only a logarithm shows both. */
const DECADES = 1e3;

/** Whether a row, such as a loss that explodes, cannot be read on a linear scale. */
function spansDecades(map: BinMap, row: number): boolean {
  const ends = (plane: Float32Array | undefined): Float32Array | undefined =>
    plane?.subarray(row * map.bins, (row + 1) * map.bins).filter(Number.isFinite);
  const low = ends(map.planes.min)?.reduce((a, b) => Math.min(a, b), Infinity) ?? Infinity;
  const high = ends(map.planes.max)?.reduce((a, b) => Math.max(a, b), -Infinity) ?? -Infinity;
  return low > 0 && high > DECADES * low;
}

/** Clipping that changes a norm by less than this is none; its rounding is not worth a line. */
const SAME = 1e-3;

function isAbout(value: number, other: number): boolean {
  return Object.is(value, other) || Math.abs(value - other) <= SAME * Math.abs(other);
}
