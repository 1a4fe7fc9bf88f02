"""The run on disk: every step in plain .npy tables, appended while it trains."""

from __future__ import annotations

from lightning_gradwatch.recording.read import read_recording
from lightning_gradwatch.recording.recording import Profile, Recording
from lightning_gradwatch.recording.write import RecordingWriter

__all__ = ["Profile", "Recording", "RecordingWriter", "read_recording"]
