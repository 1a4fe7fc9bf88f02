// The lanes above the map: a button for each finding and action, and bars for how long they lasted.
import type { Shown, Scene } from "./shown";
import { ACTION, glyphOf, markersOf } from "../model/markers";
import { makeSurface, prepare } from "./canvas";
import { fill, glyph, h, setAttribute, style } from "./dom";

/** Width of a button, and height of a lane, in pixels. */
const BUTTON = 17;
const LANE = 4;
const MOST_LANES = 4;

export class Marks {
  readonly element = h("div", {
    class: "marks",
    role: "group",
    "aria-label": "Findings and actions",
  });
  private readonly buttons = h("div", { class: "buttons" });
  private readonly bars = makeSurface("bars");

  constructor(
    private readonly chosen: (kind: "finding" | "action", index: number, step: number) => void,
  ) {
    this.element.append(this.buttons, this.bars.canvas);
  }

  update(
    { run, finding }: Shown,
    scene: Scene,
    width: number,
    xOf: (step: number) => number,
  ): void {
    const { from, to } = scene.window;
    const marks = markersOf(run.findings, run.actions);
    fill(this.buttons, JSON.stringify(marks), () =>
      marks.map(({ kind, index, first, glyph: shape, text }) => {
        const button = h(
          "button",
          {
            type: "button",
            class: kind,
            "data-step": first,
            "data-index": index,
            title: text,
            "aria-label": text,
          },
          glyph(shape.path, shape.colour),
        );
        button.addEventListener("click", () => this.chosen(kind, index, first));
        return button;
      }),
    );
    let taken = -Infinity;
    marks.forEach((mark, i) => {
      const button = this.buttons.children[i] as HTMLElement;
      // What began before the window and lasts into it stands at its edge.
      const hidden = mark.first > to || mark.last < from;
      button.hidden = hidden;
      const shown = Math.max(from, mark.first);
      const x = (xOf(shown) + xOf(shown + 1)) / 2;
      // What began at the same step stands side by side.
      const left = hidden ? x : Math.max(x, taken + BUTTON);
      if (!hidden) taken = left;
      button.style.left = `${left}px`;
      const isChosen = mark.kind === "finding" && mark.index === finding;
      setAttribute(button, "aria-pressed", String(isChosen));
    });
    this.draw(run, scene, width, xOf);
  }

  private draw(
    run: Shown["run"],
    { window: { from, to } }: Scene,
    width: number,
    xOf: (step: number) => number,
  ): void {
    const lanes: { colour: string; spans: readonly (readonly [number, number])[] }[] = [
      ...run.findings.map((f) => ({
        colour: glyphOf(f.code).colour,
        spans: [[f.first_step, f.last_step]] as const,
      })),
    ].slice(0, MOST_LANES);
    for (const action of run.actions.slice(0, 2)) {
      lanes.push({ colour: ACTION.colour, spans: action.spans.map(([a, b]) => [a, b] as const) });
    }
    prepare(this.bars, width, Math.max(1, lanes.length) * LANE + 2);
    const { context } = this.bars;
    lanes.forEach(({ colour, spans }, lane) => {
      context.fillStyle = style(colour);
      for (const [first, last] of spans) {
        if (first > to || last < from) continue;
        const begin = xOf(Math.max(from, first));
        const end = xOf(Math.min(to, last) + 1);
        context.fillRect(begin, lane * LANE, Math.max(2, end - begin), LANE - 1.5);
      }
    });
  }
}
