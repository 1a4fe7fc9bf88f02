import assert from "node:assert/strict";
import { it } from "node:test";
import type { Run } from "../src/data/types";
import { messagesOf, spoken, statusOf, type Situation } from "../src/view/messages";
import type { Shown } from "../src/view/shown";
import { START } from "../src/model/state";

const run = (fields: object): Run =>
  ({
    run: "a",
    steps: 3,
    last_step: 2,
    writing: false,
    series: [{ name: "grad_norm" }],
    ...fields,
  }) as unknown as Run;
const now = (fields: Partial<Situation>): Situation => ({
  loaded: true,
  trouble: "",
  problems: [],
  names: ["a"],
  wanted: "a",
  runs: [run({})],
  live: true,
  ...fields,
});

it("nothing is said of a run that is all right", () => {
  assert.deepEqual(messagesOf(now({})), []);
  assert.deepEqual(statusOf(now({})), { text: "step 2", level: "still" });
  assert.equal(statusOf(now({ runs: [run({ writing: true })] })).text, "step 2 · live");
  assert.equal(statusOf(now({ runs: [run({ writing: true })], live: false })).text, "step 2");
});

it("what is missing is said with what to do", () => {
  assert.deepEqual(messagesOf(now({ loaded: false, names: [], runs: [] })), []);
  assert.match(messagesOf(now({ names: [], runs: [] }))[0]!, /callbacks=\[GradWatch\(\)\]/);
  const told = { names: [], runs: [], problems: ["no directory 'x'", "segment-0.steps.npy: torn"] };
  assert.deepEqual(messagesOf(now(told)), ["No directory 'x'", "segment-0.steps.npy: torn"]);
  assert.match(messagesOf(now({ wanted: "b" }))[0]!, /no run "b" here; this is "a"/);
  assert.match(messagesOf(now({ runs: [run({ series: [{ name: "strips" }] })] }))[0]!, /no map/);
  assert.deepEqual(messagesOf(now({ trouble: "Is it running?" })), ["Is it running?"]);
  assert.equal(statusOf(now({ trouble: "x" })).level, "trouble");
  assert.equal(statusOf(now({ names: [], runs: [] })).text, "waiting for a run");
  assert.equal(statusOf(now({ runs: [run({ last_step: null })] })).text, "no step yet");
});

it("a screen reader is told the layer, the step and the exact value", () => {
  const shown = {
    run: { findings: [{ title: "NaN or Inf", where: "step 5" }] },
    series: { name: "grad_norm", title: "", rows: [{ name: "net.0" }] },
    finding: 0,
    model: { step: { value: { step: 5, series: { grad_norm: { step: 5, values: ["NaN"] } } } } },
  } as unknown as Shown;
  const state = { ...START, layer: "net.0", step: 5, finding: 0 };
  assert.equal(spoken(shown, state), "NaN or Inf, step 5, net.0, step 5, Gradient norm NaN");
  // A step that has not arrived yet, or that moves on by itself, has no value to read out.
  assert.equal(spoken({ ...shown, finding: null }, { ...state, step: 6 }), "net.0, step 6");
  assert.equal(spoken({ ...shown, finding: null }, { ...state, step: null }), "net.0");
});
