"""Actions: what may change training. None is on by default; they run in the order of their list.

Reading order: `training.py` (what can be done to a step), `protocol.py` (what an action is), then
any of the actions.
"""

from lightning_gradwatch.actions.adaptive_clip import AdaptiveClip
from lightning_gradwatch.actions.auto_clip import AutoClip
from lightning_gradwatch.actions.batch_file import SavedBatch, load_batch
from lightning_gradwatch.actions.clipping import ClipGradNorm, ClipGradValue
from lightning_gradwatch.actions.decay_lr import DecayLR
from lightning_gradwatch.actions.protocol import Action, StatefulAction
from lightning_gradwatch.actions.rescue import rescue
from lightning_gradwatch.actions.rollback import Rollback
from lightning_gradwatch.actions.save_batch import SaveBatch
from lightning_gradwatch.actions.skip_step import SkipStep
from lightning_gradwatch.actions.stop_training import StopTraining
from lightning_gradwatch.actions.training import Training
from lightning_gradwatch.actions.zclip import ZClip

__all__ = [
    "Action",
    "AdaptiveClip",
    "AutoClip",
    "ClipGradNorm",
    "ClipGradValue",
    "DecayLR",
    "Rollback",
    "SaveBatch",
    "SavedBatch",
    "SkipStep",
    "StatefulAction",
    "StopTraining",
    "Training",
    "ZClip",
    "load_batch",
    "rescue",
]
