// What is said instead of a map, in the corner, and to a screen reader.
import { toNumber, type Run } from "../data/types";
import { formatNumber, formatStep } from "../model/numbers";
import type { ViewState } from "../model/state";
import { mapsOf, sentence, titleOf } from "../model/words";
import type { Shown } from "./shown";

/** How things stand, apart from what is drawn. */
export interface Situation {
  /** Whether an answer has come at all. */
  readonly loaded: boolean;
  /** Why the last look at the list of runs failed; empty if it did not. */
  readonly trouble: string;
  /** What failed or could not be read besides. */
  readonly problems: readonly string[];
  /** Names of all runs. */
  readonly names: readonly string[];
  /** Run that the address asks for. */
  readonly wanted: string | null;
  /** What is known of the runs on the page. */
  readonly runs: readonly Run[];
  readonly live: boolean;
}

export function messagesOf(now: Situation): readonly string[] {
  const texts: string[] = [];
  const { trouble, problems, names, wanted, runs } = now;
  if (now.loaded && trouble === "" && names.length === 0) {
    // The server knows more: which directory it is, for one.
    if (problems.length === 0) {
      texts.push(
        "No run below this log directory has a recording yet. Train with callbacks=[GradWatch()] and " +
          "a logger; this page shows it as soon as the first steps are written.",
      );
    }
  } else if (wanted !== null && names.length > 0 && !names.includes(wanted)) {
    texts.push(`There is no run "${wanted}" here; this is "${names[0]!}".`);
  }
  if (trouble !== "") texts.push(trouble);
  texts.push(...problems.map(sentence));
  for (const { run, steps, series } of runs) {
    if (steps > 0 && mapsOf(series).length === 0) {
      texts.push(`In "${run}" no layer has had a gradient, so there is no map.`);
    }
  }
  return texts;
}

export interface Status {
  readonly text: string;
  readonly level: "live" | "still" | "trouble";
}

export function statusOf({ trouble, loaded, names, runs, live }: Situation): Status {
  const [run] = runs;
  if (trouble !== "") return { text: "not connected", level: "trouble" };
  if (run === undefined) {
    const waiting = loaded && names.length === 0;
    return { text: waiting ? "waiting for a run" : "loading", level: "still" };
  }
  if (run.last_step === null) return { text: "no step yet", level: "still" };
  const step = `step ${formatStep(run.last_step)}`;
  return run.writing && live
    ? { text: `${step} · live`, level: "live" }
    : { text: step, level: "still" };
}

/** What a screen reader says after a change: the same that the eye sees in the map. */
export function spoken({ run, series, finding, model }: Shown, state: ViewState): string {
  const { step, layer } = state;
  const told = finding === null ? undefined : run.findings[finding];
  const row = series.rows.findIndex(({ name }) => name === layer);
  const at = model.step.value;
  // The last step of a run that goes on would be read out again and again.
  const values = step !== null && at?.step === step ? at.series[series.name]?.values : undefined;
  const parts = [
    told === undefined ? "" : `${told.title}, ${told.where}`,
    layer ?? "",
    step === null ? "" : `step ${formatStep(step)}`,
    row < 0 || values === undefined || values === null
      ? ""
      : `${titleOf(series)} ${values[row] === null ? "not measured" : formatNumber(toNumber(values[row]))}`,
  ];
  return parts.filter((part) => part !== "").join(", ");
}
