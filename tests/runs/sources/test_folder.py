from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image as Pil

from sam2_blocks import load_pipeline
from sam2_blocks.engine.places import RunRequest
from sam2_blocks.errors import PipelineError, UsageError
from sam2_blocks.runs.sources.folder import PictureFiles, natural_key, picture_suffixes


@pytest.fixture
def find(plugins):
    """Find the pictures of inputs: ``find(input, …, out=None)``."""

    def make(*inputs, out=None, **declared):
        document = {
            "pipeline_version": 1,
            "inputs": {"image": {"kind": "image"}, **declared},
            "steps": {"embed": {"use": "sam2/embed@v1", "with": {"image": "$inputs.image"}}},
            "outputs": {"embedding": "$steps.embed.embedding"},
        }
        graph = load_pipeline(document, plugins.manifests, plugins.kinds)
        request = RunRequest(graph, plugins, out=out, max_pixels=1000)
        return PictureFiles([str(text) for text in inputs], request)

    return make


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b/c.PNG", "b/notes.txt", "._a.jpg", ".cache/d.jpg", "out/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def test_a_folder_is_searched_deeply_but_not_for_hidden_files(find, folder):
    found = find(folder)
    assert list(found.pictures) == ["a.jpg", "b/c.PNG", "out/e.jpg"]
    assert found.notes == ["left out: 2 hidden, 1 not named like a picture"]
    assert (found.total, found.alone, found.identity) == (3, False, str(folder))


def test_pictures_of_a_glob_are_named_below_its_part_without_wildcards(find, folder):
    assert list(find(f"{folder}/*/*.[jP]*").pictures) == ["b/c.PNG", "out/e.jpg"]
    assert list(find(f"{folder}/out/*.jpg").pictures) == ["e.jpg"]


def test_results_are_no_inputs(find, folder):
    found = find(folder, out=folder / "out")
    assert list(found.pictures) == ["a.jpg", "b/c.PNG"]
    assert found.notes == ["left out: 2 hidden, 1 not named like a picture, 1 in the output folder"]


@pytest.mark.parametrize("source", ["", "/*.jpg"])
def test_an_output_folder_with_all_the_pictures_is_named(find, folder, source):
    with pytest.raises(UsageError, match="all pictures there are in the output folder"):
        find(f"{folder}{source}", out=folder)


def test_nothing_is_an_error(find, folder):
    with pytest.raises(UsageError, match="no such file, folder or match"):
        find(f"{folder}/*.gif")
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match="the folder holds no picture; looked for"):
        find(folder / "empty")
    (folder / "empty" / "a.mp4").touch()
    with pytest.raises(UsageError, match=r"holds 1 videos and no picture; .*such as '\*\.mp4'"):
        find(folder / "empty")


def test_numbers_come_in_their_order(find, tmp_path):
    names = ["10.jpg", "2.jpg", "a 9/1.jpg", "a 10/1.jpg", "B.jpg", "1x.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    expected = ["1x.jpg", "2.jpg", "10.jpg", "a 9/1.jpg", "a 10/1.jpg", "B.jpg"]
    assert list(find(tmp_path).pictures) == expected
    assert list(find(f"{tmp_path}/*.jpg").pictures) == ["1x.jpg", "2.jpg", "10.jpg", "B.jpg"]
    assert natural_key(Path("01")) != natural_key(Path("1"))


def test_a_pattern_matches_each_file_once_also_in_a_circle_of_links(find, folder):
    (folder / "b" / "loop").symlink_to("..", target_is_directory=True)
    (folder / "link.jpg").symlink_to("a.jpg")  # a name of its own, as in a folder
    found = find(folder / "**" / "*.jpg")
    assert list(found.pictures) == ["a.jpg", "link.jpg", "out/e.jpg"]
    assert "seen before in a linked folder" in found.notes[0]
    assert find(folder / "*.jpg").notes == []


def test_linked_folders_are_followed_once(find, folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "f.jpg").write_text("")
    os.symlink(elsewhere, folder / "a link")
    os.symlink(elsewhere, folder / "z link")
    os.symlink(folder, folder / "b" / "loop")
    os.symlink(folder / "b", folder / "1 b")
    found = find(folder)
    assert list(found.pictures) == ["a link/f.jpg", "a.jpg", "b/c.PNG", "out/e.jpg"]
    assert "3 linked folders seen before" in found.notes[0]


def test_several_inputs_are_named_below_what_they_have_in_common(find, folder, monkeypatch):
    assert list(find(folder / "out", folder / "b").pictures) == ["out/e.jpg", "b/c.PNG"]
    assert list(find(folder / "a.jpg", folder).pictures) == ["a.jpg", "b/c.PNG", "out/e.jpg"]
    assert list(find(folder / "out" / "e.jpg", f"{folder}/out/*").pictures) == ["e.jpg"]
    monkeypatch.chdir(folder)
    assert list(find("out", f"{folder}/b/c.PNG").pictures) == ["out/e.jpg", "b/c.PNG"]


def test_every_format_that_pillow_opens_is_looked_for(find, folder):
    assert {".jfif", ".tga", ".pgm", ".jp2", ".webp"} <= picture_suffixes()
    assert not {".pdf", ".eps", ".mpg"} & picture_suffixes()
    (folder / "x.jfif").write_text("")
    assert "x.jfif" in find(folder).pictures


def test_a_file_that_changes_has_another_stamp(find, folder):
    [before] = find(folder / "a.jpg").items()
    (folder / "a.jpg").write_text("changed")
    [after] = find(folder / "a.jpg").items()
    assert before.stamp != after.stamp
    assert find(folder / "a.jpg").alone


def test_a_pipeline_with_two_pictures_is_refused(find, folder):
    with pytest.raises(PipelineError, match="got 'image' and 'other'; --set the others"):
        find(folder, other={"kind": "image"})


def test_frames_of_a_file_are_pictures(find, tmp_path):
    frames = [Pil.new("L", (4, 3), number) for number in range(3)]
    frames[0].save(tmp_path / "b.tif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.tif")
    found = find(tmp_path)
    assert list(found.pictures) == ["a.tif", "b.tif#0", "b.tif#1", "b.tif#2"]
    items = list(found.items())
    assert [item.inputs["image"]().pixels[0, 0, 0] for item in items] == [0, 0, 1, 2]
    assert len({item.stamp for item in items[1:]}) == 1
    assert not find(tmp_path / "b.tif").alone
    assert find(tmp_path / "a.tif").alone


def test_links_that_lead_nowhere_are_counted_as_such(find, folder):
    (folder / "gone.jpg").symlink_to(folder / "nothing.jpg")
    assert find(folder).notes == [
        "left out: 2 hidden, 1 links that lead nowhere, 1 not named like a picture"
    ]


def test_stereo_pictures_of_cameras_are_pictures(find, folder):
    (folder / "twin.mpo").write_text("")
    assert "twin.mpo" in find(folder).pictures
