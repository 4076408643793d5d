"""Hosts: other engines that our blocks run inside, one module a host, named like its extra.

An adapter converts in, calls `sam2_blocks.hosts.bridge.BlockBridge`, and converts out. Each module
has ``report(plugins) -> HostReport``, which imports neither the host nor torch.
"""

HOSTS = ("comfyui", "roboflow")
"""Every host, by the name of its module and, where it can be installed with pip, of its extra."""
