import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { binEnds, spreadBins } from "../src/map/columns";
import { mapOf } from "./maps";

const shown = (columns: { start: Int32Array; end: Int32Array }): string[] =>
  Array.from(columns.start, (start, x) =>
    start === columns.end[x] ? "" : `${start}-${columns.end[x]!}`,
  );

describe("columns of pixels", () => {
  it("give each bin the room of its steps", () => {
    const map = mapOf({ first: [0, 2], last: [1, 3], rows: [[1, 2]] });
    assert.deepEqual(shown(spreadBins(map, 0, 4, 8)), [
      "0-1",
      "0-1",
      "0-1",
      "0-1",
      "1-2",
      "1-2",
      "1-2",
      "1-2",
    ]);
  });

  it("stretch a sampled step up to the next sample", () => {
    const steps = [0, 1, 2, 50, 100, 150];
    const map = mapOf({ first: steps, last: steps, rows: [steps] });
    assert.deepEqual(binEnds(map), [1, 2, 50, 100, 150, 200]);
  });

  it("leave a hole where a run was away", () => {
    const steps = Array.from({ length: 20 }, (_, i) => (i < 10 ? i : 90 + i));
    const map = mapOf({ first: steps, last: steps, rows: [steps] });
    assert.deepEqual(binEnds(map).slice(8, 11), [9, 10, 101]);
    assert.deepEqual(shown(spreadBins(map, 0, 110, 110)).slice(9, 12), ["9-10", "", ""]);
  });

  it("know no hole between samples that are as far apart as planned", () => {
    // Every step of a short run's beginning, then every fiftieth: nine of ten gaps are narrow.
    const steps = [...Array.from({ length: 40 }, (_, i) => i), 50, 100, 150];
    const map = mapOf({ first: steps, last: steps, rows: [steps] });
    assert.deepEqual(binEnds(map).slice(39), [40, 51, 101, 151]);
    assert.deepEqual(binEnds({ ...map, planned: 50 }).slice(39), [50, 100, 150, 200]);
    const away = Array.from({ length: 20 }, (_, i) => 50 * i + (i < 10 ? 0 : 1000));
    const ends = binEnds({ ...mapOf({ first: away, last: away, rows: [away] }), planned: 50 });
    assert.deepEqual(ends.slice(8, 11), [450, 500, 1550]);
  });

  it("lose no bin, however narrow", () => {
    for (const width of [1, 3, 7, 40]) {
      const steps = Array.from({ length: 40 }, (_, i) => i * i);
      const columns = spreadBins(
        mapOf({ first: steps, last: steps, rows: [steps] }),
        0,
        1600,
        width,
      );
      const seen = new Set<number>();
      for (let x = 0; x < width; x++) {
        for (let bin = columns.start[x]!; bin < columns.end[x]!; bin++) seen.add(bin);
      }
      assert.equal(seen.size, 40, `width ${width}`);
    }
  });

  it("cope with a map without bins and with a window elsewhere", () => {
    assert.deepEqual(shown(spreadBins(mapOf({ first: [], last: [], rows: [[]] }), 0, 10, 2)), [
      "",
      "",
    ]);
    assert.deepEqual(
      shown(spreadBins(mapOf({ first: [5], last: [5], rows: [[1]] }), 100, 110, 2)),
      ["", ""],
    );
  });
});
