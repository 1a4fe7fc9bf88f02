// Builds ../lightning_gradwatch/tensorboard/static/: what the wheel ships. The result depends on
// the sources and the lock file only, so that CI can compare it with what is committed.
import { readFile, writeFile, mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, "../lightning_gradwatch/tensorboard/static");
const bundled = ["uplot"];

await mkdir(target, { recursive: true });
const common = { absWorkingDir: here, bundle: true, minify: true, charset: "utf8" };

// The styles are part of the module: the tab and the report need one file each.
const css = await esbuild.build({
  ...common,
  entryPoints: ["src/style/index.css"],
  write: false,
  logLevel: "warning",
});
const styles = {
  name: "styles",
  setup(build) {
    build.onResolve({ filter: /^virtual:styles$/ }, ({ path }) => ({ path, namespace: "styles" }));
    build.onLoad({ filter: /.*/, namespace: "styles" }, () => ({
      contents: css.outputFiles[0].text,
      loader: "text",
    }));
  },
};
await esbuild.build({
  ...common,
  entryPoints: ["src/main.ts"],
  outfile: join(target, "index.js"),
  format: "esm",
  target: "es2022",
  plugins: [styles],
  // The notice travels with the code it is for; the texts stand in licences.txt.
  banner: { js: "/*! GradWatch view, Apache-2.0; bundles uPlot, MIT: see licences.txt */" },
  legalComments: "none",
  logLevel: "info",
});

const require = createRequire(import.meta.url);
const notices = [];
for (const name of bundled) {
  const folder = dirname(require.resolve(`${name}/package.json`));
  const about = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const text = await readFile(join(folder, "LICENSE"), "utf8");
  notices.push(
    `${about.name} ${about.version} (${about.license}), part of index.js\n\n${text.trim()}\n`,
  );
}
await writeFile(join(target, "licences.txt"), notices.join(`\n${"-".repeat(80)}\n\n`));
