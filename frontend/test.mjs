// Bundles each test for node and hands them to node's own runner.
import { readdir, rm } from "node:fs/promises";
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "build");
const tests = (await readdir(join(here, "test"))).filter((name) => name.endsWith(".test.ts"));
await rm(out, { recursive: true, force: true });
await esbuild.build({
  absWorkingDir: here,
  entryPoints: tests.map((name) => `test/${name}`),
  outdir: out,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  sourcemap: "inline",
  logLevel: "warning",
});
const run = spawnSync(
  process.execPath,
  ["--enable-source-maps", "--test", "--test-reporter", process.stdout.isTTY ? "spec" : "dot", out],
  { stdio: "inherit" },
);
process.exit(run.status ?? 1);
