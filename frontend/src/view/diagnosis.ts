// The diagnosis in plain words, on top of everything: what, where, why, and what to try.
import type { Finding, Run } from "../data/types";
import { glyphOf, SEVERITY } from "../model/markers";
import { capital } from "../model/words";
import { fill, glyph, h, setAttribute } from "./dom";

/** Findings shown at once; the rest is one click away. */
const SHOWN = 3;

export class Diagnosis {
  readonly element = h("section", { class: "diagnosis", "aria-label": "Diagnosis" });
  private all = false;
  private last: { run: Run; chosen: number | null; named: boolean } | undefined;

  constructor(private readonly choose: (finding: number) => void) {}

  /** Shows what was found; `named` says of which run, where there are two. */
  update(run: Run, chosen: number | null, named: boolean): void {
    this.last = { run, chosen, named };
    const { verdict, healthy, scope, findings, problems, actions, complete } = run;
    const about = { verdict, healthy, scope, findings, problems, complete, named, all: this.all };
    const acted = actions.map(({ text }) => text);
    fill(this.element, JSON.stringify([about, acted]), () => [
      this.headline(run, named),
      ...problems.map((problem) => h("p", { class: "problem" }, problem)),
      this.cards(findings),
      ...(acted.length > 0
        ? [h("p", { class: "acted" }, "What actions did: ", acted.join(" · "))]
        : []),
    ]);
    this.element.querySelectorAll("[data-finding]").forEach((card) => {
      const isChosen = Number(card.getAttribute("data-finding")) === chosen;
      setAttribute(card, "aria-pressed", String(isChosen));
      card.closest(".card")?.classList.toggle("chosen", isChosen);
    });
  }

  private headline(
    { verdict, healthy, scope, findings, run, complete }: Run,
    named: boolean,
  ): HTMLElement {
    const worst = findings[0]?.severity ?? "INFO";
    const level = healthy ? "healthy" : worst.toLowerCase();
    return h(
      "div",
      { class: `headline ${level}` },
      h("span", { class: "lamp", "aria-hidden": "true" }, healthy ? "✓" : "!"),
      h("h2", {}, named ? `${run}: ${verdict}` : capital(verdict)),
      h("span", { class: "scope" }, complete ? scope : `${scope} · still reading`),
    );
  }

  private cards(findings: readonly Finding[]): HTMLElement {
    const list = h("div", { class: "cards" });
    const shown = this.all ? findings.length : SHOWN;
    findings.slice(0, shown).forEach((finding, index) => list.append(this.card(finding, index)));
    if (findings.length > SHOWN) {
      const text = this.all ? "Show fewer" : `Show ${findings.length - SHOWN} more`;
      const more = h("button", { type: "button", class: "more" }, text);
      more.addEventListener("click", () => {
        this.all = !this.all;
        if (this.last !== undefined) this.update(this.last.run, this.last.chosen, this.last.named);
        this.element.querySelector<HTMLElement>(".more")?.focus();
      });
      list.append(more);
    }
    return list;
  }

  private card(finding: Finding, index: number): HTMLElement {
    const { code, title, severity, where, summary, cause, remedies } = finding;
    const shape = glyphOf(code);
    const show = h(
      "button",
      { type: "button", class: "show", "data-finding": index, "aria-pressed": "false" },
      "Show in the map",
    );
    const [first, ...rest] = remedies;
    // With one finding the headline has said its name.
    const single = this.last?.run.findings.length === 1;
    const card = h(
      "article",
      { class: `card ${severity.toLowerCase()}` },
      h(
        "h3",
        {},
        glyph(shape.path, shape.colour),
        h("span", {}, single ? capital(where) : capital(title)),
        h("span", { class: "badge" }, SEVERITY[severity]),
      ),
      ...(single ? [] : [h("p", { class: "where" }, where)]),
      ...(summary === "" ? [] : [h("p", { class: "summary" }, summary)]),
      ...(cause === "" ? [] : [h("p", { class: "cause" }, h("b", {}, "Why "), cause)]),
      ...(first === undefined ? [] : [h("p", { class: "try" }, h("b", {}, "Try "), first)]),
      ...(rest.length === 0
        ? []
        : [
            h(
              "details",
              {},
              h(
                "summary",
                {},
                rest.length === 1 ? "or something else" : `or one of ${rest.length} others`,
              ),
              h("ol", { start: 2 }, ...rest.map((remedy) => h("li", {}, remedy))),
            ),
          ]),
      show,
    );
    card.addEventListener("click", (event) => {
      // Text can be selected and details unfolded without jumping somewhere.
      const target = event.target as Element;
      if (target.closest("details") !== null) return;
      if (window.getSelection()?.isCollapsed === false && target !== show) return;
      this.choose(index);
    });
    return card;
  }
}
