"""`gradwatch report`: what there is to say of a run, as text, markdown, JSON or HTML."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from lightning_gradwatch.cli.runs import UsageError, called, choose, find_runs, latest, read
from lightning_gradwatch.report import Report

#: Formats by the suffix of the file.
SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".json": "json", ".txt": "text"}
FORMATS = ("text", "html", "md", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("logdir", metavar="LOGDIR", help="log directory, or one run's")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write there; its suffix names the format"
    )
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="RUN",
        help="which run, as `gradwatch ls` names it; may be given several times "
        "(default: the one written to last)",
    )
    parser.add_argument("--format", choices=FORMATS, help="(default: by the suffix, else text)")


def run(args: argparse.Namespace) -> int:
    """Write the report.

    Raises:
        UsageError: The arguments do not fit what there is.
    """
    kind = args.format
    if kind is None:
        kind = SUFFIXES.get(args.output.suffix.lower(), "") if args.output else "text"
        if not kind:
            raise UsageError(
                f"which format is {args.output.name!r}? End it in one of {', '.join(SUFFIXES)}, or "
                f"choose --format {'|'.join(FORMATS)}"
            )
    found = find_runs(args.logdir)
    if args.run:
        chosen = choose(found, args.run)
    else:
        newest = latest(found)
        chosen = {newest: found[newest]}
        if len(found) > 1:
            print(
                f"gradwatch: this is {newest!r}, the latest of {len(found)} runs; "
                "--run RUN chooses, `gradwatch ls` lists them",
                file=sys.stderr,
            )
    names = {name: called(name, folder) for name, folder in chosen.items()}
    reports = {
        names[name]: Report.from_recording(read(name, folder)) for name, folder in chosen.items()
    }
    text = _written(reports, kind, args.output is None)
    if args.output is None:
        sys.stdout.write(text)
        return 0
    try:
        args.output.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"cannot write {str(args.output)!r}: {error.strerror or error}") from error
    print(f"{args.output}: {', '.join(report.verdict for report in reports.values())}")
    return 0


def _written(reports: dict[str, Report], kind: str, to_screen: bool) -> str:
    several = len(reports) > 1
    if kind == "html":
        from lightning_gradwatch.report.markup import to_html
        from lightning_gradwatch.view.shown import Shown

        runs: dict[str, Shown] = {}
        for name, report in reports.items():
            for shown in report.source.runs(report).values():
                runs[name] = shown
        return to_html(list(reports.values()), runs)
    if kind == "json":
        data = {name: report.to_dict() for name, report in reports.items()}
        plain = data if several else next(iter(data.values()))
        return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if kind == "md":
        parts = [f"<!-- {n} -->\n{r.to_markdown()}" if several else r.to_markdown()
                 for n, r in reports.items()]  # fmt: skip
        return "\n".join(parts)
    width = 100
    ascii_only = False
    if to_screen:
        if sys.stdout.isatty():
            width = max(60, min(140, shutil.get_terminal_size().columns))
        ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    texts = [report.to_text(width=width, ascii_only=ascii_only) for report in reports.values()]
    if several:
        texts = [f"{name}\n{text}" for name, text in zip(reports, texts, strict=True)]
    return "\n\n".join(texts) + "\n"
