// The diagnosis in plain words, on top of everything: what, where, why, and what to try.
import type { Run } from "../data/types";
import { capital, sentence } from "../model/words";
import { Card } from "./card";
import { fill, h, setText } from "./dom";

/** Findings shown at once; the rest is one click away. */
const SHOWN = 3;

export class Diagnosis {
  readonly element = h("section", { class: "diagnosis", "aria-label": "Diagnosis" });
  private readonly lamp = h("span", { class: "lamp", "aria-hidden": "true" });
  private readonly verdict = h("h2", {});
  private readonly scope = h("span", { class: "scope" });
  private readonly head = h("div", {}, this.lamp, this.verdict, this.scope);
  private readonly problems = h("div", { class: "problems" });
  private readonly list = h("div", { class: "cards" });
  private readonly more = h("button", { type: "button", class: "more" });
  private readonly acted = h("p", { class: "acted" });
  private readonly cards: Card[] = [];
  private all = false;
  private last: { run: Run; chosen: number | null; named: boolean } | undefined;

  constructor(private readonly choose: (finding: number) => void) {
    this.element.append(this.head, this.problems, this.list, this.more, this.acted);
    this.more.addEventListener("click", () => {
      this.all = !this.all;
      if (this.last !== undefined) this.update(this.last.run, this.last.chosen, this.last.named);
    });
  }

  /** Shows what was found; `named` says of which run, where there are two. */
  update(run: Run, chosen: number | null, named: boolean): void {
    this.last = { run, chosen, named };
    this.updateHead(run, named);
    fill(this.problems, JSON.stringify(run.problems), () =>
      run.problems.map((problem) => h("p", { class: "problem" }, sentence(problem))),
    );
    this.updateCards(run, chosen);
    const acted = run.actions.map(({ text }) => text).join(" · ");
    this.acted.hidden = acted === "";
    setText(this.acted, `What actions did: ${acted}`);
  }

  private updateHead(run: Run, named: boolean): void {
    const { verdict, healthy, scope, findings, complete, steps } = run;
    const worst = (findings[0]?.severity ?? "INFO").toLowerCase();
    // Nothing found is no health where nothing was recorded or learnt.
    const found = findings.some(({ severity }) => severity !== "INFO");
    const level = steps === 0 ? "info" : healthy ? "healthy" : found ? worst : "warning";
    this.head.className = `headline ${level}`;
    setText(this.lamp, level === "healthy" ? "✓" : level === "info" ? "–" : "!");
    setText(this.verdict, named ? `${run.run}: ${verdict}` : capital(verdict));
    setText(this.scope, complete ? scope : `${scope} · still reading`);
  }

  private updateCards({ findings }: Run, chosen: number | null): void {
    // A finding that was chosen by its mark is never hidden.
    const all = this.all || (chosen !== null && chosen >= SHOWN);
    const shown = findings.slice(0, all ? findings.length : SHOWN);
    shown.forEach((finding, index) => {
      let card = this.cards[index];
      if (card === undefined) {
        card = new Card(index, () => this.choose(index));
        this.cards.push(card);
        this.list.append(card.element);
      }
      card.update(finding, index === chosen, findings.length === 1);
    });
    for (const card of this.cards.splice(shown.length)) card.element.remove();
    this.more.hidden = findings.length <= SHOWN;
    setText(this.more, all ? "Show fewer" : `Show ${findings.length - SHOWN} more`);
  }
}
