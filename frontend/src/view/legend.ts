// The colour scale with its ends in words.
import { colourAt, EXCEPTIONS } from "../colour/maps";
import { css } from "../colour/oklab";
import { formatPower, powerTicks } from "../model/numbers";
import { fill, h } from "./dom";
import type { Scene, Shown } from "./shown";

const SWATCHES = 48;

export class Legend {
  readonly element = h("div", { class: "legend" });

  update({ series }: Shown, { scale, state, theme }: Scene): void {
    const key = JSON.stringify([scale, state.colours, theme, series.name]);
    fill(this.element, key, () => {
      const start = scale.low === scale.middle ? 0 : -1;
      const at = (i: number): string =>
        css(colourAt(state.colours, theme, start + ((1 - start) * i) / SWATCHES));
      const stops = Array.from({ length: SWATCHES + 1 }, (_, i) => at(i)).join(", ");
      const bar = h("div", { class: "bar", style: `background: linear-gradient(90deg, ${stops})` });
      const place = (value: number): number => {
        const arm = value < scale.middle ? scale.middle - scale.low : scale.high - scale.middle;
        return ((value - scale.middle) / arm - start) / (1 - start);
      };
      for (const [value, text] of this.ticks(scale)) {
        bar.append(h("span", { style: `left: ${(100 * place(value)).toFixed(2)}%` }, text));
      }
      const [low, high] = ends(series.name, scale.relative);
      const { nan, inf } = EXCEPTIONS[theme];
      const swatch = (text: string, colour: string): HTMLElement =>
        h("span", { class: "swatch" }, h("i", { style: `background-color: ${colour}` }), text);
      return [
        h("span", { class: "end" }, low),
        bar,
        h("span", { class: "end" }, high),
        swatch("NaN", css(nan)),
        swatch("Inf", css(inf)),
      ];
    });
  }

  private ticks(scale: Scene["scale"]): (readonly [number, string])[] {
    if (!scale.log) {
      return scale.relative
        ? [
            [-1, "−1"],
            [0, "median"],
            [1, "+1"],
          ]
        : [
            [0, "0"],
            [0.5, "½"],
            [1, "1"],
          ];
    }
    if (scale.relative)
      return [
        [-2, "÷100"],
        [-1, "÷10"],
        [0, "median"],
        [1, "×10"],
        [2, "×100"],
      ];
    return powerTicks(scale.low, scale.high, 6).map((power) => [power, formatPower(power)]);
  }
}

function ends(series: string, relative: boolean): readonly [string, string] {
  if (relative) return ["below", "above"];
  if (series === "update_ratio") return ["standing still", "too far"];
  if (series === "weight_norm") return ["small", "large"];
  if (series === "zeros" || series === "saturated") return ["none", "all"];
  return ["vanishing", "exploding"];
}
