"""Logits to run lengths on the device: upsample a mask's own region, clean it, count its runs.

`postprocess` is the way of a batch: `components` (holes and specks), `upsample` (inside the bounds
of a mask), then its runs; on CUDA `columns` finds those of many masks together. `overlap` gives a
pixel that several masks claim to one of them.
"""
