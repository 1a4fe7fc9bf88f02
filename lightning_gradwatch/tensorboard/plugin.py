"""The plugin that TensorBoard loads: it serves the page and what the page shows.

Its import must never fail, since that would end TensorBoard for everybody, and it knows neither
torch nor Lightning. An error in an answer is an answer, too. `frontend/API.md` has the routes.
"""

from __future__ import annotations

import json
import mimetypes
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from lightning_gradwatch.view import answers
from lightning_gradwatch.view.catalogue import Catalogue, parse_logdir_spec
from lightning_gradwatch.view.files import RECENT, fingerprint
from lightning_gradwatch.view.run import RecordedRun
from lightning_gradwatch.view.tails import ReplacedError

STATIC = Path(__file__).parent / "static"

#: Seconds that the listing of plugins may wait for a look into the log directory.
PATIENCE = 0.5

Answer = TypeVar("Answer")
Start = Callable[..., Any]
App = Callable[[dict[str, Any], Start], Iterable[bytes]]


class GradWatchPlugin(base_plugin.TBPlugin):  # type: ignore[misc]  # TensorBoard has no types
    """The tab. TensorBoard makes it, through the entry point `tensorboard_plugins`.

    Args:
        context: What TensorBoard gives its plugins; the log directory is what is used of it.
    """

    plugin_name = "gradwatch"

    def __init__(self, context: base_plugin.TBContext) -> None:
        super().__init__(context)
        spec = getattr(context.flags, "logdir_spec", "") or ""
        logdir = getattr(context, "logdir", "") or getattr(context.flags, "logdir", "") or ""
        self._logdir = str(logdir or spec)
        folders = {"": str(logdir)} if logdir else parse_logdir_spec(spec)
        self._catalogue = Catalogue(folders)

    def get_plugin_apps(self) -> dict[str, App]:
        """Return what is served, by path."""
        routes: dict[str, Callable[[wrappers.Request], wrappers.Response]] = {
            "/runs": self._runs,
            "/run": self._run,
            "/map": self._map,
            "/step": self._step,
        }
        for path in STATIC.rglob("*") if STATIC.is_dir() else ():
            if path.is_file():
                routes[f"/{path.relative_to(STATIC).as_posix()}"] = _file(path)
        return {path: _guarded(answer) for path, answer in routes.items()}

    def is_active(self) -> bool:
        """Return whether there is a recording to show."""
        return bool(self._catalogue.look(PATIENCE))

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """Return where the page's module is, and what the tab is called."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="GradWatch")

    def _runs(self, request: wrappers.Request) -> wrappers.Response:
        found = self._catalogue.look()
        runs = []
        for name, path in found.items():
            version, latest = fingerprint(path)
            writing = time.time() - latest < RECENT
            runs.append({"run": name, "version": version, "writing": writing, "path": str(path)})
        problems = list(self._catalogue.problems)
        if not runs and not problems:
            problems.append(
                f"no recording below {self._logdir!r} yet. Train with callbacks=[GradWatch()]: it "
                "writes one below the log directory that a logger gives the run; without a logger, "
                "GradWatch(record=PATH) says where to. The first steps appear here by themselves"
            )
        return _json(
            request,
            {
                "format": answers.FORMAT,
                "logdir": self._logdir,
                "runs": runs,
                "problems": problems,
            },
        )

    def _open(self, request: wrappers.Request) -> tuple[RecordedRun, str]:
        name = request.args.get("run", "")
        run = self._catalogue.open(name)
        if run is None:
            choices = ", ".join(map(repr, list(self._catalogue.look())[:5])) or "none"
            raise answers.UnknownError(f"no run {name!r}; there are {choices}")
        return run, name

    def _run(self, request: wrappers.Request) -> wrappers.Response:
        run, name = self._open(request)
        return _json(request, _current(run, lambda: answers.describe(run, name)))

    def _map(self, request: wrappers.Request) -> wrappers.Response:
        run, name = self._open(request)
        rows = request.args.get("rows")
        make = partial(
            answers.bins,
            run,
            name,
            request.args.get("series", "grad_norm"),
            start=_integer(request, "from"),
            stop=_integer(request, "to"),
            most=_integer(request, "bins", 1000) or 0,
            stats=request.args.get("stats", "extreme").split(","),
            rows=None if not rows else [_whole("rows", row) for row in rows.split(",")],
        )
        return _respond(request, _current(run, make), "application/octet-stream")

    def _step(self, request: wrappers.Request) -> wrappers.Response:
        run, name = self._open(request)
        step = _integer(request, "step")
        if step is None:
            raise answers.QuestionError("which step? Ask for step=NUMBER")
        make = partial(answers.at_step, run, name, step, _integer(request, "layer"))
        return _json(request, _current(run, make))


def _current(run: RecordedRun, make: Callable[[], Answer]) -> Answer:
    """Return an answer on a run as it is now."""
    with run.lock:
        run.refresh()
        try:
            return make()
        except (ReplacedError, OSError):
            # A file was cut off or taken away between the look at it and the reading.
            run.refresh()
            return make()


def _integer(request: wrappers.Request, name: str, default: int | None = None) -> int | None:
    text = request.args.get(name)
    return default if text is None or text == "" else _whole(name, text)


def _whole(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise answers.QuestionError(f"{name} must be a whole number, got {text!r}") from None
    if abs(number) >= 2**63:
        raise answers.QuestionError(f"{name} is too large: {text}")
    return number


def _respond(
    request: wrappers.Request, content: str | bytes, kind: str, code: int = 200
) -> wrappers.Response:
    response: wrappers.Response = http_util.Respond(request, content, kind, code=code)
    return response


def _json(
    request: wrappers.Request, answer: Mapping[str, Any], code: int = 200
) -> wrappers.Response:
    text = json.dumps(answer, ensure_ascii=False, allow_nan=False)
    # A name on disk may hold bytes that are no text.
    data = text.encode("utf-8", "replace").decode("utf-8")
    return _respond(request, data, "application/json; charset=utf-8", code)


def _file(path: Path) -> Callable[[wrappers.Request], wrappers.Response]:
    kind = mimetypes.guess_type(path.name)[0] or "text/plain"
    if path.suffix in (".js", ".mjs"):
        kind = "text/javascript"  # some systems' tables say otherwise, and then it does not run
    return lambda request: _respond(request, path.read_bytes(), kind)


def _guarded(answer: Callable[[wrappers.Request], wrappers.Response]) -> App:
    """Return an application in which an error is an answer, with a sentence to show."""

    @wrappers.Request.application
    def app(request: wrappers.Request) -> wrappers.Response:
        try:
            return answer(request)
        except answers.QuestionError as error:
            return _json(request, {"format": answers.FORMAT, "error": str(error)}, 400)
        except answers.UnknownError as error:
            return _json(request, {"format": answers.FORMAT, "error": str(error)}, 404)
        except Exception as error:
            sentence = f"the recording cannot be shown: {type(error).__name__}: {error}"
            return _json(request, {"format": answers.FORMAT, "error": sentence}, 500)

    return app
