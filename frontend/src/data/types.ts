// What the source of data answers; API.md says what each field means.

/** A number as JSON carries it: null is none, a string is NaN or an infinity. */
export type JsonNumber = number | string | null;

export interface RunEntry {
  readonly run: string;
  readonly version: string;
  /** Whether something was written a moment ago. */
  readonly writing: boolean;
  readonly path: string;
}

export interface Runs {
  readonly format: number;
  readonly logdir: string;
  readonly runs: readonly RunEntry[];
  readonly problems: readonly string[];
}

export type Severity = "INFO" | "WARNING" | "ERROR";

export interface Finding {
  readonly code: string;
  readonly title: string;
  readonly severity: Severity;
  readonly where: string;
  readonly layers: readonly string[];
  readonly first_step: number;
  readonly last_step: number;
  readonly count: number;
  readonly evidence: Readonly<Record<string, JsonNumber>>;
  readonly summary: string;
  readonly cause: string;
  readonly remedies: readonly string[];
}

export interface Action {
  readonly action: string;
  readonly count: number;
  readonly first_step: number;
  readonly last_step: number;
  readonly reason: string;
  readonly text: string;
  /** First step, last step, how often. */
  readonly spans: readonly (readonly [number, number, number])[];
}

export interface Layer {
  readonly name: string;
  readonly kind: string;
  readonly parameters: readonly string[];
  readonly elements: number;
  readonly median: JsonNumber;
  readonly low: JsonNumber;
  readonly high: JsonNumber;
  readonly max: JsonNumber;
  readonly nonfinite: number;
  readonly update_ratio: JsonNumber;
  readonly weight_norm: JsonNumber;
  readonly findings: readonly number[];
}

export interface Row {
  readonly name: string;
  readonly kind: string;
  readonly layer: number | null;
  readonly median: JsonNumber;
  readonly log?: boolean;
}

export interface Series {
  readonly name: string;
  readonly title: string;
  readonly columns: number;
  readonly log: boolean;
  readonly rows: readonly Row[];
  readonly low: JsonNumber;
  readonly high: JsonNumber;
}

export interface Run {
  readonly format: number;
  readonly run: string;
  readonly version: string;
  readonly steps: number;
  /** Null in a run without steps. */
  readonly first_step: number | null;
  readonly last_step: number | null;
  readonly epochs: number;
  readonly parameters: number;
  readonly elements: number;
  readonly complete: boolean;
  readonly writing: boolean;
  readonly problems: readonly string[];
  readonly verdict: string;
  readonly healthy: boolean;
  readonly scope: string;
  readonly findings: readonly Finding[];
  readonly actions: readonly Action[];
  readonly layers: readonly Layer[];
  readonly series: readonly Series[];
  readonly segments: readonly Segment[];
  readonly config: Readonly<Record<string, unknown>>;
  readonly environment: Readonly<Record<string, string>>;
}

export interface Segment {
  readonly number: number;
  readonly started: string;
  /** Null in a segment without steps. */
  readonly first_step: number | null;
  readonly steps: number;
  readonly layers: number;
  readonly problem: string;
}

export type Stat = "extreme" | "min" | "mean" | "max" | "nonfinite";

export interface MapQuery {
  readonly run: string;
  readonly series: string;
  readonly from?: number;
  readonly to?: number;
  readonly bins: number;
  readonly stats: readonly Stat[];
  readonly rows?: readonly number[];
}

/** A series in bins. A plane is row-major: `rows` rows of `bins` values. */
export interface BinMap {
  /** Steps between two samples as the run has planned them; 0 or none if it samples every step. */
  readonly planned?: number;
  readonly version: string;
  readonly complete: boolean;
  readonly width: number;
  readonly rows: number;
  readonly bins: number;
  readonly first: readonly number[];
  readonly last: readonly number[];
  readonly columns: readonly number[];
  readonly planes: Readonly<Partial<Record<Stat, Float32Array>>>;
}

export interface StepSeries {
  readonly step: number;
  readonly values: readonly JsonNumber[] | null;
  /** Rows whose value is of an earlier step than the others, since optimizers take turns. */
  readonly earlier?: Readonly<Record<string, number>>;
}

export interface StepAction {
  readonly action: string;
  readonly step: number;
  readonly reason: string;
  readonly before: JsonNumber;
  readonly after: JsonNumber;
}

export interface StepParameter {
  readonly name: string;
  readonly grad_norm: JsonNumber;
  readonly elements: number;
}

/** One step, exact unless it says otherwise. */
export interface Step {
  readonly format: number;
  readonly step: number;
  readonly exact: boolean;
  readonly epoch: number | null;
  readonly batch_idx: number | null;
  readonly loss: JsonNumber;
  readonly lr: JsonNumber;
  readonly global_norm: JsonNumber;
  readonly clipped_norm: JsonNumber;
  readonly amp_overflow: boolean;
  readonly series: Readonly<Record<string, StepSeries>>;
  readonly actions: readonly StepAction[];
  readonly parameters?: readonly StepParameter[];
}

/** Where the view gets everything from: TensorBoard's server, or the file it stands in. */
export interface Source {
  /** Whether more may come. */
  readonly live: boolean;
  runs(): Promise<Runs>;
  run(run: string): Promise<Run>;
  map(query: MapQuery): Promise<BinMap>;
  step(run: string, step: number, layer?: number): Promise<Step>;
}

/** Stands in a plane for "there is no gradient", where -Infinity is "nothing measured". */
export const NO_GRADIENT = Math.fround(-3.4028234663852886e38);

/** Reads a JSON number; NaN if there is none. */
export function toNumber(value: JsonNumber | undefined): number {
  if (value === null || value === undefined) return Number.NaN;
  return value === "none" ? NO_GRADIENT : Number(value);
}

/** Whether it is a number that was measured: not NaN, not Inf, and not one of those that stand for nothing. */
export function isNumber(value: number): boolean {
  return Number.isFinite(value) && value !== NO_GRADIENT;
}
