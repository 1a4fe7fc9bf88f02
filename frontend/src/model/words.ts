// What things are called, and which map shows what a finding is about.
import type { Finding, Run, Series } from "../data/types";

/** Names of series, in the order in which they are offered. */
const TITLES: Readonly<Record<string, string>> = {
  grad_norm: "Gradient norm",
  flow: "Error signal",
  gain: "Gain",
  update_ratio: "Update ratio",
  weight_norm: "Weight norm",
  zeros: "Zero outputs",
  saturated: "Saturated outputs",
};

export const TIME_PROFILE = "time_profile:";

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Returns words as a sentence, unless they begin with the name of a file. */
export function sentence(text: string): string {
  return /^[\w-]+\.\w/.test(text) ? text : capital(text);
}

export function titleOf({ name, title }: Pick<Series, "name" | "title">): string {
  return TITLES[name] ?? capital(title);
}

/** Returns the series that are maps, the usual ones first. */
export function mapsOf(series: readonly Series[]): Series[] {
  const order = Object.keys(TITLES);
  const place = ({ name }: Series): number => {
    const known = order.indexOf(name);
    return known < 0 ? order.length : known;
  };
  return series.filter(({ name }) => name !== "strips").sort((a, b) => place(a) - place(b));
}

/** Returns how many steps apart the samples of a series are planned to be; 0 if every step has one. */
export function plannedGap(series: string, { config }: Pick<Run, "config">): number {
  const every = config.flow_every_n_steps;
  const isSampled = series !== "grad_norm" && series !== "strips";
  return isSampled && typeof every === "number" ? every : 0;
}

/** Returns the series that shows best what a finding says. */
export function seriesFor(finding: Finding, run: Run): Series | undefined {
  const wanted: string[] = [];
  if (finding.evidence.time_steps !== undefined) {
    wanted.push(...finding.layers.map((layer) => TIME_PROFILE + layer));
  }
  if (finding.code === "dead_units") wanted.push("zeros");
  if (finding.code === "saturated") wanted.push("saturated");
  if (finding.code === "stalled") wanted.push("update_ratio");
  for (const name of [...wanted, "grad_norm"]) {
    const series = run.series.find((one) => one.name === name);
    if (series !== undefined && rowsFor(finding, series, run).size > 0) return series;
  }
  return run.series.find(({ name }) => name === "grad_norm");
}

/** Returns the names of the rows that a finding is about; none if it is about the whole model. */
export function rowsFor(finding: Finding, series: Series, run: Run): ReadonlySet<string> {
  // Activations have no parameters: the finding lists the layer that feeds them, and names them in words.
  if (series.name === "zeros" || series.name === "saturated") {
    const words = new Set(finding.summary.split(/[^\w.-]+/).map((word) => word.replace(/\.$/, "")));
    const named = series.rows.filter(({ name }) => words.has(name));
    if (named.length > 0) return new Set(named.map(({ name }) => name));
  }
  const about = new Set(finding.layers);
  const rows = series.rows.filter(({ name, layer }) => {
    return about.has(name) || (layer !== null && about.has(run.layers[layer]?.name ?? ""));
  });
  return new Set(rows.map(({ name }) => name));
}
