from __future__ import annotations

import importlib
import inspect
import pkgutil

from lightning_gradwatch import detectors
from lightning_gradwatch.finding import CODES


def _classes():
    """Every class in the folder that has `update(self, sample)`, protocols aside."""
    for module in pkgutil.iter_modules(detectors.__path__, f"{detectors.__name__}."):
        for name, thing in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(thing) and thing.__module__ == module.name and name[0] != "_":
                update = getattr(thing, "update", None)
                if update and "sample" in inspect.signature(update).parameters:
                    yield thing


def test_every_detector_is_listed():
    built_in = {c for c in _classes() if not getattr(c, "_is_protocol", False)}
    assert {c.__name__ for c in built_in} <= set(detectors.__all__)
    assert {type(d) for d in detectors.default_detectors()} == built_in


def test_defaults_are_fresh_each_time():
    one, other = detectors.default_detectors(), detectors.default_detectors()
    assert not {id(d) for d in one} & {id(d) for d in other}


def test_each_is_a_stateful_detector():
    assert all(isinstance(d, detectors.StatefulDetector) for d in detectors.default_detectors())


def test_a_file_is_named_for_the_code_it_finds():
    files = {type(d).__module__.rpartition(".")[2] for d in detectors.default_detectors()}
    assert files <= set(CODES)
