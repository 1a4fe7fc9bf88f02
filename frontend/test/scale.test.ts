import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { chooseScale, Ruler, type Scale } from "../src/colour/scale";
import type { JsonNumber, Series } from "../src/data/types";

const position = (scale: Scale, value: number, median: number): number =>
  new Ruler(scale, median).at(value);

function series(
  medians: readonly JsonNumber[],
  low: JsonNumber,
  high: JsonNumber,
  name = "grad_norm",
): Series {
  const rows = medians.map((median, i) => ({ name: `l.${i}`, kind: "Linear", layer: i, median }));
  return { name, title: name, columns: 10, log: name !== "zeros", rows, low, high };
}

describe("the absolute scale", () => {
  it("has numbers even when the run has none", () => {
    for (const medians of [[], [null], ["NaN"]] as const) {
      const scale = chooseScale([series(medians, null, "Infinity")], false);
      assert.ok([scale.low, scale.middle, scale.high].every(Number.isFinite));
      assert.ok(scale.low < scale.middle && scale.middle < scale.high);
    }
  });

  it("takes the layers next to the loss as reference: vanishing is blue, exploding is orange", () => {
    const vanishing = chooseScale([series([1e-7, 1e-5, 1e-3, 1e-1], 1e-8, 1)], false);
    assert.ok(position(vanishing, 1e-7, 1) < -0.7);
    assert.equal(position(vanishing, 1e-1, 1), 0);
    const exploding = chooseScale([series([1e7, 1e5, 1e3, 1e1], 1, 1e8)], false);
    assert.ok(position(exploding, 1e7, 1) > 0.7);
    assert.equal(position(exploding, 1e1, 1), 0);
  });

  it("is the same for a loss a million times smaller", () => {
    const one = chooseScale([series([1e-3, 1], 1e-4, 10)], false);
    const small = chooseScale([series([1e-9, 1e-6], 1e-10, 1e-5)], false);
    assert.ok(Math.abs(position(one, 1e-3, 1) - position(small, 1e-9, 1)) < 1e-9);
  });

  it("keeps a quiet run quiet", () => {
    const scale = chooseScale([series([0.5, 1, 2], 0.4, 2.5)], false);
    assert.ok(Math.abs(position(scale, 2.5, 1)) < 0.2);
  });

  it("measures updates against a thousandth", () => {
    assert.equal(
      position(chooseScale([series([1e-6], 1e-7, 1e-5, "update_ratio")], false), 1e-3, 1),
      0,
    );
  });

  it("shows shares from nothing to all", () => {
    const scale = chooseScale([series([0.1], 0.1, 1, "zeros")], false);
    assert.deepEqual(
      [0, 0.5, 1].map((share) => position(scale, share, 1)),
      [0, 0.5, 1],
    );
  });
});

it("the scale of each layer's own median reaches from a hundredth to a hundredfold", () => {
  const scale = chooseScale([series([1e-9, 1], 1e-12, 1e9)], true);
  assert.deepEqual(
    [1e-11, 1e-9, 1e-7].map((v) => Math.round(position(scale, v, 1e-9) * 1e9) / 1e9),
    [-1, 0, 1],
  );
  assert.equal(position(scale, 0, 1e-9), -Infinity);
});
