// Exact values at the pinned step: of the whole step, and of the chosen layer and its parameters.
import { toNumber, type JsonNumber, type Layer, type Step } from "../data/types";
import { formatNumber, formatStep } from "../model/numbers";
import { mapsOf, TIME_PROFILE, titleOf } from "../model/words";
import { fill, h } from "./dom";
import type { Scene, Shown } from "./shown";

type Entry = readonly [string, string, string?];

export class Detail {
  readonly element = h("div", { class: "detail" });

  update(shown: Shown, { state }: Scene): void {
    const step = shown.model.step.value;
    const name = shown.model.layerName(state);
    const layer = shown.run.layers.find((one) => one.name === name);
    const failed = shown.model.step.error;
    fill(this.element, JSON.stringify([step, layer, state.layer, failed]), () => [
      ...(failed === "" ? [] : [h("p", { class: "problem" }, failed)]),
      ...(step === undefined ? [] : stepTable(step)),
      ...(state.layer === null || step === undefined
        ? [
            h(
              "p",
              { class: "hint" },
              "Click a row of the map to see the layer’s exact values and curves.",
            ),
          ]
        : layerTable(shown, state.layer, layer, step)),
    ]);
  }
}

function stepTable(step: Step): HTMLElement[] {
  const entries: Entry[] = [
    ["Loss", show(step.loss)],
    ["Global norm", show(step.global_norm)],
  ];
  const { clipped_norm: clipped } = step;
  if (clipped !== null && !Object.is(toNumber(clipped), toNumber(step.global_norm))) {
    entries.push(["after clipping", show(clipped)]);
  }
  entries.push(["Learning rate", show(step.lr)]);
  if (step.epoch !== null) {
    entries.push(["Epoch, batch", `${formatStep(step.epoch)}, ${formatStep(step.batch_idx ?? 0)}`]);
  }
  if (step.amp_overflow) entries.push(["Gradient scaler", "overflow, step skipped"]);
  for (const { action, before, after } of step.actions) {
    const change = before === null || after === null ? "acted" : `${show(before)} → ${show(after)}`;
    entries.push([action, change]);
  }
  const title = `Step ${formatStep(step.step)}${step.exact ? "" : " (rounded to the bins of this report)"}`;
  return [h("h3", {}, title), table(entries)];
}

function layerTable(
  shown: Shown,
  name: string,
  layer: Layer | undefined,
  step: Step,
): HTMLElement[] {
  const { run } = shown;
  const index = layer === undefined ? -1 : run.layers.indexOf(layer);
  const entries: Entry[] = [];
  for (const one of mapsOf(run.series)) {
    const { name: series, rows } = one;
    const row = rows.findIndex((row) => row.name === name || (index >= 0 && row.layer === index));
    const at = step.series[series];
    if (row < 0 || at === undefined || series.startsWith(TIME_PROFILE)) continue;
    if (rows[row]!.median === null && series !== "grad_norm") continue;
    const of = at.earlier?.[String(row)] ?? at.step;
    const when = of === step.step ? "" : `at ${formatStep(of)}`;
    entries.push([titleOf(one), show(at.values?.[row] ?? null), when]);
  }
  if (layer !== undefined) {
    entries.push(
      ["Median of the run", show(layer.median)],
      ["5 % to 95 %", `${show(layer.low)} – ${show(layer.high)}`],
      ["Largest step", show(layer.max)],
    );
    if (layer.nonfinite > 0) entries.push(["Steps with NaN or Inf", formatStep(layer.nonfinite)]);
    const found = layer.findings.map((place) => run.findings[place]?.title ?? "").join(", ");
    entries.push(["Findings", found === "" ? "none" : found]);
  }
  const parameters: Entry[] = (step.parameters ?? []).map((one) => [
    layer !== undefined && one.name.startsWith(`${layer.name}.`)
      ? one.name.slice(layer.name.length + 1)
      : one.name,
    show(one.grad_norm),
    `${formatStep(one.elements)} elements`,
  ]);
  return [
    h("h3", {}, name, h("span", { class: "kind" }, layer?.kind ?? "")),
    table(entries),
    ...(parameters.length === 0
      ? []
      : [h("h4", {}, "Gradient norm of its parameters"), table(parameters)]),
  ];
}

function table(entries: readonly Entry[]): HTMLElement {
  const list = h("dl", {});
  for (const [name, value, note] of entries) {
    const what = h("dt", {}, name);
    if (note !== undefined && note !== "") what.append(h("small", {}, ` ${note}`));
    list.append(h("div", {}, what, h("dd", {}, value)));
  }
  return list;
}

function show(value: JsonNumber): string {
  return value === null ? "not measured" : formatNumber(toNumber(value));
}
