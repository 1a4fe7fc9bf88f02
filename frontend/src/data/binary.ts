// The binary answer of `map`: length of the header, header, planes.
import type { BinMap, Stat } from "./types";

/** The format this page understands. */
export const FORMAT = 1;

interface Header {
  readonly format: number;
  readonly version: string;
  readonly complete: boolean;
  readonly width: number;
  readonly shape: readonly [number, number];
  readonly stats: readonly Stat[];
  readonly first: readonly number[];
  readonly last: readonly number[];
  readonly columns: readonly number[];
}

/** Throws with a sentence to show if the page and what it is given are of different ages. */
export function checkFormat(format: unknown): void {
  if (format !== FORMAT) {
    throw new Error(
      `The data has format ${String(format)}, this page reads ${FORMAT}. Reload the page; if that ` +
        "does not help, restart TensorBoard.",
    );
  }
}

/** Decodes an answer of `map`. All machines that browsers run on are little-endian. */
export function decodeMap(buffer: ArrayBuffer): BinMap {
  const length = new DataView(buffer).getUint32(0, true);
  const text = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  const header = JSON.parse(text) as Header;
  checkFormat(header.format);
  const [rows, bins] = header.shape;
  const planes: Partial<Record<Stat, Float32Array>> = {};
  let offset = 4 + length;
  for (const stat of header.stats) {
    planes[stat] = new Float32Array(buffer, offset, rows * bins);
    offset += 4 * rows * bins;
  }
  const { version, complete, width, first, last, columns } = header;
  return { version, complete, width, rows, bins, first, last, columns, planes };
}
