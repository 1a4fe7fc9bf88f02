// The chosen layer's own curves over the window.
import type { BinMap, Series, Source } from "../data/types";
import { REACH } from "../map/turns";
import { mapsOf, plannedGap, TIME_PROFILE, titleOf } from "../model/words";
import { h, setText } from "./dom";
import { LineChart } from "./linechart";
import { marksOf, type Change, type Scene, type Shown } from "./shown";
import { Slot } from "./slot";

const COLOURS = ["--accent", "--green", "--blue", "--violet"];

interface Curve {
  readonly card: HTMLElement;
  readonly title: HTMLElement;
  readonly chart: LineChart;
  readonly slot: Slot<BinMap>;
}

/** Curves of one run; with two runs there are two of these. */
export class Drill {
  readonly element = h("section", { class: "drill", "aria-label": "Curves of the chosen layer" });
  private readonly curves = new Map<string, Curve>();

  constructor(
    private readonly source: Source,
    private readonly change: Change,
    private readonly changed: () => void,
  ) {}

  update(shown: Shown, scene: Scene, named: boolean): void {
    const { run, model } = shown;
    const name = scene.state.layer;
    const layer = run.layers.findIndex((one) => one.name === model.layerName(scene.state));
    const wanted = new Set<string>();
    mapsOf(run.series).forEach((series, place) => {
      if (series.name.startsWith(TIME_PROFILE)) return;
      const row = series.rows.findIndex(
        (one) => one.name === name || (layer >= 0 && one.layer === layer),
      );
      if (row < 0 || name === null) return;
      // A row that has never been measured has no curve.
      if (series.rows[row]!.median === null && series.name !== "grad_norm") return;
      wanted.add(series.name);
      this.draw(shown, scene, series, row, place, named);
    });
    for (const [key, { card }] of this.curves) card.hidden = !wanted.has(key);
    this.element.hidden = wanted.size === 0;
  }

  private draw(
    { run, model, ...shown }: Shown,
    scene: Scene,
    series: Series,
    row: number,
    place: number,
    named: boolean,
  ): void {
    const curve = this.curves.get(series.name) ?? this.add(series);
    const width = Math.floor(curve.card.clientWidth) - 24;
    const { from, to } = scene.window;
    const query = { run: run.run, series: series.name, from, to, rows: [row] };
    const planned = plannedGap(series.name, run);
    const reach = Math.max(REACH, planned);
    curve.slot.ask(JSON.stringify([query, run.version, run.complete, width]), async () => {
      const found = await this.source.map({
        ...query,
        from: Math.max(model.extent.from, from - reach),
        to: to + reach,
        bins: Math.max(64, width) + 2 * REACH,
        stats: ["extreme", "min", "mean", "max"],
      });
      return { ...found, planned };
    });
    const map = curve.slot.value;
    if (map !== undefined && width >= 120) {
      curve.chart.update({
        map,
        lines: [{ row: 0, colour: COLOURS[place % COLOURS.length]! }],
        log: series.log,
        from,
        to,
        width,
        marks: marksOf({ run, model, ...shown }, scene),
      });
    }
    const who = `${named ? `${run.run} · ` : ""}${series.rows[row]!.name}`;
    const zeros = curve.chart.hasZeros ? " · bars at the bottom: exactly 0" : "";
    setText(curve.title, `${who} · ${titleOf(series)}${zeros}`);
  }

  private add(series: Series): Curve {
    const host = h("div", { class: "chart" });
    const title = h("h3", {});
    const card = h("div", { class: "panel curve", "data-series": series.name }, title, host);
    const chart = new LineChart(host, {
      height: 130,
      gutter: () => 54,
      steps: true,
      zoomed: (from, to) => this.change({ window: from < to ? { from, to } : null }),
      picked: (step) => this.change({ step }),
    });
    const curve = { card, title, chart, slot: new Slot<BinMap>(this.changed) };
    this.curves.set(series.name, curve);
    this.element.append(card);
    return curve;
  }

  destroy(): void {
    for (const { chart } of this.curves.values()) chart.destroy();
    this.element.remove();
  }
}
