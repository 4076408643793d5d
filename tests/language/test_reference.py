from __future__ import annotations

from ruamel.yaml import YAML

from sam2_blocks.kinds import BUILTIN_KINDS
from sam2_blocks.language.manifest import load_manifest
from sam2_blocks.language.reference import block_overview, block_table, describe
from tests.language.test_manifest import GOOD

KINDS = {kind.name: kind for kind in BUILTIN_KINDS}
ECHO = load_manifest(GOOD, "echo.yaml", KINDS)
OLD = ECHO.model_copy(update={"deprecated": "use demo/echo@v2."})


def test_the_table_has_a_row_a_block_sorted_by_id():
    first = ECHO.model_copy(update={"id": "a/b@v1"})
    assert block_table([ECHO, first]).splitlines()[2:] == [
        "| `a/b@v1` | Returns what it gets. | `image` | `image` |",
        "| `demo/echo@v1` | Returns what it gets. | `image` | `image` |",
    ]


def test_a_parameter_is_told_with_its_bounds_its_default_and_its_unit():
    lines = describe(ECHO).splitlines()
    assert "- `image` (`image`, required): " in lines
    assert "- `level` (number, ≥ 0, ≤ 1, default 0.5): Level. Unit: px." in lines
    assert "- `mode` (one of a, b, default a): Mode." in lines
    assert "- `count` (integer, required): Count." in lines


def test_rules_over_inputs_are_told(plugins):
    page = describe(plugins.manifests["sam2/segment@v1"])
    assert "- exactly one of `image`, `embedding`" in page


def test_a_deprecated_block_says_so_in_both():
    assert "**Deprecated:** use demo/echo@v2." in describe(OLD).splitlines()
    assert "| Deprecated. Returns what it gets. |" in block_table([OLD])
    assert "eprecated" not in describe(ECHO) + block_table([ECHO])


def test_examples_are_steps_as_they_are_written(plugins):
    text = describe(plugins.manifests["detections/load@v1"])
    shown = text[text.index("## Examples") :]
    step = YAML(typ="safe", pure=True).load(shown.split("```yaml")[1].split("```")[0])["step"]
    assert step["use"] == "detections/load@v1"
    assert step["with"] == {"image": "$inputs.image", "missing": "empty"}


def test_the_overview_has_a_row_for_each_namespace_without_deprecated_blocks():
    other = ECHO.model_copy(update={"id": "other/echo@v1"})
    assert block_overview([other, ECHO, OLD]).splitlines()[2:] == [
        f"| `{ECHO.id.partition('/')[0]}/` | `{ECHO.id.partition('/')[2]}` {ECHO.title} |",
        f"| `other/` | `echo@v1` {ECHO.title} |",
    ]
