"""How to use an executor. Arrays in, predictions out; no torch, no files, no YAML.

- from prompts: `segment` (all of a micro-batch), `tiles` (small objects in large pictures)
- without prompts: `automatic`, and `crops` of the picture too
- through a video: `tracking` (frame by frame), `propagation` (both ways through a clip)
- with detectors: `detect` (in tiles), `phrases` (as one text)
- `groups`: what can be done together is
"""
