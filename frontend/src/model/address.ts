// The address bar: TensorBoard's own, whose frame we are in, or that of the report.

/** TensorBoard keeps a plugin's values under this prefix, next to its own. */
const PREFIX = "p.gradwatch.";

/** Reads the values in the hash of an address. */
export function parseHash(hash: string, prefix: string): Record<string, string> {
  const values: Record<string, string> = {};
  for (const part of hash.replace(/^#/, "").split("&")) {
    const equals = part.indexOf("=");
    if (equals < 0 || !part.startsWith(prefix)) continue;
    const name = part.slice(prefix.length, equals);
    try {
      values[name] = decodeURIComponent(part.slice(equals + 1));
    } catch {
      // A link that was cut off in an e-mail: what is left of it still counts.
    }
  }
  return values;
}

/** Writes values into a hash; everything that is not ours stays as it is. */
export function formatHash(
  hash: string,
  prefix: string,
  values: Readonly<Record<string, string>>,
): string {
  const parts = hash.replace(/^#/, "").split("&");
  const others = parts.filter(
    (part) => part !== "" && !(part.startsWith(prefix) && (prefix !== "" || part.includes("="))),
  );
  const ours = Object.entries(values).map(
    ([name, value]) => `${prefix}${name}=${encodeURIComponent(value)}`,
  );
  return `#${[...others, ...ours].join("&")}`;
}

/** Where the state is kept. */
export interface Address {
  read(): Record<string, string>;
  write(values: Readonly<Record<string, string>>): void;
  /** Calls back when someone follows a link or goes back. */
  watch(changed: () => void): void;
}

/** Returns the address of the page that the reader sees. */
export function openAddress(embedded: boolean): Address {
  const page = embedded ? window : hostWindow();
  const prefix = embedded ? "" : PREFIX;
  return {
    read: () => parseHash(page.location.hash, prefix),
    write: (values) => {
      const hash = formatHash(page.location.hash, prefix, values);
      if (hash === page.location.hash || (hash === "#" && page.location.hash === "")) return;
      // Not an entry for each move of a slider; TensorBoard's own state must survive.
      page.history.replaceState(page.history.state, "", hash);
    },
    watch: (changed) => {
      page.addEventListener("hashchange", changed);
    },
  };
}

function hostWindow(): Window {
  try {
    // Throws if the frame is not TensorBoard's (another origin): then our own address has to do.
    return typeof window.parent.location.hash === "string" ? window.parent : window;
  } catch {
    return window;
  }
}
