import assert from "node:assert/strict";
import { it } from "node:test";
import { Slot } from "../src/view/slot";

const later = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

it("asks one thing at a time, and of many wishes the latest", async () => {
  const asked: string[] = [];
  const slot = new Slot<string>(() => undefined);
  const wish = (name: string): void =>
    slot.ask(name, async () => {
      asked.push(name);
      await later();
      return name;
    });
  for (const name of ["a", "b", "c", "c", "d"]) wish(name);
  for (let i = 0; i < 6; i++) await later();
  assert.deepEqual([asked, slot.value], [["a", "d"], "d"]);
  wish("d");
  await later();
  assert.equal(asked.length, 2);
});

it("keeps what it has when something fails, and does not hammer on it", async () => {
  let now = 0;
  let tried = 0;
  const slot: Slot<number> = new Slot<number>(
    // Every answer draws the page, and the page asks again.
    () => ask(),
    () => now,
  );
  const ask = (): void =>
    slot.ask("map", () => {
      tried++;
      return tried < 3 ? Promise.reject(new Error("no")) : Promise.resolve(tried);
    });
  ask();
  for (let i = 0; i < 10; i++) await later();
  assert.deepEqual([tried, slot.error, slot.value], [1, "no", undefined]);
  now += 4000;
  ask();
  for (let i = 0; i < 10; i++) await later();
  now += 4000;
  ask();
  for (let i = 0; i < 10; i++) await later();
  assert.deepEqual([tried, slot.error, slot.value], [3, "", 3]);
});
