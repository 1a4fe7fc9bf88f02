// The colour scale with its ends in words.
import { colourAt, EXCEPTIONS } from "../colour/maps";
import { css, type Rgb } from "../colour/oklab";
import type { Odd } from "../map/pixels";
import { formatPower, powerTicks } from "../model/numbers";
import { fill, h } from "./dom";
import type { Scene, Shown } from "./shown";

const SWATCHES = 48;

export class Legend {
  readonly element = h("div", { class: "legend" });

  /** `seen` is what the picture shows besides numbers: what is not there needs no explanation. */
  update(
    { series }: Shown,
    { scale, state, theme }: Scene,
    seen: Readonly<Record<Odd, boolean>> | undefined,
  ): void {
    const key = JSON.stringify([scale, state.colours, theme, series.name, seen]);
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
      const { nan, inf, zero, none } = EXCEPTIONS[theme];
      const swatch = (text: string, colour: Rgb, pattern: string): HTMLElement => {
        const box = h("i", { class: pattern, style: `background-color: ${css(colour)}` });
        return h("span", { class: "swatch" }, box, text);
      };
      return [
        h("span", { class: "end" }, low),
        bar,
        h("span", { class: "end" }, high),
        swatch("NaN", nan, "hatched"),
        swatch("Inf", inf, "hatched"),
        ...(seen?.zero === true ? [swatch("exactly 0", zero, "dotted")] : []),
        ...(seen?.noGradient === true ? [swatch("no gradient", none, "lined")] : []),
        ...(seen?.nothing === true ? [swatch("not measured", none, "")] : []),
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
