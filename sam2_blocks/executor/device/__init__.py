"""What any model on a device needs, whatever its family.

- memory: `chunks` (work that fits), `budget` (a bound for all threads), `transfer` (to and fro)
- threads: `fair_lock` (one at a time, in order), `workers` (one core each)
- speed: `compiling`, `graphs` (CUDA), `recorded` (CPU), `packages` and `packaging` (compiled ahead)
- numbers: `precision` (what the device is fast in), `seeded` (weights from a seed)
- the machine: `found`
"""
