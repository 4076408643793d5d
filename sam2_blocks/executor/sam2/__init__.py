"""The SAM 2 executor, which `executor` is; `loading` makes its network, `model` runs it.

One picture's way: `preprocess` (pixels to a square) → `encode` (to an embedding) → `rows` (prompts
to tensors) → `decode` (to low-resolution logits) → `answer` (to masks). Without prompts, `propose`
takes the place of `answer`. `ahead` encodes pictures that are announced.

A video's way: `session` (objects of one video) → `follow` (one frame) → `frames` (to an embedding),
`heads` (answers) and `memory` (what is remembered).

Faster forward passes of parts of the network, each with the network's own as its reference and a
test that compares the two:

- encoder: `trunk`, `nested`
- mask decoder: `two_way`, `folded`
- memory: `memory_attention`, `memory_encoder`

`backend` has parts computed by OpenVINO, `int8` and `calibrate` are for its rounded weights, and
`packaged` and `packaging` are for an encoder that was compiled ahead of time.
"""
