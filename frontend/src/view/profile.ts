// The depth profile: every layer at one step, in the order of the map's rows. uPlot, turned by 90°.
import uPlot from "uplot";
import { isNumber, toNumber } from "../data/types";
import { formatNumber, formatPower, formatStep, powerTicks } from "../model/numbers";
import { TIME_PROFILE } from "../model/words";
import { h, setText, style } from "./dom";
import { Pane } from "./pane";
import type { Scene, Shown } from "./shown";
import { SIGNS, signOf, type Sign } from "./signs";

interface Dots {
  /** What stands at the edge for lines whose value has no place on the scale. */
  readonly signs: readonly (readonly [number, Sign])[];
  readonly now: readonly (number | null)[];
  readonly median: readonly (number | null)[];
  readonly range: readonly (readonly [number, number] | null)[];
}

const AXIS = 26;
/** Most layers that a line connects. */
const LINES = 150;

export class Profile {
  readonly element = h("div", { class: "profile" });
  private readonly title = h("h2", {}, "Depth profile");
  private readonly subtitle = h("p", { class: "subtitle" });
  private readonly host = h("div", { class: "chart" });
  private readonly note = h("p", { class: "note" });
  private plot: uPlot | undefined;
  private shape = "";
  private dots: readonly Dots[] = [];
  private chosen = -1;
  private log = true;

  constructor(private readonly choose: (layer: string) => void) {
    this.element.append(
      h("header", {}, h("div", {}, this.title, this.subtitle)),
      this.host,
      this.note,
    );
  }

  update(shown: readonly Shown[], scene: Scene): void {
    const [first] = shown;
    if (first === undefined) return;
    const { lines, series } = first;
    this.log = series.log;
    this.chosen = scene.state.layer === null ? -1 : lines.indexOf(scene.state.layer);
    this.dots = shown.map((one) => this.dotsOf(one, first));
    setText(
      this.title,
      series.name.startsWith(TIME_PROFILE) ? "Profile over time" : "Depth profile",
    );
    setText(this.subtitle, this.describe(shown, scene));
    const width = Math.floor(this.host.clientWidth);
    if (width < 60) return;
    const height = Pane.height(series.rows.length) + AXIS;
    const x = lines.map((_, line) => line + 0.5);
    const data = [x, ...this.dots.map(({ now }) => now)] as uPlot.AlignedData;
    const shape = JSON.stringify([shown.length, lines.length, this.log]);
    if (this.plot === undefined || shape !== this.shape) {
      this.plot?.destroy();
      this.shape = shape;
      this.plot = new uPlot(this.describePlot(width, height, lines, shown.length), data, this.host);
    } else {
      if (this.plot.width !== width || this.plot.height !== height)
        this.plot.setSize({ width, height });
      this.plot.setData(data, true);
    }
    this.host.onclick = (event) => {
      const over = this.plot!.over.getBoundingClientRect();
      const line = Math.floor(((event.clientY - over.top) / over.height) * lines.length);
      const name = lines[line];
      if (name !== undefined) this.choose(name);
    };
    setText(this.note, this.explain(shown, series.name));
  }

  /** Says what the signs mean that are there. */
  private explain(shown: readonly Shown[], series: string): string {
    const words =
      shown.length > 1
        ? shown.map(({ run }, i) => `${i === 0 ? "●" : "○"} ${run.run}`)
        : [
            "● this step",
            ...(series === "grad_norm" ? ["━ 5 % to 95 % of the run"] : []),
            "┃ median",
          ];
    const there = new Set(this.dots.flatMap(({ signs }) => signs.map(([, sign]) => sign)));
    for (const [sign, about] of Object.entries(SIGNS)) {
      if (there.has(sign as Sign)) words.push(about.words);
    }
    // A line may end between them, but not within.
    return words.map((one) => one.replaceAll(" ", "\u00a0")).join("   ");
  }

  private describe(shown: readonly Shown[], { step, state }: Scene): string {
    const parts = shown.map(({ model, series }) => {
      const at = model.step.value?.series[series.name]?.step;
      if (at === undefined) return "loading";
      const exact = model.step.value?.exact === false ? ", rounded" : "";
      return `${formatStep(at)}${exact}`;
    });
    const same = parts.every((part) => part === parts[0]);
    const where = same ? parts[0]! : parts.join(" and ");
    if (same && shown[0]?.model.step.value?.series[shown[0].series.name]?.step !== step) {
      return `step ${where}, the sample at or before ${formatStep(step)}`;
    }
    return `step ${where}${state.step === null ? " (the last)" : ""}`;
  }

  private dotsOf(one: Shown, first: Shown): Dots {
    const { series, run, model } = one;
    const values = model.step.value?.series[series.name]?.values;
    const place = (value: number): number | null => {
      if (!isNumber(value) || (this.log && value <= 0)) return null;
      return this.log ? Math.log10(value) : value;
    };
    const rows = new Map(series.rows.map((row, index) => [row.name, index]));
    const at = first.lines.map((name) => rows.get(name) ?? -1);
    const numbers = at.map((row) => toNumber(values?.[row]));
    const given = (line: number): boolean => (values?.[at[line]!] ?? null) !== null;
    return {
      signs: numbers.flatMap((value, line) => {
        const sign = given(line) ? signOf(value, this.log) : null;
        return sign === null ? [] : [[line, sign] as const];
      }),
      now: numbers.map(place),
      median: at.map((row) => place(one.medians[row] ?? Number.NaN)),
      range: at.map((row) => {
        const index = series.rows[row]?.layer ?? null;
        const layer = index === null || series.name !== "grad_norm" ? undefined : run.layers[index];
        const [low, high] = [place(toNumber(layer?.low)), place(toNumber(layer?.high))];
        return low === null || high === null ? null : [low, high];
      }),
    };
  }

  private range(): [number, number] {
    const all = this.dots
      .flatMap(({ now, median, range }) => [
        ...now,
        ...median,
        ...range.flatMap((ends) => [...(ends ?? [])]),
      ])
      .filter((value) => value !== null);
    if (!this.log) return [0, 1];
    if (all.length === 0) return [-1, 1];
    // No spread of arguments: there may be ten thousand layers.
    const low = all.reduce((a, b) => Math.min(a, b));
    const high = all.reduce((a, b) => Math.max(a, b));
    const air = Math.max(0.5, 0.06 * (high - low));
    return [low - air, high + air];
  }

  private describePlot(
    width: number,
    height: number,
    lines: readonly string[],
    runs: number,
  ): uPlot.Options {
    const font = "11px system-ui, sans-serif";
    return {
      width,
      height,
      padding: [0, 12, 0, 12],
      legend: { show: false },
      cursor: { show: false },
      scales: {
        x: { time: false, ori: 1, dir: -1, range: () => [0, lines.length] },
        y: { ori: 0, dir: 1, range: () => this.range() },
      },
      axes: [
        { show: false, scale: "x", side: 3 },
        {
          scale: "y",
          side: 0,
          size: AXIS,
          gap: 4,
          font,
          stroke: () => style("--muted"),
          ticks: { show: false },
          grid: { stroke: () => style("--line"), width: 1 },
          splits: (_u, _i, low, high) => (this.log ? [...powerTicks(low, high, 5)] : [0, 0.5, 1]),
          values: (_, splits) => splits.map((v) => (this.log ? formatPower(v) : formatNumber(v))),
        },
      ],
      series: [
        {},
        ...Array.from({ length: runs }, (_, i) => ({
          stroke: () => style(i === 0 ? "--accent" : "--blue"),
          // Between hundreds of dots a line is a tangle.
          width: lines.length > LINES ? 0 : 1,
          spanGaps: true,
          points: { show: false },
        })),
      ],
      hooks: { drawAxes: [(u) => this.drawRanges(u)], draw: [(u) => this.drawDots(u)] },
    };
  }

  /** Range and median of the run, behind everything. */
  private drawRanges(u: uPlot): void {
    if (this.dots.length > 1) return;
    const { ctx } = u;
    const ratio = devicePixelRatio;
    const tall = u.bbox.height / Math.max(1, this.dots[0]?.now.length ?? 1);
    const bar = Math.max(1, Math.min(7 * ratio, tall * 0.45));
    ctx.save();
    this.dots[0]?.range.forEach((ends, line) => {
      const y = u.valToPos(line + 0.5, "x", true);
      if (ends !== null) {
        const [left, right] = [u.valToPos(ends[0], "y", true), u.valToPos(ends[1], "y", true)];
        ctx.fillStyle = style("--range");
        ctx.fillRect(left, y - bar / 2, Math.max(1, right - left), bar);
      }
      const median = this.dots[0]!.median[line];
      if (median !== null && median !== undefined) {
        ctx.fillStyle = style("--muted");
        ctx.fillRect(u.valToPos(median, "y", true) - ratio / 2, y - bar, 1.5 * ratio, 2 * bar);
      }
    });
    ctx.restore();
  }

  private drawDots(u: uPlot): void {
    const { ctx } = u;
    const ratio = devicePixelRatio;
    ctx.save();
    this.dots.forEach(({ now, signs }, run) => {
      const tall = u.bbox.height / Math.max(1, now.length);
      const radius = Math.max(1.5 * ratio, Math.min(4 * ratio, tall * 0.35));
      ctx.textBaseline = "middle";
      ctx.font = `600 ${Math.max(9, Math.min(12, tall / ratio)) * ratio}px system-ui, sans-serif`;
      for (const [line, sign] of signs) {
        const { text, colour, left } = SIGNS[sign];
        ctx.fillStyle = style(colour);
        ctx.textAlign = left ? "left" : "right";
        const x = u.bbox.left + (left ? 0 : u.bbox.width);
        ctx.fillText(text, x, u.valToPos(line + 0.5, "x", true));
      }
      now.forEach((value, line) => {
        if (value === null) return;
        const [x, y] = [u.valToPos(value, "y", true), u.valToPos(line + 0.5, "x", true)];
        ctx.beginPath();
        ctx.arc(x, y, line === this.chosen ? radius + 1.5 * ratio : radius, 0, 2 * Math.PI);
        ctx.fillStyle = run === 0 ? style("--accent") : style("--panel");
        ctx.fill();
        ctx.lineWidth = 1.5 * ratio;
        ctx.strokeStyle = style(
          line === this.chosen ? "--text" : run === 0 ? "--accent" : "--blue",
        );
        ctx.stroke();
      });
    });
    ctx.restore();
  }
}
