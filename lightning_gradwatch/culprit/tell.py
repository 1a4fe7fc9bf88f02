"""Puts what the replay found into the finding: names, numbers, one sentence."""

from __future__ import annotations

from dataclasses import replace

from lightning_gradwatch.culprit.find import Answer, Culprit
from lightning_gradwatch.detectors.sentences import amount
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.probe.parameters import layer_of_parameter

#: Names of operations and of derivatives, where those are not what a user would write.
_WORDS = {
    "addmm": "matrix product", "mm": "matrix product", "bmm": "matrix product",
    "baddbmm": "matrix product", "_softmax": "softmax", "softmax": "softmax",
    "_log_softmax": "log_softmax", "div": "division", "reciprocal": "division",
    "pow": "power", "linalgvectornorm": "norm", "linalg_vector_norm": "norm", "mul": "product",
    "_to_copy": "cast", "tocopy": "cast", "native_batch_norm": "batch_norm",
    "convolution": "convolution", "sub": "difference", "add": "sum",
}  # fmt: skip
#: So much of the user's line is quoted.
_QUOTED = 70


def name_culprit(
    finding: Finding, answer: Answer, batch_idx: int, last_finite: int | None = None
) -> Finding:
    """Return the finding with what the replay said.

    Args:
        finding: A `nonfinite` one.
        answer: What came of the replay.
        batch_idx: Index of the batch of the step.
        last_finite: Latest step before with a finite loss, if known.
    """
    culprit = answer.culprit
    evidence = dict(finding.evidence)
    evidence |= {"step": float(finding.first_step), "batch_idx": float(batch_idx)}
    evidence["replayed"] = float(answer.replayed)
    evidence["reproduced"] = float(culprit is not None and culprit.reproduced)
    summary = finding.summary
    if not answer.replayed:
        summary += f" Not replayed: {answer.why_not}."
    elif culprit is None:
        summary += f" Replayed, batch {batch_idx} gives finite numbers only"
        summary += "; that of another rank may be the cause." if answer.ranks > 1 else "."
    if culprit is None:
        return replace(finding, evidence=evidence, summary=summary)
    index = batch_idx if culprit.batch_idx < 0 else culprit.batch_idx
    evidence |= _numbers(culprit) | {"batch_idx": float(index)}
    if culprit.kind == "weight" and last_finite is not None:
        evidence["last_finite_step"] = float(last_finite)
    told = _sentence(culprit, finding.first_step, index, last_finite)
    return replace(
        finding,
        layers=_layers(culprit),
        evidence=evidence,
        summary=told if answer.replayed else f"{told[:-1]} (not replayed: {answer.why_not}).",
    )


def _numbers(culprit: Culprit) -> dict[str, float]:
    numbers = dict(culprit.facts)
    numbers["in_forward"] = float(not culprit.backward)
    numbers["is_nan"] = float(culprit.nan)
    numbers[f"culprit_{culprit.kind}"] = 1.0
    if culprit.line[1]:
        numbers["line"] = float(culprit.line[1])
    if culprit.limit:
        numbers["out_of_range"] = culprit.limit
    if culprit.kind not in ("batch", "weight", "buffer", "outside"):
        word = _word(culprit)
        numbers["masked"] = float(culprit.masked)
        numbers[f"of_{word}"] = 1.0
    return {name: value for name, value in numbers.items() if value == value}


def _layers(culprit: Culprit) -> tuple[str, ...]:
    if culprit.kind == "weight":
        return (layer_of_parameter(culprit.name),)
    if culprit.kind == "buffer":
        return (culprit.name.rpartition(".")[0],)
    if culprit.kind == "module":
        return (culprit.name,)
    if culprit.kind == "function":
        return tuple(name for name in culprit.between[:1] if name)
    return ()


def _sentence(culprit: Culprit, step: int, batch: int, last_finite: int | None) -> str:
    what = "NaN" if culprit.nan else "Inf"
    at = f"at step {step}, batch {batch}"
    if culprit.kind in ("batch", "weight", "buffer", "outside"):
        return _source(culprit, what, step, at, last_finite)
    way = "backward" if culprit.backward else "forward"
    given = "a finite gradient" if culprit.backward else "finite input"
    given = "-Inf" if culprit.masked else given
    if culprit.kind == "loss":
        who = f"The loss ({culprit.name})" if culprit.name not in ("", "(root)") else "The loss"
        given = given.replace("finite input", "a finite model output")
    elif culprit.kind == "module":
        who = f"{culprit.module_kind} ({culprit.name})"
    else:
        who = f"The {_word(culprit)}"
    before, after = culprit.between
    place = ""
    if culprit.kind != "loss" and (before or after):
        place = f" between {before} and {after}" if before and after else (
            f" after {before}" if before else f" before {after}"
        )  # fmt: skip
        place = place if culprit.kind == "function" else f",{place},"
    into = f"{what} in its {culprit.tensor}" if culprit.tensor == "weight gradient" else what
    file, number, text = culprit.line
    quoted = ""
    if file:
        text = text if len(text) <= _QUOTED else f"{text[: _QUOTED - 1]}…"
        quoted = f" ({file}:{number}: `{text}`)" if text else f" ({file}:{number})"
    did = f"{who}{place} turned {given} into {into} in the {way} pass {at}"
    return f"{did}: {_why(culprit)}{quoted}."


def _source(culprit: Culprit, what: str, step: int, at: str, last_finite: int | None) -> str:
    count = ""
    if culprit.facts:
        broken, values = culprit.facts["broken"], culprit.facts["values"]
        count = f" ({broken:,.0f} of {values:,.0f} values)"
    if culprit.kind == "batch":
        return f"The batch holds {what}: {culprit.name}{count}, {at}."
    if culprit.kind == "outside":
        return f"A tensor that is neither in the batch nor in the model holds {what}, {at}."
    since = "an earlier step made it so"
    if culprit.kind == "weight" and last_finite is not None:
        since = f"the loss was last finite at step {last_finite}"
    return f"{culprit.name} held {what}{count} before step {step} began: {since}."


def _word(culprit: Culprit) -> str:
    name = culprit.operation.rstrip("_")
    name = name.rstrip("0123456789") if name[:1].isupper() else name
    return _WORDS.get(name.lower(), name.lower().lstrip("_"))


def _why(culprit: Culprit) -> str:
    facts, word = culprit.facts, _word(culprit)
    if culprit.masked:
        if word == "softmax":
            return "a row of scores is masked from end to end, and its softmax is 0 / 0"
        return f"the {word} of an Inf that a mask had put there"
    if facts.get("empty"):
        return f"the {word} of no values"
    if culprit.limit:
        return (
            f"a value out of the range of {culprit.dtype} (up to {amount(culprit.limit)}), from "
            f"inputs of up to {amount(facts['largest_input'])}"
        )
    if culprit.backward:
        zero = " at 0" if facts.get("zeros") else ""
        return f"the derivative of {word}{zero} is not finite"
    if facts.get("zeros") and not (culprit.nan and facts.get("negatives")):
        return "a division by 0" if word in ("division", "rsqrt") else f"the {word} of 0"
    if facts.get("negatives"):
        return f"the {word} of a negative number"
    return f"in {word}"
