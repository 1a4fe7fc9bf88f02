// The keyboard: a key and a state give the next state. No page is needed to test it.
import type { Side, ViewState, Window } from "./state";

/** Where a finding is seen: in which map, from which step on, in which row first. */
export interface Place {
  readonly series: string;
  readonly step: number;
  readonly layer: string | null;
}

/** What the keys move in. */
export interface Surroundings {
  /** First and last recorded step. */
  readonly first: number;
  readonly last: number;
  /** Names of the rows from top to bottom. */
  readonly rows: readonly string[];
  /** Where each finding is seen, in the order of the diagnosis. */
  readonly findings: readonly Place[];
}

export const HELP: readonly (readonly [string, string])[] = [
  ["← →", "step back and forward; with Shift a tenth of the window"],
  ["↑ ↓", "layer above and below"],
  ["Home End", "first and last step"],
  ["+ −", "zoom in and out around the pinned step"],
  ["[ ]", "move the window left and right"],
  ["0", "show the whole run"],
  ["n p", "next and previous finding"],
  ["Space", "play and pause"],
  ["Esc", "unpin: follow the last step"],
];

/** Least number of steps that a window holds. */
export const LEAST_WINDOW = 8;

/** Returns the state after a key; null if the key means nothing here. */
export function pressKey(
  key: string,
  shift: boolean,
  state: ViewState,
  around: Surroundings,
): ViewState | null {
  const shown = state.window ?? { from: around.first, to: around.last };
  const step = state.step ?? around.last;
  const stride = shift ? Math.max(1, Math.round((shown.to - shown.from) / 10)) : 1;
  switch (key) {
    case "ArrowLeft":
      return pin(state, around, step - stride);
    case "ArrowRight":
      return pin(state, around, step + stride);
    case "Home":
      return pin(state, around, around.first);
    case "End":
      return pin(state, around, around.last);
    case "ArrowUp":
      return chooseRow(state, around, -1);
    case "ArrowDown":
      return chooseRow(state, around, 1);
    case "+":
    case "=":
      return { ...state, window: zoom(shown, around, step, 0.5) };
    case "-":
    case "_":
      return { ...state, window: zoom(shown, around, step, 2) };
    case "[":
      return { ...state, window: state.window && pan(shown, around, -(shown.to - shown.from) / 4) };
    case "]":
      return { ...state, window: state.window && pan(shown, around, (shown.to - shown.from) / 4) };
    case "0":
      return { ...state, window: null };
    case "n":
      return chooseFinding(state, around, 1);
    case "p":
      return chooseFinding(state, around, -1);
    case "Escape":
      return { ...state, step: null, finding: null };
    default:
      return null;
  }
}

function pin(state: ViewState, around: Surroundings, wanted: number): ViewState {
  const step = Math.min(around.last, Math.max(around.first, wanted));
  return { ...state, step, window: follow(state.window, around, step) };
}

function chooseRow(state: ViewState, around: Surroundings, by: number): ViewState {
  if (around.rows.length === 0) return state;
  const place = state.layer === null ? -1 : around.rows.indexOf(state.layer);
  const next = place < 0 ? (by > 0 ? 0 : around.rows.length - 1) : place + by;
  return { ...state, layer: around.rows[Math.min(around.rows.length - 1, Math.max(0, next))]! };
}

function chooseFinding(state: ViewState, around: Surroundings, by: number): ViewState {
  const count = around.findings.length;
  if (count === 0) return state;
  const now = state.of === "run" ? state.finding : null;
  const next = now === null ? (by > 0 ? 0 : count - 1) : (now + by + count) % count;
  return showFinding(state, around, next);
}

/** Returns the state that shows where a finding is: its first step pinned, its first layer chosen. */
export function showFinding(
  state: ViewState,
  around: Surroundings,
  index: number,
  side: Side = "run",
): ViewState {
  const finding = around.findings[index];
  if (finding === undefined) return state;
  const pinned = pin(state, around, finding.step);
  const { series, layer } = finding;
  return { ...pinned, finding: index, of: side, series, layer: layer ?? state.layer };
}

/** Moves the window so that it shows a step. */
function follow(window: Window | null, around: Surroundings, step: number): Window | null {
  if (window === null || (step >= window.from && step <= window.to)) return window;
  return pan(window, around, step - (window.from + window.to) / 2);
}

/** Zooms by a factor; the step under the pointer stays where it is. Null is the whole run. */
export function zoom(
  window: Window,
  around: Pick<Surroundings, "first" | "last">,
  at: number,
  factor: number,
): Window | null {
  const span = window.to - window.from;
  const next = Math.max(LEAST_WINDOW, Math.round(span * factor));
  if (next >= around.last - around.first) return null;
  const inside = Math.min(window.to, Math.max(window.from, at));
  const from = Math.round(inside - ((inside - window.from) / Math.max(1, span)) * next);
  return pan({ from, to: from + next }, around, 0);
}

/** Moves a window, but not out of the run. */
export function pan(
  window: Window,
  around: Pick<Surroundings, "first" | "last">,
  by: number,
): Window {
  const span = window.to - window.from;
  const latest = Math.max(around.first, around.last - span);
  const from = Math.min(latest, Math.max(around.first, Math.round(window.from + by)));
  return { from, to: from + span };
}
