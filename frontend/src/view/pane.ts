// One run: its heat map, the marks above it, the strips below it.
import { formatStep } from "../model/numbers";
import { glyphOf, lineRanges } from "../model/markers";
import { pan, zoom } from "../model/keys";
import { rowsFor, TIME_PROFILE, titleOf } from "../model/words";
import { h, setAttribute, setText } from "./dom";
import { HeatMap } from "./heatmap";
import { Legend } from "./legend";
import { RIGHT } from "./linechart";
import { Marks } from "./marks";
import { type Change, type Scene, type Shown } from "./shown";
import { Strips } from "./strips";
import { tipText } from "./tip";

/** Height of the map: of a row, at least, at most. */
const ROW = 30;
const LEAST = 180;
const MOST = 420;

export class Pane {
  readonly element = h("section", { class: "panel pane" });
  private readonly title = h("h2", {});
  private readonly subtitle = h("p", { class: "subtitle" });
  private readonly legend = new Legend();
  private readonly marks: Marks;
  private readonly heat = new HeatMap();
  private readonly tip = h("div", { class: "tip", hidden: true });
  private readonly strips: Strips;
  private shown: Shown | undefined;
  private scene: Scene | undefined;
  private hover: { x: number; y: number } | null = null;
  private drag: { x: number; pan: boolean } | null = null;

  constructor(
    private readonly change: Change,
    chosen: (kind: "finding" | "action", index: number, step: number) => void,
  ) {
    this.marks = new Marks(chosen);
    this.strips = new Strips(change, () => this.gutter);
    const head = h("header", {}, h("div", {}, this.title, this.subtitle), this.legend.element);
    const frame = h("div", { class: "frame" }, this.heat.element, this.tip);
    this.element.append(head, this.marks.element, frame, this.strips.element);
    this.listen(this.heat.element);
  }

  private get gutter(): number {
    return this.scene?.narrow === true ? 92 : 148;
  }

  /** Room for the picture, in pixels; what data is asked for by. */
  get plotWidth(): number {
    return Math.max(0, this.width - this.gutter - RIGHT);
  }

  private get width(): number {
    return Math.floor(this.marks.element.clientWidth);
  }

  /** Height of the map, which the depth profile next to it shares. */
  static height(lines: number): number {
    return Math.min(MOST, Math.max(LEAST, lines * ROW));
  }

  update(shown: Shown, scene: Scene, named: boolean): void {
    this.shown = shown;
    this.scene = scene;
    const { run, series, model, arrangement, medians } = shown;
    setText(this.title, named ? run.run : `${titleOf(series)} by ${rowWord(series.name)} and step`);
    setText(this.subtitle, this.describe());
    const map = model.map.value;
    const width = this.width;
    if (map !== undefined && width > this.gutter && model.mapSeries === series.name) {
      this.heat.update({
        map,
        rows: series.rows,
        medians,
        arrangement,
        scale: scene.scale,
        colours: scene.state.colours,
        theme: scene.theme,
        ...scene.window,
        width,
        height: Pane.height(series.rows.length),
        gutter: this.gutter,
        chosen: scene.state.layer,
      });
      this.legend.update(shown, scene, this.heat.seen);
      this.drawOverlay();
      this.marks.update(shown, scene, width, (step) => this.heat.xOf(step));
    }
    this.heat.element.classList.toggle("loading", model.mapSeries !== series.name);
    this.strips.update(shown, scene, width);
    setAttribute(
      this.heat.element,
      "aria-label",
      `${titleOf(series)} of ${series.rows.length} rows at steps ${formatStep(scene.window.from)} to ` +
        `${formatStep(scene.window.to)}. Arrow keys move the pinned step and the chosen layer, ` +
        "plus and minus zoom, question mark lists all keys.",
    );
  }

  private describe(): string {
    const { series, model } = this.shown!;
    const { scale } = this.scene!;
    const width = model.mapSeries === series.name ? (model.map.value?.width ?? 1) : 1;
    const unit = series.log ? "log₁₀" : "linear";
    const measure = scale.relative ? `${unit}, against each row’s own median` : unit;
    const isSampled = series.name !== "grad_norm";
    const what = isSampled ? "sample" : "step";
    const sampled = isSampled ? `, ${counted(series.columns, what)}` : "";
    const bins =
      width === 1
        ? `every ${what} is drawn`
        : `${counted(width, what)} per column, the one farthest from the row’s median`;
    return `${measure}${sampled} · ${bins}`;
  }

  private drawOverlay(): void {
    const { lines, run, series } = this.shown!;
    const { state, step } = this.scene!;
    const chosen = this.shown!.finding;
    const finding = chosen === null ? undefined : run.findings[chosen];
    const line = state.layer === null ? -1 : lines.indexOf(state.layer);
    const hover = this.hover;
    this.heat.drawOverlay({
      step,
      line: line < 0 ? null : line,
      finding:
        finding === undefined
          ? null
          : {
              lines:
                finding.layers.length === 0
                  ? [[0, lines.length]]
                  : lineRanges(rowsFor(finding, series, run), lines),
              from: finding.first_step,
              to: finding.last_step + 1,
              colour: glyphOf(finding.code).colour,
            },
      hover:
        hover === null || this.drag !== null
          ? null
          : { x: hover.x, line: this.heat.lineAt(hover.y) },
      brush:
        this.drag === null || this.drag.pan || hover === null
          ? null
          : [Math.min(this.drag.x, hover.x), Math.max(this.drag.x, hover.x)],
    });
    this.showTip();
  }

  private showTip(): void {
    const hover = this.hover;
    const map = this.shown?.model.map.value;
    this.tip.hidden = hover === null || this.drag !== null || map === undefined;
    if (hover === null || map === undefined || this.tip.hidden) return;
    const { arrangement, series } = this.shown!;
    const line = this.heat.lineAt(hover.y);
    const step = this.heat.stepAt(hover.x);
    const row = arrangement.order[line] ?? 0;
    setText(this.tip, tipText(series, map, row, step));
    const flip = hover.x > this.width / 2;
    this.tip.style.left = flip ? "" : `${hover.x + 14}px`;
    this.tip.style.right = flip ? `${this.width - hover.x + 14}px` : "";
    this.tip.style.top = `${hover.y + 14}px`;
  }

  private listen(element: HTMLElement): void {
    setAttribute(element, "tabindex", "0");
    setAttribute(element, "role", "application");
    setAttribute(element, "aria-roledescription", "heat map");
    const place = (event: PointerEvent | WheelEvent | MouseEvent): { x: number; y: number } => {
      const box = element.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    const ready = (): boolean =>
      this.shown?.model.map.value !== undefined && this.scene !== undefined;
    element.addEventListener("pointermove", (event) => {
      if (!ready()) return;
      const next = place(event);
      if (this.drag?.pan === true && this.hover !== null) {
        const { window, extent, state } = this.scene!;
        const by = ((this.hover.x - next.x) / this.plotWidth) * (window.to - window.from + 1);
        if (Math.abs(by) >= 1 && state.window !== null) {
          this.hover = next;
          this.change({ window: pan(window, { first: extent.from, last: extent.to }, by) });
        }
        return;
      }
      this.hover = next;
      this.drawOverlay();
    });
    element.addEventListener("pointerleave", () => {
      if (this.drag !== null) return;
      this.hover = null;
      if (ready()) this.drawOverlay();
    });
    element.addEventListener("pointerdown", (event) => {
      if (!ready() || event.button > 1) return;
      this.drag = { x: place(event).x, pan: event.shiftKey || event.button === 1 };
      this.hover = place(event);
      element.setPointerCapture(event.pointerId);
    });
    element.addEventListener("pointerup", (event) => {
      const drag = this.drag;
      this.drag = null;
      if (drag === null || !ready() || drag.pan) return;
      const { x, y } = place(event);
      if (Math.abs(x - drag.x) < 5) {
        const name = this.shown!.lines[this.heat.lineAt(y)] ?? null;
        this.change({ step: this.heat.stepAt(x), layer: name });
        return;
      }
      const [from, to] = [
        this.heat.stepAt(Math.min(x, drag.x)),
        this.heat.stepAt(Math.max(x, drag.x)),
      ];
      if (to > from) this.change({ window: { from, to } });
    });
    element.addEventListener("pointercancel", () => {
      this.drag = null;
    });
    element.addEventListener("dblclick", () => this.change({ window: null }));
    element.addEventListener(
      "wheel",
      (event) => {
        // Without the key the page scrolls, as it does everywhere.
        if (!ready() || !(event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        const { window, extent } = this.scene!;
        const at = this.heat.stepAt(place(event).x);
        const around = { first: extent.from, last: extent.to };
        this.change({ window: zoom(window, around, at, event.deltaY > 0 ? 1.25 : 0.8) });
      },
      { passive: false },
    );
  }

  /** Brings the map into view and puts the keyboard there. */
  show(): void {
    this.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
    this.heat.element.focus({ preventScroll: true });
  }

  destroy(): void {
    this.strips.destroy();
    this.element.remove();
  }
}

function counted(count: number, what: string): string {
  return `${formatStep(count)} ${what}${count === 1 ? "" : "s"}`;
}

function rowWord(series: string): string {
  return series.startsWith(TIME_PROFILE) ? "time step" : "layer";
}
