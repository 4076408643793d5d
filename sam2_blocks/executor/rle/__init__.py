"""Logits to run lengths on the device: upsample a mask's own region, clean it, count its runs."""
