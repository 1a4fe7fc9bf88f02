// One finding in words. A run that goes on changes the words; the card stays, with focus and folds.
import type { Finding } from "../data/types";
import { glyphOf, SEVERITY } from "../model/markers";
import { capital } from "../model/words";
import { fill, glyph, h, setAttribute, setText } from "./dom";

export class Card {
  readonly element = h("article", {});
  private readonly title = h("h3", {});
  private readonly where = h("p", { class: "where" });
  private readonly summary = h("p", { class: "summary" });
  private readonly cause = h("p", { class: "cause" });
  private readonly remedy = h("p", { class: "try" });
  private readonly others = h("details", {});
  private readonly show: HTMLButtonElement;

  constructor(index: number, chosen: () => void) {
    this.show = h(
      "button",
      { type: "button", class: "show", "data-finding": index },
      "Show in the map",
    );
    this.element.append(
      this.title,
      this.where,
      this.summary,
      this.cause,
      this.remedy,
      this.others,
      this.show,
    );
    this.element.addEventListener("click", (event) => {
      // Text can be selected and details unfolded without jumping somewhere.
      const target = event.target as Element;
      if (target.closest("details") !== null) return;
      if (window.getSelection()?.isCollapsed === false && target !== this.show) return;
      chosen();
    });
  }

  /** `single`: the headline has said the finding's name already. */
  update(finding: Finding, isChosen: boolean, single: boolean): void {
    const { code, title, severity, where, summary, cause, remedies } = finding;
    this.element.className = `card ${severity.toLowerCase()}${isChosen ? " chosen" : ""}`;
    const name = capital(single ? where : title);
    fill(this.title, JSON.stringify([code, name, severity]), () => {
      const { path, colour } = glyphOf(code);
      const badge = h("span", { class: "badge" }, SEVERITY[severity]);
      return [glyph(path, colour), h("span", {}, name), badge];
    });
    setText(this.where, where);
    this.where.hidden = single;
    setText(this.summary, summary);
    this.summary.hidden = summary === "";
    const [first, ...rest] = remedies;
    say(this.cause, "Why ", cause);
    say(this.remedy, "Try ", first ?? "");
    this.others.hidden = rest.length === 0;
    fill(this.others, JSON.stringify(rest), () => [
      h("summary", {}, rest.length === 1 ? "or something else" : `or one of ${rest.length} others`),
      h("ol", { start: 2 }, ...rest.map((remedy) => h("li", {}, remedy))),
    ]);
    setAttribute(this.show, "aria-pressed", String(isChosen));
  }
}

function say(element: HTMLElement, word: string, text: string): void {
  element.hidden = text === "";
  fill(element, text, () => [h("b", {}, word), text]);
}
