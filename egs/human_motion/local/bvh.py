"""BVH: skeleton and motion in one file, as the conversions of the CMU database have them.

Case of keywords does not matter, lines may be broken anywhere in HIERARCHY; each frame is one line of MOTION. A
joint's rotations are multiplied in the order in which its channels are listed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skeleton import Joint, Motion, Skeleton, continuous, rotation

from speechlvm.errors import UserError
from speechlvm.text import read_text

CHANNEL = re.compile(r"([xyz])(rotation|position)")


@dataclass(frozen=True)
class BvhFile:
    """What a BVH file holds.

    Attributes:
        skeleton: its joints; ``NAME_end`` is the end site of joint NAME.
        motion: its frames.
        rate_hz: frames per second.
        rest_pose_first: a first frame that is no motion (a pose with an unturned root that converters put before the
            motion) was left out.
    """

    skeleton: Skeleton
    motion: Motion
    rate_hz: float
    rest_pose_first: bool


class _Words:
    """The words of the hierarchy, one after the other, with their line numbers."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self.path = path
        self.words = [(number, word) for number, line in enumerate(lines, 1) for word in line.split()]
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
            words.number, f"'{words.next()}' after the root's end; expected MOTION, as only one root is read"
        )
    if motion is None:
        raise words.error(len(lines), "no line MOTION up to the end of the file; it is cut or no BVH file")
    values, rate_hz = _read_frames(path, lines, motion, sum(map(len, channels)))

    turns, stop, root = [], 0, None
    for names in channels:
        columns = values[:, stop : (stop := stop + len(names))]
        if root is None:
            root = {name: columns[:, index] for index, name in enumerate(names)}
        elif names:
            turns.append(columns)
    skeleton = Skeleton(tuple(joints))
    rest = len(values) > 1 and all(root[f"{axis}r"][0] == 0 for axis in "xyz")
    rest = rest and any(root[f"{axis}r"][1] != 0 for axis in "xyz")
    kept = slice(1 if rest else 0, None)
    result = Motion(
        position=np.stack([root[f"{axis}p"] for axis in "xyz"], axis=1)[kept] + np.array(joints[0].offset),
        rotation=rotation(joints[0].rotations, np.stack([root[f"{a}r"] for a in joints[0].rotations], axis=1)[kept]),
        angles=np.concatenate([continuous(turn[kept]) for turn in turns], axis=1) if turns else values[kept, :0],
    )
    return BvhFile(skeleton, result, rate_hz, rest)


def _read_joints(words: _Words) -> tuple[list[Joint], list[list[str]]]:
    """Joints in the order of the file, and the channels of each as "xr" or "xp"."""
    joints: list[Joint] = []
    channels: list[list[str]] = []
    names: set[str] = set()
    parents = [-1]
    while True:
        number = words.number
        name = words.next()
        if name in names or name == "{":
            raise words.error(number, f"joint name '{name}'; expected a name that no other joint has")
        names.add(name)
        words.next("{")
        words.next("offset")
        offset = tuple(words.floats(3, "OFFSET"))
        number = words.number
        words.next("channels")
        count = words.next()
        listed = [words.next() for _ in range(int(count))] if count.isdecimal() and int(count) <= 6 else []
        matches = [CHANNEL.fullmatch(word) for word in listed]
        if None in matches or len(set(listed)) != len(listed) or count != str(len(listed)):
            raise words.error(number, f"CHANNELS {count} {' '.join(listed)}; expected as many as it says, as Xrotation")
        kinds = [match[1] + match[2][0] for match in matches]
        positions = sum(kind[1] == "p" for kind in kinds)
        if positions != (0 if joints else 3) or (not joints and len(kinds) != 6):
            expected = (
                "only rotations, as its bones have fixed lengths" if joints else "three positions and three rotations"
            )
            raise words.error(number, f"joint {name} has channels {' '.join(listed)}; expected {expected}")
        joints.append(Joint(name, parents[-1], offset, "".join(kind[0] for kind in kinds if kind[1] == "r")))
        channels.append(kinds)
        parents.append(len(joints) - 1)
        while (word := words.next("joint", "end", "}")) != "joint":
            if word == "end":
                words.next("site")
                words.next("{")
                words.next("offset")
                end = tuple(words.floats(3, "OFFSET"))
                words.next("}")
                joints.append(Joint(f"{joints[parents[-1]].name}_end", parents[-1], end))
                channels.append([])
            else:
                parents.pop()
                if len(parents) == 1:
                    return joints, channels


def _read_frames(path: Path, lines: list[str], motion: int, width: int) -> tuple[np.ndarray, float]:
    """Values (T, width) and frames per second."""
    number, head = motion + 1, []
    while len(head) < 2 and number < len(lines):
        if lines[number].strip():
            head.append((number + 1, lines[number].lower().replace(":", " : ").split()))
        number += 1
    count, seconds = 0, 0.0
    for (where, words), expected in zip(head, (["frames", ":"], ["frame", "time", ":"]), strict=False):
        value = words[len(expected) :]
        if words[: len(expected)] != expected or len(value) != 1:
            raise UserError(
                f"{path}:{where}: '{lines[where - 1].strip()}'; expected 'Frames: N', then 'Frame Time: SECONDS'"
            )
        if expected[0] == "frames":
            count = int(value[0]) if value[0].isdecimal() else 0
        else:
            seconds = _floats(f"{path}:{where}", value, "Frame Time")[0]
        if (count, seconds) == (0, 0.0) or seconds < 0 or (len(expected) == 3 and seconds == 0):
            raise UserError(f"{path}:{where}: '{lines[where - 1].strip()}'; expected a number above 0")
    if len(head) < 2:
        raise UserError(f"{path}:{len(lines)}: no 'Frames:' and 'Frame Time:' after MOTION; the file is cut")
    rows = []
    for place in range(number, len(lines)):
        words = lines[place].split()
        if not words:
            continue
        if len(words) != width:
            raise UserError(f"{path}:{place + 1}: {len(words)} values; expected {width}, one for each channel")
        rows.append(_floats(f"{path}:{place + 1}", words, f"frame {len(rows) + 1}"))
    if len(rows) != count:
        raise UserError(f"{path}:{head[0][0]}: says {count} frames, but {len(rows)} follow; copy it again")
    return np.array(rows), 1 / seconds
