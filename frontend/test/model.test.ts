import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Action, Finding, Run, Series } from "../src/data/types";
import { arrange, blockOf, chooseLabels } from "../src/map/rows";
import { formatHash, parseHash } from "../src/model/address";
import { pressKey, zoom, type Surroundings } from "../src/model/keys";
import { lineRanges, markersOf } from "../src/model/markers";
import {
  formatNumber,
  formatPower,
  mantissaTicks,
  powerTicks,
  stepTicks,
} from "../src/model/numbers";
import { rowsFor, seriesFor } from "../src/model/words";
import { fromParameters, START, toParameters, type ViewState } from "../src/model/state";

const AROUND: Surroundings = {
  first: 0,
  last: 1000,
  rows: ["a", "b", "c"],
  findings: [
    { series: "grad_norm", step: 700, layer: "b" },
    { series: "zeros", step: 20, layer: null },
  ],
};
const press = (state: ViewState, ...keys: string[]): ViewState =>
  keys.reduce((now, key) => pressKey(key, false, now, AROUND) ?? now, state);

describe("numbers", () => {
  it("say what is no number", () => {
    assert.deepEqual([Number.NaN, Infinity, -Infinity, 0].map(formatNumber), [
      "NaN",
      "Inf",
      "–",
      "0",
    ]);
  });
  it("have three digits, and a power where they are small or large", () => {
    const shown = [0.03449, 1.234e-7, 3288.4, 6.851, 1e5, 100].map(formatNumber);
    assert.deepEqual(shown, ["0.0345", "1.2e-7", "3,288", "6.85", "1.0e5", "100"]);
  });
  it("have ticks at whole powers and at round steps", () => {
    assert.deepEqual([0, 1, -3, 12].map(formatPower), ["1", "10", "10⁻³", "10¹²"]);
    assert.deepEqual(powerTicks(-12.5, 4.2, 5), [-12, -8, -4, 0, 4]);
    assert.deepEqual(powerTicks(-1, 1, 5), [-1, 0, 1]);
    assert.deepEqual(
      mantissaTicks(-0.8, 0.4).map((tick) => Number((10 ** tick).toPrecision(3))),
      [0.2, 0.5, 1, 2],
    );
    assert.deepEqual(stepTicks(0, 2000, 5), [0, 500, 1000, 1500, 2000]);
    assert.deepEqual(stepTicks(3, 7, 10), [3, 4, 5, 6, 7]);
    assert.deepEqual(stepTicks(0, 0, 10), [0]);
  });
});

describe("a link", () => {
  const state: ViewState = {
    run: "a/version 1&b=ü",
    compare: ".",
    series: "time_profile:rnn",
    scale: "own",
    rows: "kind",
    colours: "viridis",
    window: { from: 10, to: 20 },
    step: 12,
    layer: "net.0",
    finding: 1,
    of: "compare",
  };
  it("round-trips every part of the state, odd characters too", () => {
    const hash = formatHash("#gradwatch&tagFilter=x", "p.gradwatch.", toParameters(state));
    assert.ok(hash.startsWith("#gradwatch&tagFilter=x&p.gradwatch.run=a%2Fversion%201%26b%3D"));
    assert.deepEqual(fromParameters(parseHash(hash, "p.gradwatch.")), state);
    const report = formatHash("#old=1", "", toParameters(state));
    assert.deepEqual(fromParameters(parseHash(report, "")), state);
  });
  it("of the start is empty, and nonsense reads as the start", () => {
    assert.deepEqual(toParameters(START), {});
    const nonsense = { scale: "x", rows: "", from: "9", to: "3", step: "-1", finding: "NaN" };
    assert.deepEqual(fromParameters(nonsense), START);
    assert.deepEqual(parseHash("#p.gradwatch.run=%E0%A4%A&p.gradwatch.step=3&", "p.gradwatch."), {
      step: "3",
    });
  });
});

describe("the keyboard", () => {
  it("moves the pinned step and stays inside the run", () => {
    assert.equal(press(START, "ArrowRight").step, 1000);
    assert.equal(press(START, "ArrowLeft").step, 999);
    assert.equal(press(START, "Home", "ArrowLeft").step, 0);
    assert.equal(pressKey("ArrowLeft", true, START, AROUND)!.step, 900);
  });
  it("walks through the layers and stops at both ends", () => {
    assert.equal(press(START, "ArrowDown", "ArrowDown").layer, "b");
    assert.equal(press(START, "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp").layer, "a");
  });
  it("zooms around the pinned step, back out to the whole run, and pans", () => {
    const pinned = { ...START, step: 250 };
    assert.deepEqual(press(pinned, "+").window, { from: 125, to: 625 });
    assert.equal(press(pinned, "+", "-").window, null);
    assert.deepEqual(press(pinned, "+", "]").window, { from: 250, to: 750 });
    assert.deepEqual(press(pinned, "+", "[", "[").window, { from: 0, to: 500 });
    assert.equal(press(pinned, "+", "0").window, null);
  });
  it("brings the window along with the step", () => {
    const state = { ...START, step: 100, window: { from: 90, to: 110 } };
    assert.deepEqual(press(state, "End").window, { from: 980, to: 1000 });
  });
  it("goes from finding to finding", () => {
    const first = press(START, "n");
    assert.deepEqual([first.finding, first.step, first.layer], [0, 700, "b"]);
    const second = press(first, "n");
    assert.deepEqual([second.finding, second.series], [1, "zeros"]);
    assert.equal(press(first, "n", "n").finding, 0);
    assert.deepEqual(press(first, "Escape"), { ...START, layer: "b" });
  });
  it("means nothing with other keys and in an empty run", () => {
    assert.equal(pressKey("q", false, START, AROUND), null);
    const empty = { first: -1, last: -1, rows: [], findings: [] };
    for (const key of ["ArrowDown", "n", "+", "]", "Home"]) {
      const state = pressKey(key, false, START, empty)!;
      assert.equal(state.layer, null);
    }
  });
  it("never zooms in beyond a few steps", () => {
    let window = { from: 0, to: 1000 };
    for (let i = 0; i < 30; i++) window = zoom(window, AROUND, 500, 0.5)!;
    assert.ok(window.to - window.from >= 8 && window.from <= 500 && window.to >= 500);
  });
});

const rowsOf = (...names: string[]): { name: string; kind: string; layer: null; median: null }[] =>
  names.map((name) => ({ name, kind: "Linear", layer: null, median: null }));

describe("rows", () => {
  const rows = rowsOf(
    "embed",
    "blocks.0.ln",
    "blocks.0.mlp",
    "blocks.1.ln",
    "blocks.1.mlp",
    "head",
  );
  it("by depth stand in blocks", () => {
    const { order, groups } = arrange(rows, "depth");
    assert.deepEqual(order, [0, 1, 2, 3, 4, 5]);
    assert.deepEqual(
      groups.map((g) => g.label),
      ["embed", "blocks.0", "blocks.1", "head"],
    );
    assert.equal(blockOf("net.10"), "net");
  });
  it("by kind stand with their like", () => {
    const { order, groups } = arrange(rows, "kind");
    assert.deepEqual(order, [0, 1, 3, 2, 4, 5]);
    assert.deepEqual(
      groups.map((g) => g.label),
      ["embed", "blocks.#.ln", "blocks.#.mlp", "head"],
    );
  });
  it("have as many labels as fit, the chosen one always", () => {
    const arrangement = arrange(rows, "depth");
    assert.equal(chooseLabels(rows, arrangement, null, 10).length, 6);
    const few = chooseLabels(rows, arrangement, "blocks.1.mlp", 3);
    assert.ok(few.length <= 3);
    assert.ok(few.some((label) => label.chosen && label.text === "blocks.1.mlp"));
    assert.deepEqual(chooseLabels([], arrange([], "depth"), null, 3), []);
  });
});

describe("markers", () => {
  const finding = {
    code: "my.own",
    title: "t",
    where: "w",
    first_step: 9,
    last_step: 9,
  } as Finding;
  const action = (spans: Action["spans"]): Action =>
    ({ action: "Clip", reason: "r", spans }) as Action;
  it("of unknown codes have a shape, and all come in order", () => {
    const marks = markersOf([finding], [action([[1, 4, 3]])]);
    assert.deepEqual(
      marks.map((m) => [m.kind, m.first]),
      [
        ["action", 1],
        ["finding", 9],
      ],
    );
    assert.ok(marks.every((m) => m.glyph.path.length > 0));
  });
  it("of an action at nearly every step are left to the bars", () => {
    const spans = Array.from({ length: 50 }, (_, i) => [i * 9, i * 9, 1] as const);
    assert.equal(markersOf([], [action(spans)]).length, 0);
  });
  it("know the lines of a finding", () => {
    const lines = ["a", "b", "c", "d"];
    assert.deepEqual(lineRanges(new Set(["a", "b", "d", "gone"]), lines), [
      [0, 2],
      [3, 4],
    ]);
    assert.deepEqual(lineRanges(new Set(), lines), []);
  });
});

describe("where a finding is seen", () => {
  const rows = (...names: string[]): Series["rows"] =>
    names.map((name, layer) => ({
      name,
      kind: "",
      layer: name.includes("relu") ? null : layer,
      median: 1,
    }));
  const series = (name: string, ...names: string[]): Series => ({
    name,
    title: name,
    columns: 1,
    log: true,
    low: 1,
    high: 1,
    rows: rows(...names),
  });
  const run = {
    layers: [{ name: "conv" }, { name: "rnn" }],
    series: [
      series("grad_norm", "conv", "rnn"),
      series("zeros", "conv", "relu2"),
      series("time_profile:rnn", "t=0"),
    ],
  } as unknown as Run;
  const finding = (code: string, layers: string[], summary: string, evidence = {}): Finding =>
    ({ code, layers, summary, evidence }) as unknown as Finding;

  it("is the map of gradients, unless another one says more", () => {
    assert.equal(seriesFor(finding("exploding", ["conv"], ""), run)!.name, "grad_norm");
    assert.equal(seriesFor(finding("my.own", ["gone"], ""), run)!.name, "grad_norm");
    assert.equal(seriesFor(finding("saturated", ["conv"], ""), run)!.name, "grad_norm");
    const dead = finding("dead_units", ["conv"], "69 % of the units of relu2 are zero.");
    assert.equal(seriesFor(dead, run)!.name, "zeros");
    assert.deepEqual([...rowsFor(dead, run.series[1]!, run)], ["relu2"]);
    assert.deepEqual([...rowsFor(dead, run.series[0]!, run)], ["conv"]);
    const through = finding("vanishing", ["rnn"], "", { time_steps: 64 });
    assert.equal(seriesFor({ ...through, layers: ["conv"] }, run)!.name, "grad_norm");
  });
});
