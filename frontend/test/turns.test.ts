import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { NO_GRADIENT } from "../src/data/types";
import { fillTurns, standingBin } from "../src/map/turns";
import { mapOf } from "./maps";

const GAP = -Infinity;

function filled(rows: readonly (readonly number[])[], first?: number[]): number[] {
  const steps = first ?? rows[0]!.map((_, step) => step);
  return [...fillTurns(mapOf({ first: steps, last: steps, rows })).planes.extreme!];
}

describe("optimizers that take turns", () => {
  it("leave no gap in each other's rows, and nobody looks into the future", () => {
    assert.deepEqual(
      filled([
        [1, GAP, 3, GAP, 5, GAP],
        [GAP, 2, GAP, 4, GAP, 6],
      ]),
      [1, 1, 3, 3, 5, 5, GAP, 2, 2, 4, 4, 6],
    );
  });

  it("may be of different diligence", () => {
    const row = Array.from({ length: 21 }, (_, step) => (step % 5 === 4 ? step : GAP));
    const expected = row.map((_, step) => (step < 4 ? GAP : 5 * Math.floor((step + 1) / 5) - 1));
    assert.deepEqual(filled([row]), expected);
  });

  it("hold NaN, Inf, zero and no gradient as well", () => {
    assert.deepEqual(
      filled([[Number.NaN, GAP, Infinity, GAP, 0, GAP, Math.fround(NO_GRADIENT), GAP]]),
      [Number.NaN, Number.NaN, Infinity, Infinity, 0, 0, NO_GRADIENT, NO_GRADIENT],
    );
  });

  it("leave a hole where a layer was not there for long, and after its end", () => {
    const there = Array.from({ length: 12 }, (_, step) => step);
    const row = [...there, GAP, GAP, GAP, GAP, 16, 17, GAP, GAP, GAP];
    assert.deepEqual(filled([row]), row);
  });

  it("may be named by who asks which bin a cell shows", () => {
    const map = mapOf({ first: [0, 1, 2, 3], last: [0, 1, 2, 3], rows: [[GAP, 2, GAP, 4]] });
    assert.deepEqual(
      [0, 1, 2, 3].map((bin) => standingBin(map, 0, bin)),
      [null, 1, 1, 3],
    );
  });
});

it("a map without gaps is left as it is, and so is one without anything", () => {
  const whole = mapOf({ first: [0, 1], last: [0, 1], rows: [[1, 2]] });
  assert.equal(fillTurns(whole), whole);
  assert.deepEqual(
    filled([
      [GAP, GAP],
      [GAP, 7],
    ]),
    [GAP, GAP, GAP, 7],
  );
  assert.deepEqual(filled([[]]), []);
});
