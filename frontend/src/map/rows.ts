// The order of the rows, and what they are called.
import type { Row } from "../data/types";

export const ORDERS = ["depth", "kind"] as const;
export type RowOrder = (typeof ORDERS)[number];

/** Rows that stand together: a block of the model, or the same layer of every block. */
export interface Group {
  readonly label: string;
  /** First line, inclusive, and last line, exclusive, from the top. */
  readonly start: number;
  readonly end: number;
}

export interface Arrangement {
  /** Row of each line, from top to bottom. */
  readonly order: readonly number[];
  readonly groups: readonly Group[];
}

/** Returns the block that a layer belongs to: "blocks.3" for "blocks.3.attn.qkv". */
export function blockOf(name: string): string {
  const numbered = /^(.*?\.?\d+)\./.exec(name)?.[1];
  if (numbered !== undefined) return numbered;
  return name.includes(".") ? name.slice(0, name.lastIndexOf(".")) : name;
}

/** Returns the layer without its numbers: "blocks.#.attn.qkv". */
export function kindOf(row: Row): string {
  const pattern = row.name.replace(/(^|\.)\d+(?=\.|$)/g, "$1#");
  // In a plain Sequential the number is all there is; then the class tells the kinds apart.
  return pattern.endsWith("#") ? `${pattern} ${row.kind}`.trim() : pattern;
}

/** Arranges rows: by depth as they are executed, by kind in order of first appearance. */
export function arrange(rows: readonly Row[], order: RowOrder): Arrangement {
  const keys = rows.map((row) => (order === "kind" ? kindOf(row) : blockOf(row.name)));
  const lines = rows.map((_, row) => row);
  if (order === "kind") {
    const rank = new Map([...new Set(keys)].map((key, place) => [key, place]));
    lines.sort((a, b) => rank.get(keys[a]!)! - rank.get(keys[b]!)! || a - b);
  }
  const groups: Group[] = [];
  lines.forEach((row, line) => {
    const label = keys[row]!;
    const last = groups.at(-1);
    if (last?.label === label) groups[groups.length - 1] = { ...last, end: line + 1 };
    else groups.push({ label, start: line, end: line + 1 });
  });
  return { order: lines, groups };
}

/** A label and the line it stands at; halves are between lines. */
export interface Label {
  readonly text: string;
  readonly line: number;
  readonly chosen: boolean;
}

/**
 * Chooses the labels that fit: every row if there is room, else one for each group, else some of them.
 * The chosen row always has its own.
 *
 * @param room Number of labels that fit below each other.
 */
export function chooseLabels(
  rows: readonly Row[],
  { order, groups }: Arrangement,
  chosen: string | null,
  room: number,
): readonly Label[] {
  const all = order.map((row, line) => ({ text: rows[row]!.name, line: line + 0.5 }));
  const blocks = groups.map(({ label, start, end }) => ({
    text: end - start === 1 ? rows[order[start]!]!.name : label,
    line: (start + end) / 2,
  }));
  const least = order.length / Math.max(1, room);
  const candidates = order.length <= room ? all : blocks;
  const own = all.find(({ text }) => text === chosen);
  const labels: Label[] = own === undefined ? [] : [{ ...own, chosen: true }];
  let last = -Infinity;
  for (const label of candidates) {
    if (own !== undefined && Math.abs(label.line - own.line) < least) continue;
    if (label.line - last < least) continue;
    // The text has a height: at both ends it is moved inside.
    const line = Math.min(order.length - least / 2, Math.max(least / 2, label.line));
    labels.push({ ...label, line, chosen: false });
    last = line;
  }
  return labels;
}
