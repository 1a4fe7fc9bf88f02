import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { colourAt, EXCEPTIONS, MAPS, pixel, table, TABLE, type Theme } from "../src/colour/maps";
import { distance, fromLab, hex, toLab } from "../src/colour/oklab";
import { seenWith, VISION } from "./vision";

const THEMES: readonly Theme[] = ["light", "dark"];
const POSITIONS = Array.from({ length: 41 }, (_, i) => i / 20 - 1);

describe("OKLab", () => {
  it("round-trips every corner of sRGB", () => {
    for (const text of ["#000000", "#ffffff", "#ff0000", "#00ff00", "#0000ff", "#a800b0"]) {
      assert.deepEqual(fromLab(toLab(hex(text))), hex(text));
    }
  });
});

for (const theme of THEMES) {
  for (const vision of Object.keys(VISION)) {
    describe(`${theme} theme seen with ${vision}`, () => {
      it("tells the vanishing side from the exploding side", () => {
        for (const position of POSITIONS.filter((p) => p >= 0.2)) {
          for (const other of POSITIONS.filter((p) => p <= -0.2)) {
            const apart = distance(
              seenWith(vision, colourAt("health", theme, position)),
              seenWith(vision, colourAt("health", theme, other)),
            );
            assert.ok(apart > 0.1, `${position} and ${other} are ${apart.toFixed(3)} apart`);
          }
        }
      });

      it("changes lightness all the way out on both arms", () => {
        const sign = theme === "light" ? -1 : 1;
        for (const arm of [-1, 1]) {
          let before = toLab(seenWith(vision, colourAt("health", theme, 0)))[0];
          for (let step = 1; step <= 10; step++) {
            const now = toLab(seenWith(vision, colourAt("health", theme, (arm * step) / 10)))[0];
            assert.ok(
              sign * (now - before) > 0.01,
              `arm ${arm}, step ${step}: ${before} to ${now}`,
            );
            before = now;
          }
        }
      });

      it("keeps NaN, Inf and zero apart from every number and from each other", () => {
        const { nan, inf, zero, none, hatch, lines } = EXCEPTIONS[theme];
        for (const name of MAPS) {
          for (const position of POSITIONS) {
            const number = seenWith(vision, colourAt(name, theme, position));
            assert.ok(distance(seenWith(vision, nan), number) > 0.05, `${name} ${position}: NaN`);
            assert.ok(distance(seenWith(vision, inf), number) > 0.2, `${name} ${position}: Inf`);
            assert.ok(distance(seenWith(vision, zero), number) > 0.05, `${name} ${position}: 0`);
          }
        }
        assert.ok(distance(seenWith(vision, nan), seenWith(vision, inf)) > 0.3);
        assert.ok(distance(seenWith(vision, nan), seenWith(vision, none)) > 0.2);
        assert.ok(distance(seenWith(vision, inf), seenWith(vision, none)) > 0.15);
        assert.ok(distance(seenWith(vision, zero), seenWith(vision, nan)) > 0.05);
        assert.ok(distance(seenWith(vision, zero), seenWith(vision, inf)) > 0.1);
        assert.ok(distance(seenWith(vision, zero), seenWith(vision, none)) > 0.1);
        for (const colour of [nan, inf, zero]) {
          assert.ok(distance(seenWith(vision, colour), seenWith(vision, hatch)) > 0.25);
        }
        assert.ok(distance(seenWith(vision, none), seenWith(vision, lines)) > 0.25);
      });
    });
  }

  it(`viridis grows lighter with the number in the ${theme} theme`, () => {
    for (let i = 1; i < POSITIONS.length; i++) {
      const [a, b] = [POSITIONS[i - 1]!, POSITIONS[i]!];
      assert.ok(toLab(colourAt("viridis", theme, b))[0] > toLab(colourAt("viridis", theme, a))[0]);
    }
  });
}

describe("a table", () => {
  it("holds the map's ends and its middle as opaque RGBA pixels", () => {
    const pixels = table("health", "light");
    assert.equal(pixels.length, TABLE);
    assert.equal(pixels[0], pixel(colourAt("health", "light", -1)));
    assert.equal(pixels[(TABLE - 1) / 2], pixel(colourAt("health", "light", 0)));
    assert.equal(pixels[TABLE - 1], pixel(colourAt("health", "light", 1)));
    assert.equal(pixel([1, 2, 3]), 0xff030201);
  });
});
