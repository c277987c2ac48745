"""Which process of a training with several of them this is."""

from __future__ import annotations

import os


def is_helper_process() -> bool:
    """Whether another process of the same training is the main one."""
    ranks = ("LOCAL_RANK", "RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return any(int(os.environ.get(name, "0")) > 0 for name in ranks)
