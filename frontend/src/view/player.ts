// The step slider, and play.
import { formatStep } from "../model/numbers";
import { h, setAttribute, setText } from "./dom";
import type { Change, Scene } from "./shown";

/** Milliseconds between two pictures, and how many of them a run takes. */
const TICK = 80;
const TICKS = 160;

export class Player {
  readonly element: HTMLElement;
  private readonly button = h(
    "button",
    { type: "button", class: "play", "aria-label": "Play" },
    "▶",
  );
  private readonly slider = h("input", { type: "range", "aria-label": "Step", step: 1 });
  private readonly label = h("input", {
    type: "text",
    inputmode: "numeric",
    class: "step",
    "aria-label": "Pinned step",
  });
  private readonly follow = h("button", { type: "button", class: "follow" }, "last");
  private timer: ReturnType<typeof setInterval> | undefined;
  private scene: Scene | undefined;

  constructor(private readonly change: Change) {
    this.element = h("div", { class: "player" }, this.button, this.slider, this.label, this.follow);
    this.button.addEventListener("click", () => this.toggle());
    this.slider.addEventListener("input", () => change({ step: Number(this.slider.value) }));
    this.label.addEventListener("change", () => {
      const step = Number(this.label.value.replace(/\D/g, ""));
      const { from, to } = this.scene!.extent;
      if (this.label.value !== "") change({ step: Math.min(to, Math.max(from, step)) });
    });
    this.follow.addEventListener("click", () => change({ step: null }));
  }

  update(scene: Scene): void {
    this.scene = scene;
    setAttribute(this.slider, "min", String(scene.window.from));
    setAttribute(this.slider, "max", String(scene.window.to));
    // A slider that is being moved knows better where it is.
    if (Number(this.slider.value) !== scene.step) this.slider.value = String(scene.step);
    setAttribute(this.slider, "aria-valuetext", `step ${formatStep(scene.step)}`);
    if (document.activeElement !== this.label) this.label.value = formatStep(scene.step);
    setAttribute(this.follow, "aria-pressed", String(scene.state.step === null));
  }

  toggle(): void {
    if (this.timer === undefined) this.play();
    else this.stop();
  }

  private play(): void {
    const { window, step } = this.scene!;
    if (step >= window.to || step < window.from) this.change({ step: window.from });
    this.timer = setInterval(() => this.tick(), TICK);
    this.show("Pause", "❚❚");
  }

  private tick(): void {
    const { window, step } = this.scene!;
    const next = step + Math.max(1, Math.round((window.to - window.from) / TICKS));
    if (next >= window.to) this.stop();
    this.change({ step: Math.min(window.to, next) });
  }

  private stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.show("Play", "▶");
  }

  private show(name: string, sign: string): void {
    setAttribute(this.button, "aria-label", name);
    setText(this.button, sign);
  }
}
