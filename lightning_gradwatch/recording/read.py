"""Reading a recording back: whole, torn, or while it is being written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lightning_gradwatch.action_record import ActionRecord
from lightning_gradwatch.finding import Finding
from lightning_gradwatch.layers import Layout
from lightning_gradwatch.recording import schema
from lightning_gradwatch.recording.events import parse_action, parse_finding, read_lines
from lightning_gradwatch.recording.merge import join_columns, merge_findings, merge_layouts
from lightning_gradwatch.recording.recording import Profile, Recording
from lightning_gradwatch.recording.tables import Rows, read_table

_T = TypeVar("_T")


@dataclass
class _Segment:
    """One segment as it lies on disk."""

    number: int
    session: str
    about: Mapping[str, Any]
    layout: Layout
    steps: Rows
    updates: Rows
    profiles: list[Profile] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    actions: list[ActionRecord] = field(default_factory=list)


def read_recording(path: str | Path) -> Recording:
    """Read a recording.

    Rows that a resumed run made again are taken from the later segment. Torn ends, as a killed
    process leaves them, are skipped and named in `Recording.problems`.

    Args:
        path: A log directory, or the `gradwatch` folder in it.

    Raises:
        FileNotFoundError: There is no recording.
        ValueError: It was written by a newer version of this package, all of it.
    """
    folder = schema.recording_folder(path)
    numbers = schema.segment_numbers(folder)
    if not numbers:
        raise FileNotFoundError(f"no recording in {str(folder)!r}: it holds no segment-*.json")
    problems: list[str] = []
    segments = []
    newer = []
    for number in numbers:
        try:
            segment = _read_segment(folder, number, problems)
        except NewerVersionError as error:
            newer.append(str(error))
        else:
            segments += [segment] if segment is not None else []
    if newer and not segments:
        raise ValueError(newer[0])
    return _join(folder, segments, problems + newer)


class NewerVersionError(ValueError):
    """The segment was written by a version of this package that is newer than this one."""


def _read_segment(folder: Path, number: int, problems: list[str]) -> _Segment | None:
    """Read one segment; None if its layout is not known, with the reason in `problems`."""
    events, trouble = read_lines(folder / schema.EVENTS.format(number))
    problems += [trouble] * bool(trouble)
    about = read_about(folder / schema.META.format(number), problems)
    layout = Layout((), (), (), (), (), ())
    if about is None:
        if not events:
            return None
        about = {}
    else:
        layout = Layout.from_dict(about["layout"])
    tables = []
    for name, dtype in ((schema.STEPS, schema.steps_dtype), (schema.UPDATES, schema.updates_dtype)):
        table, trouble = (
            read_table(folder / name.format(number), dtype(len(layout.parameters)))
            if about
            else (np.zeros(0, dtype(0)), "")
        )
        problems += [trouble] * bool(trouble)
        tables.append(table)
    lines, trouble = read_lines(folder / schema.PROFILES.format(number))
    problems += [trouble] * bool(trouble)
    # A diagnosis is the fit's last word: it says again, merged, what the lines before it said.
    final = [entry for entry in events if entry.get("type") == "diagnosis"]
    found = (
        final[-1].get("findings", [])
        if final
        else [entry for entry in events if entry.get("type") == "finding"]
    )
    acted = [entry for entry in events if entry.get("type") == "action"]
    name = schema.EVENTS.format(number)
    return _Segment(
        number=number,
        session=str(about.get("session", f"segment {number}")),
        about=about,
        layout=layout,
        steps=tables[0],
        updates=tables[1],
        profiles=_parse(lines, Profile.from_dict, schema.PROFILES.format(number), problems),
        findings=_parse(found, parse_finding, name, problems),
        actions=_parse(acted, parse_action, name, problems),
    )


def read_about(path: Path, problems: list[str]) -> Mapping[str, Any] | None:
    """Read a segment's JSON; None if it is missing, torn or makes no sense.

    Raises:
        NewerVersionError: It was written by a newer version of this package.
    """
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        version = int(about["format_version"])
        if version > schema.FORMAT_VERSION:
            raise NewerVersionError(
                f"{path.name} has format version {version}; this lightning_gradwatch reads up to "
                f"{schema.FORMAT_VERSION}: pip install --upgrade lightning-gradwatch"
            )
        Layout.from_dict(about["layout"])
    except FileNotFoundError:
        # Normal for a run that has claimed its number and not made its first step.
        return None
    except NewerVersionError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        problems.append(f"{path.name} cannot be read, so its segment is left out ({error})")
        return None
    result: Mapping[str, Any] = about
    return result


def _parse(
    entries: Iterable[Any], parse: Callable[[Any], _T], name: str, problems: list[str]
) -> list[_T]:
    parsed = []
    failed = 0
    for entry in entries:
        try:
            parsed.append(parse(entry))
        except (KeyError, TypeError, ValueError, AttributeError):
            failed += 1
    if failed:
        problems.append(f"{name}: {failed:,} entries lack a field or have one that makes no sense")
    return parsed


def _join(folder: Path, segments: Sequence[_Segment], problems: list[str]) -> Recording:
    """Concatenate segments, dropping what a later one made again."""
    again: dict[int, int] = {}  # optimizer -> first step that a later segment has
    resumed: dict[str, int] = {}  # session -> first step of it
    kept: list[_Segment] = []
    for segment in reversed(segments):
        steps = segment.steps
        others = [step for session, step in resumed.items() if session != segment.session]
        before = min(others, default=np.iinfo(np.int64).max)
        kept.append(
            _Segment(
                number=segment.number,
                session=segment.session,
                about=segment.about,
                layout=segment.layout,
                steps=steps[_earlier(steps, again)],
                updates=segment.updates[_earlier(segment.updates, again)],
                profiles=[
                    p for p in segment.profiles if p.step < again.get(p.optimizer, p.step + 1)
                ],
                findings=[f for f in segment.findings if f.first_step < before],
                actions=[a for a in segment.actions if a.step < before],
            )
        )
        for optimizer in np.unique(steps["optimizer"]).tolist():
            first = int(steps["step"][steps["optimizer"] == optimizer].min())
            again[optimizer] = min(first, again.get(optimizer, first))
            resumed[segment.session] = min(first, resumed.get(segment.session, first))
    kept.reverse()
    layout = merge_layouts([segment.layout for segment in kept])
    last: Mapping[str, Any] = next((s.about for s in reversed(kept) if s.about), {})
    if not any(len(segment.steps) for segment in kept):
        problems.append("no step has been recorded yet")
    return Recording(
        folder=folder,
        layout=layout,
        norm_type=float(last.get("norm_type", 2.0)),
        rows=join_columns([(s.steps, s.layout) for s in kept], layout, schema.steps_dtype),
        updates=join_columns([(s.updates, s.layout) for s in kept], layout, schema.updates_dtype),
        profiles=tuple(p for s in kept for p in s.profiles),
        findings=merge_findings([(s.session, s.findings) for s in kept]),
        actions=tuple(a for s in kept for a in s.actions),
        config=dict(last.get("config", {})),
        environment=dict(last.get("environment", {})),
        started=tuple(str(s.about["started"]) for s in kept if "started" in s.about),
        problems=tuple(problems),
    )


def _earlier(rows: Rows, again: Mapping[int, int]) -> np.typing.NDArray[np.bool_]:
    """Return which rows no later segment has made again."""
    keep = np.ones(len(rows), np.bool_)
    for optimizer, step in again.items():
        keep &= (rows["optimizer"] != optimizer) | (rows["step"] < step)
    return keep
