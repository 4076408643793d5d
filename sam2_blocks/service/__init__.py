"""The service: `Sam2*` requests in, answers out, for any host that can await.

`core` is the way of one request: `images` → `names` → `lanes` (which gather requests into batches)
→ `logits` → `answers`. Nothing here knows HTTP; `sam2_blocks.hosts.http` does. Nothing imports
torch until a model is loaded.
"""

from sam2_blocks.service.core import Service
from sam2_blocks.service.models import ServedModels, load_models
from sam2_blocks.service.settings import ServiceSettings

__all__ = ["ServedModels", "Service", "ServiceSettings", "load_models"]
