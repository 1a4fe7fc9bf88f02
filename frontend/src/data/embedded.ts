// The source behind the report: the same answers, carried in the file itself.
import { binAt } from "../map/columns";
import { standingBin } from "../map/turns";
import { checkFormat, decodeMap } from "./binary";
import type {
  BinMap,
  JsonNumber,
  MapQuery,
  Run,
  Runs,
  Source,
  Stat,
  Step,
  StepSeries,
} from "./types";

/** Levels are four times apart: up to so many bins for each one wanted are better than too few. */
const ROOM = 2;

/** What stands in the report's `#gradwatch-data`. */
export interface Embedded {
  readonly format: number;
  readonly runs: Runs;
  readonly run: Readonly<Record<string, Run>>;
  readonly maps: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
  readonly steps: Readonly<Record<string, readonly Step[]>>;
}

export class EmbeddedSource implements Source {
  readonly live = false;
  private readonly decoded = new Map<string, Promise<readonly BinMap[]>>();

  constructor(private readonly data: Embedded) {
    checkFormat(data.format);
  }

  runs(): Promise<Runs> {
    return Promise.resolve(this.data.runs);
  }

  run(run: string): Promise<Run> {
    const found = this.data.run[run];
    if (found === undefined) return Promise.reject(new Error(`This report has no run "${run}".`));
    return Promise.resolve(found);
  }

  async map(query: MapQuery): Promise<BinMap> {
    const levels = await this.levels(query.run, query.series);
    const from = query.from ?? -Infinity;
    const to = query.to ?? Infinity;
    const windows = levels.map((level) => ({ level, range: overlap(level, from, to) }));
    const fit =
      windows.find(({ range }) => range[1] - range[0] <= ROOM * query.bins) ?? windows.at(-1);
    if (fit === undefined) throw new Error(`This report has no series "${query.series}".`);
    return cut(fit.level, fit.range, query.stats, query.rows);
  }

  async step(run: string, step: number, layer?: number): Promise<Step> {
    const about = await this.run(run);
    const exact = this.data.steps[run]?.find((entry) => entry.step === step);
    const found = exact ?? (await this.fromMaps(about, step));
    const name = layer === undefined ? undefined : about.layers[layer]?.name;
    if (name === undefined || found.parameters === undefined) return found;
    const parameters = found.parameters.filter((p) => p.name.startsWith(`${name}.`));
    return { ...found, parameters };
  }

  /** Puts a step together from the finest map of each series. */
  private async fromMaps(run: Run, step: number): Promise<Step> {
    const series: Record<string, StepSeries> = {};
    const scalars = new Map<string, number>();
    let exact = true;
    let at = step;
    for (const { name, rows } of run.series) {
      const finest = (await this.levels(run.run, name))[0];
      const plane = finest?.planes.extreme;
      if (finest === undefined || plane === undefined || finest.bins === 0) continue;
      const bin = binAt(finest.first, step);
      const bins = rows.map((_, row) => standingBin(finest, row, bin) ?? bin);
      const values = bins.map((of, row) => plane[row * finest.bins + of]!);
      if (name === "strips") {
        rows.forEach((row, i) => scalars.set(row.name, values[i]!));
        at = finest.width === 1 ? finest.first[bin]! : step;
      } else {
        const earlier = bins.flatMap((of, row) => (of < bin ? [[row, finest.first[of]!]] : []));
        series[name] = {
          step: finest.first[bin]!,
          values: values.map(asJson),
          earlier: Object.fromEntries(earlier) as Record<string, number>,
        };
      }
      exact &&= finest.width === 1;
    }
    const scalar = (name: string): JsonNumber => asJson(scalars.get(name) ?? -Infinity);
    return {
      format: this.data.format,
      step: at,
      exact,
      epoch: null,
      batch_idx: null,
      loss: scalar("loss"),
      lr: scalar("lr"),
      global_norm: scalar("global_norm"),
      clipped_norm: scalar("clipped_norm"),
      amp_overflow: false,
      series,
      actions: [],
    };
  }

  private levels(run: string, series: string): Promise<readonly BinMap[]> {
    const key = `${run}\n${series}`;
    let levels = this.decoded.get(key);
    if (levels === undefined) {
      levels = Promise.all((this.data.maps[run]?.[series] ?? []).map(unpack));
      this.decoded.set(key, levels);
    }
    return levels;
  }
}

async function unpack(text: string): Promise<BinMap> {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return decodeMap(await new Response(stream).arrayBuffer());
}

/** In the planes -Infinity stands for nothing measured; in JSON null does. */
function asJson(value: number): JsonNumber {
  return value === -Infinity ? null : value;
}

/** Returns the bins that overlap a window, from inclusive to exclusive. */
export function overlap(map: BinMap, from: number, to: number): readonly [number, number] {
  let start = 0;
  while (start < map.bins && map.last[start]! < from) start++;
  let end = start;
  while (end < map.bins && map.first[end]! <= to) end++;
  return [start, end];
}

/** Cuts a window and some rows out of a map. */
export function cut(
  map: BinMap,
  [start, end]: readonly [number, number],
  stats: readonly Stat[],
  rows?: readonly number[],
): BinMap {
  const chosen = rows ?? Array.from({ length: map.rows }, (_, row) => row);
  const bins = end - start;
  const planes: Partial<Record<Stat, Float32Array>> = {};
  for (const stat of stats) {
    // With one step in each bin, all of them are the value itself.
    const plane = map.planes[stat] ?? map.planes.extreme;
    if (plane === undefined) continue;
    const part = new Float32Array(chosen.length * bins);
    chosen.forEach((row, i) => {
      part.set(plane.subarray(row * map.bins + start, row * map.bins + end), i * bins);
    });
    planes[stat] = part;
  }
  return {
    ...map,
    rows: chosen.length,
    bins,
    first: map.first.slice(start, end),
    last: map.last.slice(start, end),
    columns: map.columns.slice(start, end),
    planes,
  };
}
