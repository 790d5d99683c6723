"""Acclaim skeletons (ASF) and motions (AMC), as in the CMU Graphics Lab's motion capture database.

Text from ``#`` (at the start of a line or after a blank) to the end of the line is a comment; commas and parentheses
are blanks; case does not matter. A bone's rotations are applied in the order in which its dof are listed, about axes
that ``axis`` rotates from the world's. Bones begin where their parent ends; here a bone's name is that of the joint at
its beginning, and ``NAME_end`` is the end of a chain.

Format: M. Schafer, Acclaim Skeleton File Definition V1.10, 1994.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from skeleton import Joint, Motion, Skeleton, continuous, rotation

from speechlvm.utils.errors import UserError
from speechlvm.utils.text import read_text

COMMENT = re.compile(r"(^|\s)#.*")
BLANKS = str.maketrans("(),", "   ")
ROTATIONS = ("rx", "ry", "rz")
TRANSLATIONS = ("tx", "ty", "tz")
UNITS = {"deg": ":degrees", "degree": ":degrees", "degrees": ":degrees", "rad": ":radians", "radians": ":radians"}


@dataclass(frozen=True)
class AcclaimSkeleton:
    """An ASF file: the skeleton, and the columns of values that its AMC files have.

    Attributes:
        skeleton: joints at the beginnings of bones and at the ends of chains.
        columns: by bone (and "root"), in the file's order: its dof, as ("rx", "ry", "rz").
        unit: of angles, ":degrees" or ":radians", also in motions that do not say it; None if it is not said.
    """

    skeleton: Skeleton
    columns: dict[str, tuple[str, ...]]
    unit: str | None


@dataclass
class _Bone:
    line: int
    direction: np.ndarray | None = None
    length: float | None = None
    axis: np.ndarray | None = None
    dof: tuple[str, ...] = ()
    limits: list[float] = field(default_factory=list)


class _Lines:
    """Line numbers and words, in lower case, of all lines that are not blank or comments."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = read_text(path).lower()
        self.lines = text.removesuffix("\n").split("\n")
        if not text.strip():
            raise UserError(f"{path}: empty; copy it again from the corpus")

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        for number, line in enumerate(self.lines, 1):
            if "#" in line:
                line = COMMENT.sub("", line)
            words = line.split()
            if words:
                yield number, words

    def error(self, number: int, message: str) -> UserError:
        return UserError(f"{self.path}:{number}: {message}")

    def floats(self, number: int, words: list[str], count: int, what: str) -> list[float]:
        """Exactly `count` finite numbers."""
        if len(words) != count:
            raise self.error(number, f"{what} has {len(words)} values; expected {count}")
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = [math.nan]
        if not math.isfinite(sum(values)):
            raise self.error(number, f"{what} is '{' '.join(words)}'; expected {count} finite numbers")
        return values


def read_asf(path: Path) -> AcclaimSkeleton:
    """Reads a skeleton.

    Raises:
        UserError: one line with the file and the line number.
    """
    lines = _Lines(path)
    sections: dict[str, list[tuple[int, list[str]]]] = {}
    last = 0
    for number, words in lines:
        last = number
        words = " ".join(words).translate(BLANKS).split()
        if words and words[0].startswith(":"):
            if words[0] in sections:
                raise lines.error(number, f"section {words[0]} is given twice")
            sections[words[0]] = section = [(number, words[1:])] if words[1:] else []
        elif not sections:
            raise lines.error(number, f"'{' '.join(words)}' before any section; expected ASF, e.g. :version 1.10")
        elif words:
            section.append((number, words))
    for name in (":root", ":bonedata", ":hierarchy"):
        if name not in sections:
            raise lines.error(last, f"no section {name} up to the end of the file; it is cut or not an ASF file")

    unit = {words[0]: (number, words[1:]) for number, words in sections.get(":units", [])}.get("angle")
    if unit is not None and " ".join(unit[1]) not in UNITS:
        raise lines.error(unit[0], f"angles in '{' '.join(unit[1])}'; expected deg or rad; convert them")
    unit = UNITS[unit[1][0]] if unit else None
    order, position = _read_root(lines, sections[":root"])
    bones = _read_bones(lines, sections[":bonedata"], unit)
    children = _read_hierarchy(lines, sections[":hierarchy"], bones)
    columns = {"root": order} | {name: bone.dof for name, bone in bones.items() if bone.dof}
    return AcclaimSkeleton(_skeleton(order, position, bones, children), columns, unit)


def _read_root(lines: _Lines, section: list[tuple[int, list[str]]]) -> tuple[tuple[str, ...], list[float]]:
    order, position, last = None, [0.0, 0.0, 0.0], 0
    for last, words in section:
        if words[0] == "order":
            order = tuple(words[1:])
            if sorted(order) != sorted(TRANSLATIONS + ROTATIONS):
                raise lines.error(last, f"root order {' '.join(order)}; expected each of tx ty tz rx ry rz once")
        elif words[0] == "position":
            position = lines.floats(last, words[1:], 3, "root position")
        elif words[0] == "orientation":
            if any(lines.floats(last, words[1:], 3, "root orientation")):
                raise lines.error(
                    last, f"root orientation {' '.join(words[1:])}; expected 0 0 0, as others are not read"
                )
        elif words[0] != "axis":
            raise lines.error(last, f"'{words[0]}' in :root; expected order, axis, position or orientation")
    if order is None:
        raise lines.error(last, "no order in :root; expected a line such as 'order TX TY TZ RX RY RZ'")
    return order, position


def _read_bones(lines: _Lines, section: list[tuple[int, list[str]]], unit: str | None) -> dict[str, _Bone]:
    bones: dict[str, _Bone] = {}
    bone, name, number = None, None, 0
    for number, words in section:
        key, values = words[0], words[1:]
        if key == "begin":
            if bone is not None:
                raise lines.error(number, f"'begin' within the bone of line {bone.line}; expected 'end' before it")
            bone, name = _Bone(number), None
        elif bone is None:
            raise lines.error(number, f"'{key}' outside of a bone; expected 'begin'")
        elif key == "end":
            if name is None:
                raise lines.error(number, f"the bone of line {bone.line} has no name")
            for what in ("direction", "length", "axis"):
                if getattr(bone, what) is None:
                    raise lines.error(number, f"bone {name} has no {what}")
            if bone.limits and len(bone.limits) != 2 * len(bone.dof):
                raise lines.error(number, f"bone {name} has {len(bone.limits)} limits; expected 2 for each of its dof")
            bones[name], bone = bone, None
        elif key == "name":
            name = " ".join(values)
            if not re.fullmatch(r"[a-z0-9_-]+", name) or name == "root" or name in bones:
                raise lines.error(number, f"bone name '{name}'; expected one word, once, and not root")
        elif key == "direction":
            bone.direction = np.array(lines.floats(number, values, 3, "direction"))
            if not 0.99 < np.linalg.norm(bone.direction) < 1.01:
                raise lines.error(number, f"direction {' '.join(values)} is not of length 1")
        elif key == "length":
            bone.length = lines.floats(number, values, 1, "length")[0]
        elif key == "axis":
            if len(values) != 4 or sorted(values[3]) != ["x", "y", "z"]:
                raise lines.error(
                    number, f"axis {' '.join(values)}; expected three angles and their order, e.g. 0 0 20 XYZ"
                )
            angles = np.array(lines.floats(number, values[:3], 3, "axis"))
            if unit == ":radians":
                angles = np.rad2deg(angles)
            # the angles are named by the order; the first named is applied first
            bone.axis = rotation(values[3][::-1], angles[None, ::-1])[0]
        elif key == "dof":
            bone.dof = tuple(values)
            if not set(values) <= set(ROTATIONS) or len(set(values)) != len(values):
                raise lines.error(number, f"dof {' '.join(values)}; expected some of rx ry rz, as others are not read")
        elif key == "limits" or (bone.limits and re.match(r"[-+.0-9]|-?inf", key)):
            values = values if key == "limits" else words
            bone.limits += [_limit(lines, number, value) for value in values]
        elif key not in ("id", "bodymass", "cofmass"):
            raise lines.error(number, f"'{key}' in a bone; expected name, direction, length, axis, dof or limits")
    if bone is not None:
        raise lines.error(number, f"the bone of line {bone.line} has no 'end'; the file is cut")
    if not bones:
        raise lines.error(number, "no bones in :bonedata")
    return bones


def _limit(lines: _Lines, number: int, word: str) -> float:
    return math.inf if word in ("inf", "-inf") else lines.floats(number, [word], 1, "limit")[0]


def _read_hierarchy(lines: _Lines, section: list[tuple[int, list[str]]], bones: dict[str, _Bone]) -> dict[str, list]:
    """The children of each bone; every bone has exactly one parent."""
    children: dict[str, list[str]] = {}
    reached = {"root"}
    number = 0
    for number, words in section:
        if words in (["begin"], ["end"]):
            continue
        parent, *below = words
        if parent not in reached:
            known = "has no parent above this line" if parent in bones else "is in no section :bonedata"
            raise lines.error(number, f"'{parent}' {known}")
        for name in below:
            if name not in bones:
                raise lines.error(number, f"'{name}' is in no section :bonedata")
            if name in reached:
                raise lines.error(number, f"'{name}' has a parent already")
            reached.add(name)
        children.setdefault(parent, []).extend(below)
    missing = [name for name in bones if name not in reached]
    if missing:
        raise lines.error(number, f"no parent up to the end of :hierarchy for {', '.join(missing)}; the file is cut")
    return children


def _skeleton(
    order: tuple[str, ...], position: list[float], bones: dict[str, _Bone], children: dict[str, list]
) -> Skeleton:
    root = "".join(dof[1] for dof in order if dof in ROTATIONS)[::-1]
    joints = [Joint("root", -1, tuple(position), root)]

    def add(name: str, parent: int, offset: np.ndarray) -> None:
        bone, place = bones[name], len(joints)
        rotations = "".join(dof[1] for dof in bone.dof)[::-1]
        joints.append(Joint(name, parent, tuple(offset.tolist()), rotations, tuple(map(tuple, bone.axis.tolist()))))
        end = bone.length * bone.direction
        for child in children.get(name, []):
            add(child, place, end)
        if not children.get(name):
            joints.append(Joint(f"{name}_end", place, tuple(end.tolist())))

    for name in children.get("root", []):
        add(name, 0, np.zeros(3))
    return Skeleton(tuple(joints))


def read_amc(path: Path, asf: AcclaimSkeleton) -> Motion:
    """Reads a motion of the skeleton.

    Angles are made continuous (see `skeleton.continuous`); they are otherwise as in the file.

    Raises:
        UserError: one line with the file and the line number.
    """
    lines = _Lines(path)
    places, stop = {}, 0
    for bone, dof in asf.columns.items():
        places[bone] = slice(stop, stop := stop + len(dof))
    unit, rate_hz, begin, first = None, None, None, 0
    rows: list[list[float]] = []
    row: list[str | None] = []
    number = 0
    for number, words in lines:
        name, place = words[0], places.get(words[0])
        if place is not None and begin is not None:
            if row[place.start] is not None:
                raise lines.error(number, f"bone {name} twice in frame {first + len(rows)}")
            if len(words) != place.stop - place.start + 1:
                raise lines.error(number, _count(name, words, place))
            row[place] = words[1:]
        elif name.isdecimal() and len(words) == 1:
            if begin is None:
                first = int(name)
            else:
                rows.append(_numbers(lines, begin, number, row, places, first + len(rows)))
            if int(name) != first + len(rows):
                raise lines.error(
                    number,
                    f"frame {name} after frame {first + len(rows) - 1}; expected the next one; copy it again, or "
                    "number them one after the other if none is missing",
                )
            row, begin = [None] * stop, number
        elif name == ":samples-per-second" and begin is None:
            [rate_hz] = lines.floats(number, words[1:], 1, name)
            if rate_hz <= 0:
                raise lines.error(number, f"{' '.join(words)}; expected a number above 0")
        elif name.startswith(":") and begin is None:
            unit = name if name in UNITS.values() else unit
        else:
            expected = "a keyword or a frame's number" if begin is None else "a bone of the skeleton or the next frame"
            raise lines.error(number, f"'{' '.join(words)[:60]}'; expected {expected}")
    if begin is None:
        raise lines.error(number, "no frames up to the end of the file; copy it again from the corpus")
    rows.append(_numbers(lines, begin, number, row, places, first + len(rows)))
    unit = unit or asf.unit
    if unit is None:
        raise UserError(
            f"{path}: does not say the unit of its angles; expected a line :DEGREES or :RADIANS, or in the skeleton's "
            ":units a line 'angle deg'"
        )
    return _motion(path, asf, np.array(rows), places, unit, rate_hz)


def _count(name: str, words: list[str], place: slice) -> str:
    return f"bone {name} has {len(words) - 1} values; expected {place.stop - place.start}, as in the skeleton"


def _numbers(
    lines: _Lines, begin: int, end: int, row: list[str | None], places: dict[str, slice], frame: int
) -> list[float]:
    """Values of the frame in lines `begin` to `end`."""
    if None in row:
        missing = [bone for bone, place in places.items() if row[place.start] is None]
        raise lines.error(
            end, f"frame {frame} has no {', '.join(missing)}; the file is cut or belongs to another skeleton"
        )
    try:
        values = list(map(float, row))
    except ValueError:
        values = [math.nan]
    if not math.isfinite(sum(values)):
        for number, words in lines:
            if number > begin and words[0] in places:
                lines.floats(number, words[1:], len(words) - 1, f"bone {words[0]}")
    return values


def _motion(
    path: Path,
    asf: AcclaimSkeleton,
    values: np.ndarray,
    places: dict[str, slice],
    unit: str,
    rate_hz: float | None,
) -> Motion:
    root = values[:, places["root"]]
    order = asf.columns["root"]
    turned = [index for index, dof in enumerate(order) if dof in ROTATIONS][::-1]
    # the product's order is the reverse of that in which dof are listed
    names = [name for name in (joint.name for joint in asf.skeleton.joints[1:]) if name in places]
    groups = [values[:, places[name]][:, ::-1] for name in names]
    if unit == ":radians":
        root = root.copy()
        root[:, turned] = np.rad2deg(root[:, turned])
        groups = [np.rad2deg(group) for group in groups]
    elif groups and max(abs(group).max() for group in groups) < 2 * math.pi:
        raise UserError(f"{path}: in degrees, but no angle exceeds 2 pi; if it is in radians it must say :RADIANS")
    offset = np.array(asf.skeleton.joints[0].offset)
    return Motion(
        position=root[:, [order.index(dof) for dof in TRANSLATIONS]] + offset,
        rotation=rotation(asf.skeleton.joints[0].rotations, root[:, turned]),
        angles=np.concatenate([continuous(group) for group in groups], axis=1) if groups else np.zeros((len(root), 0)),
        rate_hz=rate_hz,
    )
