"""Run by two processes: the sharded runs of `tests/distributed`, with numbers that come late.

How late differs from rank to rank, so that whoever waited for another one's numbers would hang.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from lightning_gradwatch import engine  # after the path is set
from tests.distributed import rescue_fsdp_script
from tests.ring.doors import LateDoor

if __name__ == "__main__":
    rank = int(os.environ.get("LOCAL_RANK", 0))
    engine.door_for = lambda devices: LateDoor((rank, 2 + 3 * rank))
    rescue_fsdp_script.main(*sys.argv[1:])
