"""Hosts: other engines that our blocks run inside, one module a host, named like its extra.

An adapter converts in, calls `sam2_blocks.hosts.bridge.BlockBridge`, and converts out. A host is
registered by the hook ``register_hosts``, ours in `sam2_blocks.engine.builtin`: it has
``report(plugins) -> HostReport``, which imports neither the host nor torch.
"""
