"""Skeletons with rotating joints, their motions, and positions of joints in space (forward kinematics).

Both file formats come down to the same tree. A joint j hangs at a fixed offset o_j from its parent p and rotates in a
frame A_j of its own (the identity in BVH, the bone's axis in ASF):

    R_j = R_p A_j M_j A_j^T,    x_j = x_p + R_p o_j,    M_j = R(first angle) R(second angle) ...

The end of a chain is a joint without angles. Up is y. Angles are in degrees, lengths in the unit of the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Joint:
    """One joint.

    Attributes:
        name: unique in its skeleton, in lower case.
        parent: place of the joint it hangs on, before its own; -1 for the root.
        offset: from the parent, in the parent's frame.
        rotations: axes of its angles in the order of the product, as "zyx"; "" for a rigid joint.
        axis: rows of the matrix A above.
    """

    name: str
    parent: int
    offset: tuple[float, float, float]
    rotations: str = ""
    axis: tuple[tuple[float, float, float], ...] = IDENTITY


@dataclass(frozen=True)
class Skeleton:
    """Joints, parents first; the root, whose motion is kept apart, is the first."""

    joints: tuple[Joint, ...]

    @property
    def angles(self) -> list[str]:
        """Names of all angles but the root's, as "lfemur_rx"."""
        return [f"{joint.name}_r{axis}" for joint in self.joints[1:] for axis in joint.rotations]


@dataclass(frozen=True)
class Motion:
    """The motion of a skeleton over T frames.

    Attributes:
        position: of the root, (T, 3).
        rotation: of the root, (T, 3, 3).
        angles: of the other joints, (T, A), in the order of `Skeleton.angles`.
        rate_hz: frames per second, if the file says it.
    """

    position: np.ndarray
    rotation: np.ndarray
    angles: np.ndarray
    rate_hz: float | None = None


def rotation(axes: str, degrees: np.ndarray) -> np.ndarray:
    """Products (T, 3, 3) of the rotations about `axes`, from left to right, by the columns of `degrees` (T, n)."""
    result = np.broadcast_to(np.eye(3), (len(degrees), 3, 3))
    for axis, angle in zip(axes, np.deg2rad(degrees).T, strict=True):
        i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        single = np.zeros((len(angle), 3, 3))
        single[:] = np.eye(3)
        single[:, i, i] = single[:, j, j] = np.cos(angle)
        single[:, j, i] = np.sin(angle)
        single[:, i, j] = -single[:, j, i]
        result = result @ single
    return result


def heading(matrices: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll (T, 3) in degrees of rotations (T, 3, 3), such that R = R_y(yaw) R_x(pitch) R_z(roll)."""
    yaw = np.arctan2(matrices[:, 0, 2], matrices[:, 2, 2])
    pitch = np.arcsin(np.clip(-matrices[:, 1, 2], -1, 1))
    roll = np.arctan2(matrices[:, 1, 0], matrices[:, 1, 1])
    return np.rad2deg(np.stack([yaw, pitch, roll], axis=1))


def continuous(degrees: np.ndarray) -> np.ndarray:
    """The same rotations (T, n) as angles that do not jump.

    Whole turns are added, and three angles (a, b, c) about three axes are replaced by (a + 180, 180 - b, c + 180), the
    same rotation, wherever that is nearer to the previous frame. The first frame keeps its choice between the two;
    whole turns are chosen such that each angle's median lies in [-180, 180).
    """
    if degrees.shape[1] == 3:
        other = np.array([180, 180, 180]) + degrees * np.array([1, -1, 1])
        stay = np.linalg.norm(_turned(degrees[1:] - degrees[:-1]), axis=1)
        change = np.linalg.norm(_turned(other[1:] - degrees[:-1]), axis=1)
        swapped = np.concatenate([[False], np.cumsum(change < stay) % 2 == 1])
        degrees = np.where(swapped[:, None], other, degrees)
    degrees = np.unwrap(degrees, axis=0, period=360)
    return degrees - 360 * np.floor((np.median(degrees, axis=0) + 180) / 360)


def _turned(degrees: np.ndarray) -> np.ndarray:
    """Angles less whole turns, in [-180, 180)."""
    return (degrees + 180) % 360 - 180


def joint_positions(skeleton: Skeleton, motion: Motion) -> np.ndarray:
    """Where all joints are: (T, J, 3), in the skeleton's order."""
    positions = np.zeros((len(motion.position), len(skeleton.joints), 3))
    positions[:, 0] = motion.position
    frames = [motion.rotation]
    used = 0
    for index, joint in enumerate(skeleton.joints[1:], 1):
        parent = frames[joint.parent]
        positions[:, index] = positions[:, joint.parent] + parent @ np.array(joint.offset)
        count = len(joint.rotations)
        if count:
            axis = np.array(joint.axis)
            parent = parent @ axis @ rotation(joint.rotations, motion.angles[:, used : used + count]) @ axis.T
        frames.append(parent)
        used += count
    return positions
