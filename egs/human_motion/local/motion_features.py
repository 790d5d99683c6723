"""Conversion of a motion to real-valued frames, and back.

A frame says what changed in place and direction since the frame before, and everything else as it is:

    root_side root_ahead    how far the root has moved along the ground since the frame before, to the left and ahead of
                            where the body was heading then
    root_height             of the root
    root_turn               degrees that the heading has turned since the frame before
    root_pitch root_roll    degrees, the rest of the root's orientation: R = R_y(heading) R_x(pitch) R_z(roll)
    lfemur_rx ...           degrees, the joint angles of the file, free of jumps by whole turns

Frames do not depend on where in the room a motion begins and in which direction, and nothing else is lost: `decode`
recovers the motion, starting at the origin and heading along z. The first frame of a recording is only the reference
for the second. Angles do not jump (`skeleton.continuous`), so that they have a sensible density; sine and cosine lie on
a circle, where a density over the plane is unbounded. Lengths are in the file's unit.
"""

from __future__ import annotations

import numpy as np
from skeleton import Motion, continuous, heading, rotation

ROOT = ("root_side", "root_ahead", "root_height", "root_turn", "root_pitch", "root_roll")


def encode(motion: Motion, every: int) -> np.ndarray:
    """Values (T', 6 + A) of each `every`-th frame but the first, in the order of `ROOT` and the skeleton's angles."""
    # jumps are removed in all frames: between kept ones an angle may change by more than half a turn
    turned = continuous(heading(motion.rotation))[::every]
    position = motion.position[::every]
    moved = rotation("y", -turned[:-1, :1]) @ np.diff(position, axis=0)[:, :, None]
    root = [moved[:, 0, 0], moved[:, 2, 0], position[1:, 1], np.diff(turned[:, 0]), turned[1:, 1], turned[1:, 2]]
    return np.concatenate([np.stack(root, axis=1), motion.angles[::every][1:]], axis=1)


def decode(values: np.ndarray) -> Motion:
    """The motion of values (T, 6 + A)."""
    side, ahead, height, turn, pitch, roll = values[:, : len(ROOT)].astype(np.float64).T
    yaw = np.cumsum(turn)
    before = yaw - turn
    moved = rotation("y", before[:, None]) @ np.stack([side, np.zeros_like(side), ahead], axis=1)[:, :, None]
    position = np.cumsum(moved[:, :, 0], axis=0)
    position[:, 1] = height
    return Motion(position, rotation("yxz", np.stack([yaw, pitch, roll], axis=1)), values[:, len(ROOT) :])
