// The source behind the tab: the plugin's routes, next to where this module was loaded from.
import { checkFormat, decodeMap } from "./binary";
import type { BinMap, MapQuery, Run, Runs, Source, Step } from "./types";

type Parameters = Readonly<Record<string, string | number | undefined>>;

export class HttpSource implements Source {
  readonly live = true;

  /** `base` is the address of the plugin's routes, with a slash at its end. */
  constructor(private readonly base: string) {}

  runs(): Promise<Runs> {
    return this.json<Runs>("runs", {});
  }

  run(run: string): Promise<Run> {
    return this.json<Run>("run", { run });
  }

  async map(query: MapQuery): Promise<BinMap> {
    const response = await this.get("map", {
      run: query.run,
      series: query.series,
      from: query.from,
      to: query.to,
      bins: query.bins,
      stats: query.stats.join(","),
      rows: query.rows?.join(","),
    });
    return decodeMap(await response.arrayBuffer());
  }

  step(run: string, step: number, layer?: number): Promise<Step> {
    return this.json<Step>("step", { run, step, layer });
  }

  private async json<T extends { format?: unknown }>(
    route: string,
    parameters: Parameters,
  ): Promise<T> {
    const answer = (await (await this.get(route, parameters)).json()) as T;
    checkFormat(answer.format);
    return answer;
  }

  private async get(route: string, parameters: Parameters): Promise<Response> {
    const url = new URL(route, this.base);
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    let response: Response;
    try {
      response = await fetch(url);
    } catch {
      throw new Error("TensorBoard does not answer. Is it still running?");
    }
    if (!response.ok) throw new Error(await reason(response));
    return response;
  }
}

async function reason(response: Response): Promise<string> {
  try {
    return ((await response.json()) as { error: string }).error;
  } catch {
    return `TensorBoard answered ${response.status} ${response.statusText}.`;
  }
}
