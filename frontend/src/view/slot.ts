// One thing that is loaded again and again: at most one request is under way, the latest wish wins.

/** Milliseconds until what has failed may be tried again. */
const PATIENCE = 3000;

export class Slot<T> {
  value: T | undefined;
  error = "";
  private wanted = "";
  private failed = -Infinity;
  private load: (() => Promise<T>) | undefined;
  private busy = false;

  constructor(
    private readonly changed: () => void,
    private readonly clock: () => number = () => performance.now(),
  ) {}

  /** Loads unless this very thing is here, on its way, or has failed just now. */
  ask(key: string, load: () => Promise<T>): void {
    const retry = this.error !== "" && this.clock() - this.failed >= PATIENCE;
    if (key === this.wanted && !retry) return;
    this.wanted = key;
    this.load = load;
    if (!this.busy) void this.work();
  }

  private async work(): Promise<void> {
    this.busy = true;
    while (this.load !== undefined) {
      const load = this.load;
      this.load = undefined;
      try {
        this.value = await load();
        this.error = "";
      } catch (error) {
        this.error = error instanceof Error ? error.message : String(error);
        this.failed = this.clock();
      }
      this.changed();
    }
    this.busy = false;
  }
}
