"""The report as HTML: as one file, in a notebook, and with names that are no names."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from lightning_gradwatch import GradWatch, Report
from lightning_gradwatch.finding import Finding, Severity
from lightning_gradwatch.history import History
from lightning_gradwatch.report.markup import SCRIPT, fragment
from lightning_gradwatch.testing import make_sample

EVIL = '</script><img src=x onerror="alert(1)"> & ]]>'


class Wellformed(HTMLParser):
    """Fails on tags that are not closed in order; collects scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag == "script":
            self.scripts.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(text: str) -> Wellformed:
    parser = Wellformed()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def embedded(text: str) -> dict:
    found = re.search(r'id="gradwatch-data">\n(.*?)\n</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def evil() -> Report:
    history = History()
    for t in range(30):
        history.append(make_sample(t, {f"{EVIL}.weight": 1.0, "b.weight": float("nan")}))
    finding = Finding(EVIL, Severity.ERROR, (EVIL,), 1, 2, 2, {"x": float("nan")}, EVIL, EVIL,
                      (EVIL,))  # fmt: skip
    return Report.build(history, [finding], config={EVIL: EVIL}, problems=[EVIL])


def test_one_file_with_everything_in_it(tmp_path: Path):
    text = evil().save(tmp_path / "report.html").read_text(encoding="utf-8")
    page = parse(text)
    assert [script.get("type") for script in page.scripts] == ["application/json", "module"]
    assert all("src" not in script for script in page.scripts)
    assert {"img", "link", "iframe"}.isdisjoint(page.seen)
    assert "default-src 'none'" in text
    data = embedded(text)
    (name,) = data["run"]
    assert data["run"][name]["layers"][0]["name"] == EVIL
    assert data["run"][name]["findings"][0]["code"] == EVIL
    assert set(data["maps"][name]) >= {"grad_norm"}
    assert SCRIPT.read_text(encoding="utf-8") in text


def test_the_module_may_stand_in_a_script_element():
    assert not re.search(r"</script|<!--", SCRIPT.read_text(encoding="utf-8"), re.IGNORECASE)


def test_a_notebook_shows_the_diagnosis_without_scripts():
    text = evil()._repr_html_()
    page = parse(text)
    assert page.scripts == []
    assert "table" in page.seen
    assert "What to try" in text
    parse(fragment(Report()))
    assert "nothing to judge" in fragment(Report())
    assert "img" not in page.seen


def test_a_report_without_a_run_is_words_only(tmp_path: Path):
    text = Report(steps=3, parameters=1, layers=1).save(tmp_path / "r.html").read_text()
    page = parse(text)
    assert page.scripts == []
    assert "Nothing was found" in text


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)
        )

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.net(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


@pytest.mark.parametrize("recorded", [True, False])
def test_after_a_fit(tmp_path: Path, recorded: bool):
    """The view is drawn from the recording; without one from the history. They are the same."""
    watch = GradWatch(record=tmp_path / "run" / "gradwatch" if recorded else False)
    data = DataLoader(torch.randn(40, 4), batch_size=4)
    Trainer(max_epochs=2, callbacks=[watch], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False).fit(Net(), data)  # fmt: skip
    text = watch.report().save(tmp_path / "report.html").read_text(encoding="utf-8")
    found = embedded(text)
    name = "run" if recorded else "this run"
    about = found["run"][name]
    assert about["steps"] == 20
    assert about["last_step"] == watch.history.steps[-1]
    series = [s["name"] for s in about["series"]]
    assert {"grad_norm", "strips", "update_ratio", "flow"} <= set(series)
    assert ("weight_norm" in series) == recorded
    assert about["environment"]["torch"] == torch.__version__
    assert about["epochs"] == 2
    first = next(s for s in found["steps"][name] if s["step"] == about["first_step"])
    assert first["series"]["grad_norm"]["values"][0] == pytest.approx(
        watch.history.layer_grad_norm[0, 0], rel=1e-6
    )


def test_a_run_that_goes_on_while_its_report_is_made(tmp_path: Path):
    from lightning_gradwatch.recording import RecordingWriter, read_recording

    writer = RecordingWriter(tmp_path, buffer_rows=1)
    for t in range(5):
        writer.add(make_sample(t, [1.0], loss=1.0 + t))
    report = Report.from_recording(read_recording(tmp_path))
    writer.add(make_sample(5, [1.0], loss=6.0))
    writer.close([])
    (about,) = embedded(report.to_html())["run"].values()
    assert about["steps"] == 6


def test_a_folder_with_another_run_in_it_is_not_taken_for_this_one(tmp_path: Path):
    from lightning_gradwatch.recording import RecordingWriter

    writer = RecordingWriter(tmp_path)
    history = History()
    for t in range(5):
        writer.add(make_sample(t, [7.0], loss=3.0))
        history.append(make_sample(t, [1.0], loss=2.0))
    writer.close([])
    report = Report.build(history, folder=tmp_path)
    (shown,) = report.source.runs(report).values()
    assert shown.series["grad_norm"].most.tolist() == [1.0]
