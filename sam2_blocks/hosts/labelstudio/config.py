"""The labelling config of a project: which tags it has, and which of them takes our masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from sam2_blocks.hosts.bridge import NO_CLASS
from sam2_blocks.service.errors import RequestError

FORMS = ("brush", "polygon", "rectangle")
"""What a mask can become, the most exact first."""
LABELS = "labels"
MAX_CONFIG = 1_000_000


@dataclass(frozen=True)
class Label:
    """A label of a control tag.

    Attributes:
        name: what regions say.
        answers_to: names of classes that are this label, in lower case.
    """

    name: str
    answers_to: frozenset[str]


@dataclass(frozen=True)
class Control:
    """A control tag, such as ``<BrushLabels name="tag" toName="image">``.

    Attributes:
        name: its name.
        type: its tag in lower case, which is also the type of its regions.
        pictures: names of the pictures it is for.
        labels: its labels, in order; empty if it has none, or only the task knows them.
    """

    name: str
    type: str
    pictures: tuple[str, ...]
    labels: tuple[Label, ...] = ()

    @property
    def form(self) -> str:
        """``brush``, ``polygon``, ``rectangle``, …, with labels or without."""
        return self.type.removesuffix(LABELS) or LABELS

    @property
    def has_labels(self) -> bool:
        """Whether its regions carry labels."""
        return self.type.endswith(LABELS)


@dataclass(frozen=True)
class Target:
    """Where masks of a picture go.

    Attributes:
        picture: name of the picture's tag.
        control: the tag whose regions they become.
        labelled_by: the tag that labels them; the same, or a ``<Labels>`` beside it, or None.
    """

    picture: str
    control: Control
    labelled_by: Control | None = None

    def label_of(self, class_name: str) -> str | None:
        """Return the label that a class has, by its name, alias or ``predicted_values``.

        A project with a single label has every object under it that has no class of its own; one
        whose labels only its tasks know has every class.
        """
        labels = self.labelled_by.labels if self.labelled_by else ()
        if not labels:
            return None if class_name in NO_CLASS else class_name
        for label in labels:
            if class_name.lower() in label.answers_to:
                return label.name
        return labels[0].name if len(labels) == 1 and class_name in NO_CLASS else None

    def check_labels(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the labels that a labeller chose, as this target says them.

        Raises:
            RequestError: if it has no such label.
        """
        known = [label.name for label in self.labelled_by.labels] if self.labelled_by else []
        if not known:  # or only the task has them
            return tuple(names)
        if len(known) == 1:
            return (known[0],)
        found = [self.label_of(name) for name in names]
        if None in found:
            unknown = names[found.index(None)]
            raise RequestError(
                f"the label {unknown!r} is none of {self.control.name!r}, which has {known}. Give "
                "all control tags of the labelling config the same labels."
            )
        return tuple(name for name in found if name)


@dataclass(frozen=True)
class LabellingConfig:
    """What a project's labelling config says of pictures.

    Attributes:
        pictures: the field of a task's data that has the picture, by the name of its tag.
        controls: the control tags for them, in order.
    """

    pictures: Mapping[str, str]
    controls: tuple[Control, ...] = field(default=())

    def target(self, picture: str | None = None) -> Target:
        """Return where masks go: a Brush before a Polygon before a Rectangle, labelled or not.

        Args:
            picture: name of the picture's tag; the first if not given.

        Raises:
            RequestError: if there is no such picture, or no such control tag for it.
        """
        if not self.pictures:
            raise RequestError('the labelling config has no <Image value="$…"/> to segment.')
        picture = next(iter(self.pictures)) if picture is None else picture
        if picture not in self.pictures:
            raise RequestError(f"the labelling config has no <Image> {picture!r}.")
        own = [control for control in self.controls if picture in control.pictures]
        for form in FORMS:
            for control in own:
                if control.form == form:
                    return Target(picture, control, _labelling(control, own))
        raise RequestError(
            "the labelling config has no tag that takes masks: add <BrushLabels>, "
            f'<PolygonLabels> or <RectangleLabels> with toName="{picture}".'
        )


def read_config(text: str) -> LabellingConfig:
    """Read a labelling config.

    Args:
        text: the XML.

    Raises:
        RequestError: if it is none.
    """
    root = _parse(text)
    elements = list(root.iter())
    pictures = {
        str(element.get("name")): _field_of(element)
        for element in elements
        if element.tag == "Image" and element.get("name")
    }
    controls = (_to_control(element) for element in elements if element.get("toName"))
    return LabellingConfig(pictures, tuple(controls))


def _parse(text: str) -> ElementTree.Element:
    # Entities are no part of a labelling config, and a way to make much out of little.
    if len(text) > MAX_CONFIG or "<!DOCTYPE" in text.upper():
        raise RequestError(
            f"a labelling config has no DOCTYPE and at most {MAX_CONFIG} characters."
        )
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise RequestError(f"the labelling config is no XML: {error}.") from error


def _field_of(element: ElementTree.Element) -> str:
    return (element.get("value") or "").removeprefix("$")


def _to_control(element: ElementTree.Element) -> Control:
    pictures = tuple(name.strip() for name in element.get("toName", "").split(","))
    labels = tuple(_to_labels(element.iter("Label")))
    return Control(element.get("name") or "", str(element.tag).lower(), pictures, labels)


def _to_labels(elements: Iterable[ElementTree.Element]) -> Iterable[Label]:
    for element in elements:
        value, alias = element.get("value") or "", element.get("alias") or ""
        predicted = (element.get("predicted_values") or "").split(",")
        names = {name.strip().lower() for name in (value, alias, *predicted)}
        yield Label(alias or value, frozenset(names - {""}))


def _labelling(control: Control, own: Iterable[Control]) -> Control | None:
    """The tag that labels the regions of another."""
    if control.has_labels:
        return control
    return next((other for other in own if other.type == LABELS), None)


def picture_of(data: Mapping[str, Any], name: str) -> str:
    """Return the address of a task's picture.

    Args:
        data: of the task.
        name: the field that has it; dots lead into mappings.

    Raises:
        RequestError: if it is not there, or is no text.
    """
    value: Any = data
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if not isinstance(value, str) or not value:
        raise RequestError(f"the task's data has no address of a picture in {name!r}.")
    return value
