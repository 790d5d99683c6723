"""BVH: skeleton and motion in one file, as in conversions of the CMU database.

Case of keywords does not matter, lines may be broken anywhere in HIERARCHY; each frame is one line of MOTION. A
joint's name is the rest of its line, with "_" for blanks. A joint's rotations are multiplied in the order in which its
channels are listed; its positions may stand anywhere among them. Positions of joints other than the root must not move:
what exporters write there is the joint's OFFSET once more, or zeros.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from skeleton import Joint, Motion, Skeleton, continuous, rotation

from speechlvm.utils.errors import UserError
from speechlvm.utils.text import read_text

ROOT_CHANNELS = ["xp", "xr", "yp", "yr", "zp", "zr"]
CHANNEL = re.compile(r"([xyz])(rotation|position)")
FRAMES = re.compile(r"\s*frames\s*:?\s*(\S+)\s*", re.IGNORECASE)
FRAME_TIME = re.compile(r"\s*frame\s*time\s*:?\s*(\S+)\s*", re.IGNORECASE)
STILL_SHARE = 1e-3  # of the longest bone, by which positions that do not move may differ: exporters compute them


@dataclass(frozen=True)
class BvhFile:
    """What a BVH file holds.

    Attributes:
        skeleton: its joints; ``NAME_end`` is the end site of joint NAME.
        motion: its frames.
        oddities: what was tolerated, as warnings count it.
    """

    skeleton: Skeleton
    motion: Motion
    oddities: tuple[str, ...]


class _Words:
    """The words of the hierarchy, one after the other, with their line numbers."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self.path = path
        self.words = [
            (number, word)
            for number, line in enumerate(lines, 1)
            for word in line.replace("{", " { ").replace("}", " } ").split()
        ]
        self.last = len(lines)

    def error(self, number: int, message: str) -> UserError:
        return UserError(f"{self.path}:{number}: {message}")

    def next(self, *expected: str) -> str:
        """The next word, in lower case; one of `expected`, if given."""
        if not self.words:
            raise self.error(self.last, "the hierarchy ends here; the file is cut")
        number, word = self.words.pop(0)
        if expected and word.lower() not in expected:
            raise self.error(number, f"'{word}'; expected {' or '.join(expected)}")
        return word.lower()

    def name(self) -> str:
        """The next word and those behind it in its line, up to a brace, as one word."""
        number, words = self.number, [self.next()]
        while self.words and self.number == number and self.words[0][1] != "{":
            words.append(self.next())
        return "_".join(words)

    @property
    def number(self) -> int:
        """Line of the next word."""
        return self.words[0][0] if self.words else self.last

    def floats(self, count: int, what: str) -> list[float]:
        number = self.number
        words = [self.next() for _ in range(count)]
        return _floats(f"{self.path}:{number}", words, what)


def _floats(where: str, words: list[str], what: str) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = [math.nan]
    if not math.isfinite(sum(values)):
        bad = next((word for word in words if not re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", word, re.I)), words[0])
        raise UserError(f"{where}: {what} has '{bad}'; expected finite numbers")
    return values


def read_bvh(path: Path) -> BvhFile:
    """Reads a BVH file.

    Raises:
        UserError: one line with the file and the line number.
    """
    text = read_text(path)
    if not text.strip():
        raise UserError(f"{path}: empty; copy it again from the corpus")
    lines = text.removesuffix("\n").split("\n")
    motion = next((index for index, line in enumerate(lines) if line.strip().lower() == "motion"), None)
    words = _Words(path, lines[:motion])
    words.next("hierarchy")
    words.next("root")
    joints, channels = _read_joints(words)
    if words.words:
        raise words.error(
            words.number,
            f"'{words.next()}' after the root's end; expected MOTION, as one root is read; give each body its own file",
        )
    if motion is None:
        raise words.error(len(lines), "no line MOTION up to the end of the file; it is cut or not a BVH file")
    values, rate_hz, oddities = _read_frames(path, lines, motion, sum(map(len, channels)))
    columns = [
        dict(zip(kinds, part.T, strict=True))
        for kinds, part in zip(channels, np.split(values, np.cumsum([*map(len, channels)])[:-1], axis=1), strict=True)
    ]
    turns = [_stack(of, joint.rotations, "r") for joint, of in zip(joints, columns, strict=True) if joint.rotations]
    first = 0
    if len(values) > 1 and not turns[0][0].any() and turns[0][1].any():
        # a pose with an unturned root, which converters put before the motion
        oddities.append("trials begin with a rest pose that is no motion and was left out")
        first = 1
    if any(kind[1] == "p" for kinds in channels[1:] for kind in kinds):
        oddities.append(
            "trials have positions of all joints; as those below the root do not move, they were read as offsets"
        )
        joints[1:] = _with_offsets(path, joints[1:], columns[1:], first)
    result = Motion(
        position=_stack(columns[0], "xyz", "p")[first:] + np.array(joints[0].offset),
        rotation=rotation(joints[0].rotations, turns[0][first:]),
        angles=np.concatenate([values[first:, :0], *(continuous(turn[first:]) for turn in turns[1:])], axis=1),
        rate_hz=rate_hz,
    )
    return BvhFile(Skeleton(tuple(joints)), result, tuple(oddities))


def _stack(columns: dict[str, np.ndarray], axes: str, kind: str) -> np.ndarray:
    """Values (T, len(axes)) of a joint's channels of one kind."""
    return np.stack([columns[axis + kind] for axis in axes], axis=1)


def _with_offsets(path: Path, joints: list[Joint], columns: list[dict[str, np.ndarray]], first: int) -> list[Joint]:
    """The joints with their positions, if they have any, as offsets; a frame before `first` is none.

    Raises:
        UserError: a joint moves.
    """
    positions = [{axis: of[axis + "p"][first:] for axis in "xyz" if axis + "p" in of} for of in columns]
    lengths = [joint.offset for joint in joints] + [[column[0]] for of in positions for column in of.values()]
    least = STILL_SHARE * max(abs(length) for some in lengths for length in some)
    result = []
    for joint, of in zip(joints, positions, strict=True):
        moved = max(map(np.ptp, of.values()), default=0.0)
        if moved > least:
            raise UserError(
                f"{path}: positions of joint {joint.name} change by {moved:.4g}; expected only the root to move, as "
                "bones have fixed lengths; export it so (in Blender with Root Translation Only, root_transform_only)"
            )
        # zeros are what is added to OFFSET, as the root's positions are
        if any(abs(column[0]) > least for column in of.values()):
            known = dict(zip("xyz", joint.offset, strict=True)) | {
                axis: float(column[0]) for axis, column in of.items()
            }
            joint = replace(joint, offset=tuple(known[axis] for axis in "xyz"))
        result.append(joint)
    return result


def _read_joints(words: _Words) -> tuple[list[Joint], list[list[str]]]:
    """Joints in the order of the file, and the channels of each as "xr" or "xp"."""
    joints: list[Joint] = []
    channels: list[list[str]] = []
    names: set[str] = set()
    parents = [-1]
    while True:
        number = words.number
        name = words.name()
        if name in names or name == "{":
            raise words.error(number, f"joint name '{name}'; expected a name that no other joint has; rename it")
        names.add(name)
        words.next("{")
        words.next("offset")
        offset = tuple(words.floats(3, "OFFSET"))
        number, kinds = words.number, []
        if (word := words.next("channels", "joint", "end", "}")) == "channels":
            kinds = _read_channels(words)
            word = words.next("joint", "end", "}")
        if not joints and sorted(kinds) != ROOT_CHANNELS:
            raise words.error(
                number, f"root {name} has channels {' '.join(kinds)}; expected three positions and rotations"
            )
        joints.append(Joint(name, parents[-1], offset, "".join(kind[0] for kind in kinds if kind[1] == "r")))
        channels.append(kinds)
        parents.append(len(joints) - 1)
        while word != "joint":
            if word == "}":
                parents.pop()
                if len(parents) == 1:
                    return joints, channels
            else:
                while words.next() != "{":  # "Site", and maybe a name
                    pass
                words.next("offset")
                end = tuple(words.floats(3, "OFFSET"))
                words.next("}")
                joints.append(Joint(f"{joints[parents[-1]].name}_end", parents[-1], end))
                channels.append([])
            word = words.next("joint", "end", "}")


def _read_channels(words: _Words) -> list[str]:
    """Channels of a joint as "xr" or "xp", from behind the word CHANNELS."""
    number, count = words.number, words.next()
    listed = [words.next() for _ in range(int(count))] if count.isdecimal() and int(count) <= 9 else []
    matches = [CHANNEL.fullmatch(word) for word in listed]
    if None in matches or len(set(listed)) != len(listed) or count != str(len(listed)):
        raise words.error(
            number, f"CHANNELS {count} {' '.join(listed)}; expected as many rotations and positions as it says"
        )
    return [match[1] + match[2][0] for match in matches]


def _read_frames(path: Path, lines: list[str], motion: int, width: int) -> tuple[np.ndarray, float, list[str]]:
    """Values (T, width), frames per second, and what was odd."""
    filled = ((number, line) for number, line in enumerate(lines[motion + 1 :], motion + 2) if line.strip())
    head: list[tuple[int, float]] = []
    for pattern, (number, line) in zip((FRAMES, FRAME_TIME), filled, strict=False):
        match = pattern.fullmatch(line)
        if not match:
            raise UserError(f"{path}:{number}: '{line.strip()}'; expected 'Frames: N', then 'Frame Time: SECONDS'")
        try:
            value = float(match[1])
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise UserError(f"{path}:{number}: '{line.strip()}'; expected a number above 0")
        head.append((number, value))
    if len(head) < 2:
        raise UserError(f"{path}:{len(lines)}: no 'Frames:' and 'Frame Time:' after MOTION; the file is cut")
    rows = []
    for number, line in filled:
        words = line.split()
        if len(words) != width:
            raise UserError(f"{path}:{number}: {len(words)} values; expected {width}, one for each channel")
        rows.append(_floats(f"{path}:{number}", words, f"frame {len(rows) + 1}"))
    (number, count), (_, seconds) = head
    if not rows or abs(len(rows) - count) > 1:
        raise UserError(
            f"{path}:{number}: says {count:.0f} frames, but {len(rows)} follow; copy it again, or correct the number"
        )
    oddities = []
    if len(rows) != count:
        oddities.append("trials have a frame more or less than they say (Frames: N); those that are there were read")
    return np.array(rows), 1 / seconds, oddities
