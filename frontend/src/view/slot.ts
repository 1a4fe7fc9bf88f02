// One thing that is loaded again and again: at most one request is under way, the latest wish wins.

export class Slot<T> {
  value: T | undefined;
  error = "";
  private wanted = "";
  private load: (() => Promise<T>) | undefined;
  private busy = false;

  constructor(private readonly changed: () => void) {}

  /** Loads unless this very thing is here or on its way. */
  ask(key: string, load: () => Promise<T>): void {
    if (key === this.wanted) return;
    this.wanted = key;
    this.load = load;
    if (!this.busy) void this.work();
  }

  /** Forgets what is here. */
  clear(): void {
    this.wanted = "";
    this.load = undefined;
    this.value = undefined;
    this.error = "";
  }

  private async work(): Promise<void> {
    this.busy = true;
    while (this.load !== undefined) {
      const load = this.load;
      const key = this.wanted;
      this.load = undefined;
      try {
        const value = await load();
        // Meanwhile another run may have been chosen.
        if (this.wanted !== "") this.value = value;
        this.error = "";
      } catch (error) {
        this.error = error instanceof Error ? error.message : String(error);
        // The same wish may succeed later.
        if (this.wanted === key) this.wanted = "";
      }
      this.changed();
    }
    this.busy = false;
  }
}
