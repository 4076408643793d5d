from __future__ import annotations

from importlib.metadata import version

from sam2_blocks.installed import version_of


def test_what_is_installed_has_its_version_and_what_is_not_has_none():
    assert version_of("numpy") == version("numpy") != ""
    assert version_of("no-such-distribution-of-sam2-blocks") == ""


def test_what_has_left_its_folder_behind_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "left_behind").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    import left_behind  # a namespace, as Python sees it

    assert left_behind.__path__
    assert version_of("left-behind") == ""
