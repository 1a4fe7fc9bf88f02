import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { decodeMap } from "../src/data/binary";
import { cut, EmbeddedSource, overlap, type Embedded } from "../src/data/embedded";
import { binAt } from "../src/map/columns";
import { mapOf } from "./maps";

function encode(
  first: readonly number[],
  last: readonly number[],
  planes: Readonly<Record<string, readonly number[]>>,
  format = 1,
): Uint8Array {
  const stats = Object.keys(planes);
  const rows = first.length > 0 ? planes[stats[0]!]!.length / first.length : 0;
  const header = {
    format,
    version: "v",
    complete: true,
    width: last[0]! - first[0]! + 1,
    shape: [rows, first.length],
    stats,
    first,
    last,
    columns: first.map(() => 1),
  };
  const raw = new TextEncoder().encode(JSON.stringify(header));
  const text = new Uint8Array(Math.ceil(raw.length / 4) * 4).fill(32);
  text.set(raw);
  const values = Float32Array.from(Object.values(planes).flat());
  const bytes = new Uint8Array(4 + text.length + values.byteLength);
  new DataView(bytes.buffer).setUint32(0, text.length, true);
  bytes.set(text, 4);
  bytes.set(new Uint8Array(values.buffer), 4 + text.length);
  return bytes;
}

const packed = (bytes: Uint8Array): string => gzipSync(bytes).toString("base64");

describe("a binary map", () => {
  it("keeps NaN, infinities and numbers, and every plane", () => {
    const bytes = encode([0, 1], [0, 1], {
      extreme: [Number.NaN, Infinity, -Infinity, 2],
      nonfinite: [1, 1, 0, 0],
    });
    const map = decodeMap(bytes.buffer as ArrayBuffer);
    assert.deepEqual([map.rows, map.bins], [2, 2]);
    assert.deepEqual([...map.planes.extreme!], [Number.NaN, Infinity, -Infinity, 2]);
    assert.deepEqual([...map.planes.nonfinite!], [1, 1, 0, 0]);
  });
  it("of another format says what to do", () => {
    const bytes = encode([0], [0], { extreme: [1] }, 2);
    assert.throws(() => decodeMap(bytes.buffer as ArrayBuffer), /format 2.*Reload the page/);
  });
});

describe("bins", () => {
  const map = mapOf({
    first: [0, 10, 20],
    last: [9, 19, 29],
    rows: [
      [1, 2, 3],
      [4, 5, 6],
    ],
  });
  it("are found by their step", () => {
    assert.deepEqual(
      [-5, 0, 9, 10, 25, 99].map((step) => binAt(map.first, step)),
      [0, 0, 0, 1, 2, 2],
    );
  });
  it("are cut to a window and to some rows", () => {
    assert.deepEqual(overlap(map, 9, 10), [0, 2]);
    assert.deepEqual(overlap(map, 40, 50), [3, 3]);
    const part = cut(map, [1, 3], ["extreme", "mean"], [1]);
    assert.deepEqual([...part.planes.extreme!], [5, 6]);
    assert.deepEqual([...part.planes.mean!], [5, 6]);
    assert.deepEqual(part.first, [10, 20]);
  });
});

describe("the report's own data", () => {
  const row = { kind: "Linear", median: 1 };
  const run = {
    run: "r",
    layers: [{ name: "a" }, { name: "b" }],
    series: [
      {
        name: "grad_norm",
        rows: [
          { ...row, name: "a", layer: 0 },
          { ...row, name: "b", layer: 1 },
        ],
      },
      { name: "strips", rows: [{ ...row, name: "loss", layer: null }] },
    ],
  };
  const fine = encode([0, 1, 2, 3], [0, 1, 2, 3], {
    extreme: [1, 2, 3, 4, 5, Number.NaN, -Infinity, 8],
  });
  const coarse = encode([0], [3], { extreme: [4, Number.NaN] });
  const data = {
    format: 1,
    runs: { format: 1, logdir: "", runs: [{ run: "r", version: "v", path: "" }], problems: [] },
    run: { r: run },
    maps: {
      r: {
        grad_norm: [packed(fine), packed(coarse)],
        strips: [packed(encode([0, 1, 2, 3], [0, 1, 2, 3], { extreme: [9, 8, 7, 6] }))],
      },
    },
    steps: {
      r: [
        {
          format: 1,
          step: 3,
          exact: true,
          parameters: [{ name: "a.weight" }, { name: "ab.weight" }],
        },
      ],
    },
  } as unknown as Embedded;
  const source = new EmbeddedSource(data);

  it("answers with the finest map that is not too fine", async () => {
    const stats = ["extreme"] as const;
    assert.equal((await source.map({ run: "r", series: "grad_norm", bins: 2, stats })).bins, 4);
    assert.equal((await source.map({ run: "r", series: "grad_norm", bins: 1, stats })).bins, 1);
    const part = await source.map({
      run: "r",
      series: "grad_norm",
      bins: 1,
      stats,
      from: 1,
      to: 2,
    });
    assert.deepEqual([...part.planes.extreme!], [2, 3, Number.NaN, -Infinity]);
  });
  it("answers a step from what was kept exactly, else from the finest map", async () => {
    assert.deepEqual(
      (await source.step("r", 3, 0)).parameters!.map((p) => p.name),
      ["a.weight"],
    );
    const step = await source.step("r", 2);
    // At step 2 it was not the turn of the second layer's optimizer: its own last step was the one before.
    assert.deepEqual(step.series.grad_norm!.values, [3, Number.NaN]);
    assert.deepEqual(step.series.grad_norm!.earlier, { "1": 1 });
    assert.deepEqual((await source.step("r", 1)).series.grad_norm!.earlier, {});
    assert.deepEqual([step.loss, step.exact, step.step], [7, true, 2]);
  });
  it("says what it does not hold", async () => {
    await assert.rejects(source.run("x"), /no run "x"/);
    await assert.rejects(
      source.map({ run: "r", series: "flow", bins: 9, stats: ["extreme"] }),
      /no series "flow"/,
    );
  });
});
