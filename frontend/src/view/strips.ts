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
        log: rows[lines[0]?.row ?? -1]?.log ?? false,
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
      const first = plane.subarray(before.row * map.bins, (before.row + 1) * map.bins);
      const same = values.every((value, bin) => Object.is(value, first[bin]));
      if (same) continue;
    }
    lines.push({ row, colour });
  }
  return lines;
}
