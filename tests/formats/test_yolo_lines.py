from __future__ import annotations

import warnings

import numpy as np
import pytest

from sam2_blocks.errors import FileWarning
from sam2_blocks.formats.yolo_lines import DataSet, YoloLabels, find_data_set, read_data_set

HW = (150, 200)


@pytest.fixture
def load(tmp_path):
    """Read a text of a folder with other label files: xyxy, confidence and tracker id."""

    def run(text, *others, columns="auto", guess=None, labels=None, **options):
        for number, other in enumerate(others):
            (tmp_path / f"other{number}.txt").write_text(other)
        (tmp_path / "a.txt").write_text(text)
        labels = labels or YoloLabels(columns)
        if guess is None:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = labels.load(tmp_path / "a.txt", HW, **options)
        else:
            with pytest.warns(FileWarning, match=guess):
                found = labels.load(tmp_path / "a.txt", HW, **options)
        columns = (found.confidence, found.tracker_id)
        return found.xyxy.round(3).tolist(), *(None if c is None else c.tolist() for c in columns)

    return run


def test_a_track_is_a_box_with_confidence_and_id(load):
    xyxy, confidence, track = load(
        "1 0.4 0.4 0.4 0.4 0.87 1",
        guess="7 numbers are read as class, box, confidence and track id",
    )
    assert xyxy == [[40, 30, 120, 90]]
    assert confidence == pytest.approx([0.87])
    assert track == [1]


@pytest.mark.parametrize(
    "other",
    ["1 0.4 0.4 0.4 0.4 0.87 0.5", "1 0.4 0.4 0.4 0.4 1.001 2", "0 0.1 0.1 0.5 0.1 0.3 1.0"],
)
def test_one_other_line_in_the_data_set_makes_seven_numbers_triangles(load, other):
    xyxy, confidence, track = load("1 0.4 0.4 0.4 0.4 0.87 1", other)
    assert xyxy == [[80, 60, 174, 150]]
    assert confidence is track is None


@pytest.mark.parametrize(
    ("columns", "xyxy"),
    [("polygon", [80, 60, 174, 150]), ("track", [40, 30, 120, 90])],
)
def test_columns_say_what_is_meant(load, columns, xyxy):
    assert load("1 0.4 0.4 0.4 0.4 0.87 1", columns=columns)[0] == [xyxy]


def test_a_guess_is_said_once_a_folder(load):
    labels = YoloLabels()
    load("1 0.4 0.4 0.4 0.4 0.87 1", guess="track id", labels=labels)
    load("1 0.4 0.4 0.4 0.4 0.5 2", labels=labels)


def test_a_track_without_confidence_is_told_by_its_ids(load):
    lines = "0 0.4 0.4 0.4 0.4 1\n0 0.4 0.4 0.4 0.4 2\n"
    assert load(lines, guess="box and track id")[1:] == (None, [1, 2])
    assert load("0 0.4 0.4 0.4 0.4 1\n", "0 0.4 0.4 0.4 0.4 0.5\n")[1:] == ([1], None)


def test_outlines_of_a_tracker_end_in_confidence_and_id(load):
    outline = "0 .1 .1 .3 .1 .3 .4 .1 .4"
    corners = [[20, 15, 60, 60]]
    assert load(outline) == (corners, None, None)
    assert load(f"{outline} .75") == (corners, [0.75], None)
    assert load(f"{outline} 12", guess="outline and track id") == (corners, None, [12])
    found = load(f"{outline} .75 12", guess="outline, confidence and track id")
    assert found == (corners, [0.75], [12])


POINTS = "0.45 0.35 2 0.35 0.45 1 0 0 0"


def test_a_pose_is_its_box(load):
    assert load(f"0 0.4 0.4 0.4 0.4 {POINTS}", guess="box and keypoints")[0] == [[40, 30, 120, 90]]
    line = "0 0.4 0.4 0.4 0.4 0.45 0.35 0.35 0.45 0.4 0.4"
    beside = DataSet({}, 6)  # kpt_shape: [3, 2]
    assert load(line, beside=beside)[0] == [[40, 30, 120, 90]]
    assert load(f"{line} 0.5", beside=beside)[1] == [0.5]
    assert load(line, columns="pose")[0] == [[40, 30, 120, 90]]


@pytest.mark.parametrize(("tail", "sure", "track"), [("", None, None), (".75", [0.75], None)])
def test_a_model_s_pose_says_how_sure_it_is_of_each_point(load, tail, sure, track):
    points = "0.45 0.35 0.98 0.35 0.45 0.51 0.9 0.9 0.03 0.4 0.4 0.7 0.41 0.42 1"
    found = load(f"0 0.4 0.4 0.4 0.4 {points} {tail}", guess="keypoints that a model is more or")
    assert found == ([[40, 30, 120, 90]], sure, track)
    found = load(f"0 0.4 0.4 0.4 0.4 {points} .75 12", guess="keypoints that a model")
    assert found == ([[40, 30, 120, 90]], [0.75], [12])


def test_outlines_with_many_corners_are_no_poses(load):
    corners = "0.1 0.1 0.3 0.12 0.5 0.1 0.7 0.2 0.9 0.5 0.7 0.8 0.5 0.9 0.3 0.8 0.1 0.6 .05 .3"
    assert load(f"0 {corners}")[0] == [[10, 15, 180, 135]]  # as many as of five keypoints


@pytest.mark.parametrize("corners", range(9, 40))
@pytest.mark.parametrize("at", [0.45, 0.6, 0.8])
def test_outlines_wherever_they_are_are_no_poses(load, corners, at):
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    ring = at + 0.15 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    [[x0, y0, x1, y1]], *_ = load("0 " + " ".join(f"{one:.6f}" for one in ring.ravel()))
    middle = [(x0 + x1) / 2 / HW[1], (y0 + y1) / 2 / HW[0]]
    assert middle == pytest.approx([at, at], abs=0.01)


def test_a_pose_of_which_little_is_seen_is_one(load):
    line = "0 0.4 0.4 0.4 0.4" + " 0 0 0" * 3 + " 0.45 0.35 0.98" + " 0 0 0.02" * 13
    assert load(line, guess="keypoints that a model")[0] == [[40, 30, 120, 90]]


def test_an_outline_with_a_slit_of_no_width_is_no_pose(load):
    hole = "0.66 0.7 0.74 0.7 0.7 0.62"
    line = f"0 {hole} 0.7 0.54 0.86 0.54 0.86 0.86 0.54 0.86 0.54 0.54 0.7 0.54 0.7 0.62"
    assert load(line)[0] == [[108, 81, 172, 129]]


@pytest.mark.parametrize("corners", range(16, 40))
def test_an_outline_that_crosses_itself_somewhere_is_no_pose(load, corners):
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    turn[[3, 4]] = turn[[4, 3]]
    ring = 0.8 + 0.15 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    [[x0, _, x1, _]], *_ = load("0 " + " ".join(f"{one:.6f}" for one in ring.ravel()))
    assert [x0, x1] == pytest.approx([0.65 * 200, 0.95 * 200], abs=1)


def test_outlines_along_the_edge_are_no_poses(load):
    line = "0 0.1 0.1 0.5 0.1 1 0.5 1 0.9 0.5 1"  # 11 numbers, as of two keypoints
    assert load(line)[0] == [[20, 15, 200, 150]]


def test_an_oriented_box_is_the_box_around_it(load):
    line = "0 0.5 0.2 0.8 0.5 0.5 0.8 0.2 0.5"
    assert load(line, columns="obb")[0] == load(line)[0] == [[40, 30, 160, 120]]
    with pytest.raises(ValueError, match="7 numbers are no line of 'columns: obb'"):
        load("0 .1 .1 .2 .2 .3 .3", columns="obb")


def test_what_reaches_over_the_edge_is_clipped(load):
    assert load("0 0.5 0.5 1.002 0.5 1 1 0.5 1.002")[0] == [[100, 75, 200, 150]]
    with pytest.raises(ValueError, match=r"a\.txt, line 1: wants shares of the picture, 0 to 1"):
        load("0 0.5 0.5 1.2 0.5 1 0.9")


def test_comments_are_no_lines_and_classes_not_negative(load):
    assert load("# made by hand\n0 .5 .5 .2 .2\n")[0] == [[80, 60, 120, 90]]
    with pytest.raises(ValueError, match="line 1: wants a whole class number, 0 or more"):
        load("-1 .5 .5 .2 .2")


def test_a_blank_line_among_the_classes_counts(tmp_path):
    (tmp_path / "classes.txt").write_text("cup\n\nspoon\n")
    assert find_data_set(tmp_path).classes == {0: "cup", 2: "spoon"}


def test_a_wrong_line_is_named_or_left_out(load):
    text = "0 .5 .5 .2 .2\n\n0 .5\n"
    with pytest.raises(ValueError, match=r"a\.txt, line 3: wants a class and 4 numbers of a box"):
        load(text)
    found = load(text, guess="left out 1 lines that are wrong: .*line 3", skip_wrong=True)
    assert found[0] == [[80, 60, 120, 90]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "nc: 2\nnames: [cup, spoon]\n"),
        ("data.yaml", "names:\n  1: spoon\n  0: cup\n"),
        ("classes.txt", "cup\nspoon\n\n"),
    ],
)
def test_class_names_are_found_beside_or_above(tmp_path, name, text):
    labels = tmp_path / "labels" / "train"
    labels.mkdir(parents=True)
    (tmp_path / name).write_text(text)
    (labels / "a.txt").write_text("1 .5 .5 .2 .2\n5 .5 .5 .2 .2\n")
    found = YoloLabels().load(labels / "a.txt", HW)
    assert found.data["class_name"].tolist() == ["spoon", "5"]
    assert YoloLabels().load(labels / "a.txt", HW, ["a", "b"]).data["class_name"][0] == "b"


def test_keypoints_of_a_data_set_are_known(tmp_path):
    (tmp_path / "data.yaml").write_text("names: {0: person}\nkpt_shape: [17, 3]\n")
    assert find_data_set(tmp_path) == DataSet({0: "person"}, 51)


@pytest.mark.parametrize(
    ("text", "message"), [("names: [", "not YAML"), ("names: {a: b}", "'names' wants a list")]
)
def test_a_wrong_data_set_is_explained(tmp_path, text, message):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_data_set(tmp_path / "data.yaml")


def test_classes_have_no_outlines_of_nothing(load):
    assert load("")[0] == []
    assert np.array(load("0 .5 .5 0 0")[0]).tolist() == [[100, 75, 100, 75]]
