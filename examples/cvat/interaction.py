"""Clicks and boxes to masks: ``cvat-cli function create-native --function-file`` this file."""

from sam2_blocks.hosts.cvat import interaction


def create(model="nano", device="auto"):
    return interaction.create(model, device)
