"""What an executor of any family needs, and ours is made of. Public; imports torch.

================  =================================================================================
`map_chunks`      work in chunks that fit the device; halves them when its memory runs out
`ByteCache`       results bounded in bytes; equal work, also of several threads, is done once
`logits_to_rles`  low-resolution logits on any device to exact run lengths and boxes at full size
`ensure_weights`  a verified download: continued, locked between processes, checked by SHA-256
`Seeded`          initial weights from a seed, while the process's random state stays as it is
`FairLock`        a device that threads use in the order they came
================  =================================================================================

``docs/executors.md`` writes an executor with them.
"""

from sam2_blocks.executor.cache.lru import ByteCache, CacheStats
from sam2_blocks.executor.device.chunks import map_chunks
from sam2_blocks.executor.device.fair_lock import FairLock
from sam2_blocks.executor.device.seeded import Seeded
from sam2_blocks.executor.rle.postprocess import logits_to_rles
from sam2_blocks.executor.weights.download import ensure_weights

__all__ = [
    "ByteCache",
    "CacheStats",
    "FairLock",
    "Seeded",
    "ensure_weights",
    "logits_to_rles",
    "map_chunks",
]
