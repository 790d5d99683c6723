"""The CMU Graphics Lab's motion capture database in small: people who walk in circles, as ASF and AMC or as BVH."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

RATE_HZ = 120
# name, parent, direction, length, axis (degrees, XYZ), dof; the database's bones and dof, with round numbers.
BONES = """
lhipjoint root 0.6 -0.72 0.35 2.5 0 0 0 -
lfemur lhipjoint 0.34 -0.94 0 7.4 0 0 20 rx ry rz
ltibia lfemur 0.34 -0.94 0 7.3 0 0 20 rx
lfoot ltibia 0.08 -0.24 0.97 2.3 -90 0 20 rx rz
ltoes lfoot 0 0 1 1.1 -90 0 20 rx
rhipjoint root -0.6 -0.72 0.35 2.5 0 0 0 -
rfemur rhipjoint -0.34 -0.94 0 7.4 0 0 -20 rx ry rz
rtibia rfemur -0.34 -0.94 0 7.3 0 0 -20 rx
rfoot rtibia -0.08 -0.24 0.97 2.3 -90 0 -20 rx rz
rtoes rfoot 0 0 1 1.1 -90 0 -20 rx
lowerback root 0.01 0.99 -0.07 2.05 0 0 0 rx ry rz
upperback lowerback 0.02 0.99 -0.03 2.05 0 0 0 rx ry rz
thorax upperback 0.01 0.99 0.01 2.05 0 0 0 rx ry rz
lowerneck thorax -0.02 0.99 0.1 1.7 0 0 0 rx ry rz
upperneck lowerneck 0.04 0.99 -0.06 1.7 0 0 0 rx ry rz
head upperneck 0.02 0.99 -0.04 1.7 0 0 0 rx ry rz
lclavicle thorax 0.95 0.29 -0.06 3.5 0 0 0 ry rz
lhumerus lclavicle 1 0 0 5 180 -30 -90 rx ry rz
lradius lhumerus 1 0 0 3.4 180 -30 -90 rx
lwrist lradius 1 0 0 1.7 0 90 90 ry
lhand lwrist 1 0 0 0.7 0 90 90 rx rz
lfingers lhand 1 0 0 0.6 0 90 90 rx
lthumb lwrist 0.7 0 0.7 0.8 -90 45 0 rx rz
rclavicle thorax -0.95 0.29 -0.06 3.5 0 0 0 ry rz
rhumerus rclavicle -1 0 0 5 180 30 90 rx ry rz
rradius rhumerus -1 0 0 3.4 180 30 90 rx
rwrist rradius -1 0 0 1.7 0 -90 -90 ry
rhand rwrist -1 0 0 0.7 0 -90 -90 rx rz
rfingers rhand -1 0 0 0.6 0 -90 -90 rx
rthumb rwrist -0.7 0 0.7 0.8 -90 -45 0 rx rz
"""
STILL = ("lclavicle", "rclavicle", "lfingers", "rfingers")


class Bone:
    """A line of the table above, its length scaled to a subject."""

    def __init__(self, line: str, scale: float) -> None:
        words = line.split()
        self.name, self.parent = words[:2]
        numbers = [float(word) for word in words[2:9]]
        self.direction = np.array(numbers[:3]) / np.linalg.norm(numbers[:3])
        self.length = round(scale * numbers[3], 4)
        self.axis = numbers[4:7]
        self.dof = [word for word in words[9:] if word != "-"]

    @property
    def end(self) -> np.ndarray:
        """Of the bone, from its beginning."""
        return self.length * self.direction


def bones_of(subject: int) -> list[Bone]:
    """The skeleton of a subject, taller or smaller than others."""
    scale = 1 + 0.02 * (subject % 7 - 3)
    return [Bone(line, scale) for line in BONES.strip().splitlines()]


def motion(subject: int, trial: int, frames: int) -> dict[str, np.ndarray]:
    """Values (frames, dof) of the root and of each bone that has dof: a walk in a circle, with swinging limbs."""
    generator = np.random.default_rng(1000 * subject + trial)
    time = np.arange(frames) / RATE_HZ
    pace = 2 * np.pi * (0.9 + 0.2 * generator.random())
    # Round in six seconds, so that the angle in the file jumps from 180 to -180 degrees.
    heading = 60 * time + 6 * np.sin(pace * time) + 360 * generator.random()
    radius = 15 + 5 * generator.random()
    turned = Rotation.from_euler("YXZ", np.stack([heading, 3 * np.sin(pace * time), 2 * np.cos(pace * time)], 1), True)
    place = np.stack(
        [
            -radius * np.cos(np.deg2rad(heading)),
            16.5 + 0.4 * np.sin(2 * pace * time),
            radius * np.sin(np.deg2rad(heading)),
        ],
        axis=1,
    )
    values = {"root": np.concatenate([place, turned.as_euler("xyz", degrees=True)], axis=1)}
    for bone in bones_of(subject):
        if bone.name in STILL:
            values[bone.name] = 7.12502 + 1e-14 * generator.standard_normal((frames, len(bone.dof)))
        elif bone.dof:
            size = 25 if "femur" in bone.name or "humerus" in bone.name else 8
            phase = (np.pi if bone.name.startswith("r") else 0) + generator.random(len(bone.dof))
            noise = 0.02 * generator.standard_normal((frames, len(bone.dof)))
            values[bone.name] = (
                size * np.sin(pace * time[:, None] + phase) + generator.normal(0, 5, len(bone.dof)) + noise
            )
    return values


def asf_text(subject: int) -> str:
    """The skeleton as an ASF file."""
    lines = ["# AST/ASF file generated using VICON BodyLanguage", "# " + "-" * 47, ":version 1.10", ":name VICON"]
    lines += [":units", "  mass 1.0", "  length 0.45", "  angle deg", ":documentation", "   a walker: that is all"]
    lines += [":root", "   order TX TY TZ RX RY RZ", "   axis XYZ", "   position 0 0 0  ", "   orientation 0 0 0 "]
    lines.append(":bonedata")
    bones = bones_of(subject)
    for number, bone in enumerate(bones, 1):
        lines += ["  begin", f"     id {number} ", f"     name {bone.name}"]
        lines += [f"     direction {' '.join(f'{x:.9g}' for x in bone.direction)} ", f"     length {bone.length:g} "]
        lines.append(f"     axis {' '.join(f'{x:g}' for x in bone.axis)}   XYZ")
        if bone.dof:
            limits = ["(-160.0 20.0)", "(-70.0 70.0)", "(-60.0 70.0)"][: len(bone.dof)]
            lines += [f"    dof {' '.join(bone.dof)}", "    limits " + "\n           ".join(limits)]
        lines.append("  end")
    lines += [":hierarchy", "  begin"]
    for parent in ["root", *(bone.name for bone in bones)]:
        children = [bone.name for bone in bones if bone.parent == parent]
        if children:
            lines.append(f"    {parent} {' '.join(children)}")
    return "\n".join([*lines, "  end", ""])


def amc_text(values: dict[str, np.ndarray]) -> str:
    """A motion as an AMC file."""
    lines = ["#!OML:ASF D:\\Walks\\Walk.ASF", ":FULLY-SPECIFIED", ":DEGREES"]
    for frame in range(len(values["root"])):
        lines.append(str(frame + 1))
        lines += [f"{name} {' '.join(f'{x:.6g}' for x in columns[frame])}" for name, columns in values.items()]
    return "\n".join([*lines, ""])


def bvh_text(subject: int, values: dict[str, np.ndarray]) -> str:
    """The same as a BVH file as converters write it: three rotations to a joint, a rest pose before the motion."""
    bones = bones_of(subject)
    lines, columns = ["HIERARCHY"], [values["root"][:, :3]]

    def turned(bone: Bone) -> Rotation:
        axis = Rotation.from_euler("xyz", bone.axis, degrees=True)
        order = "".join(dof[1] for dof in bone.dof)
        if not order:
            return Rotation.identity(len(values["root"]))
        return axis * Rotation.from_euler(order, values[bone.name].reshape(-1, len(order)), True) * axis.inv()

    def add(name: str, offset: np.ndarray, rotation: Rotation, depth: int) -> None:
        indent = "\t" * depth
        lines.append(f"{indent}{'JOINT' if depth else 'ROOT'} {name}")
        lines.extend([f"{indent}{{", f"{indent}\tOFFSET {' '.join(f'{x:.6f}' for x in offset)}"])
        place = "" if depth else "Xposition Yposition Zposition "
        lines.append(f"{indent}\tCHANNELS {3 if depth else 6} {place}Zrotation Yrotation Xrotation")
        columns.append(rotation.as_euler("ZYX", degrees=True))
        end = next((bone.end for bone in bones if bone.name == name), np.zeros(3))
        children = [bone for bone in bones if bone.parent == name]
        for bone in children:
            add(bone.name, end, turned(bone), depth + 1)
        if not children:
            lines.extend(
                [f"{indent}\tEnd Site", f"{indent}\t{{", f"{indent}\t\tOFFSET {' '.join(f'{x:.6f}' for x in end)}"]
            )
            lines.append(f"{indent}\t}}")
        lines.append(f"{indent}}}")

    add("root", np.zeros(3), Rotation.from_euler("xyz", values["root"][:, 3:], degrees=True), 0)
    table = np.concatenate(columns, axis=1)
    rest = np.concatenate([table[0, :3], np.zeros(table.shape[1] - 3)])
    lines += ["MOTION", f"Frames: {len(table) + 1}", "Frame Time: .0083333"]
    lines += [" ".join(f"{x:.5f}" for x in row) for row in [rest, *table]]
    return "\n".join([*lines, ""])


def make(root: Path, subjects: int = 11, trials: int = 1, frames: int = 600, kind: str = "amc") -> Path:
    """The database below ``<root>/all_asfamc/subjects`` (or ``<root>/bvh``), with what copies of it have besides.

    Names in capitals, DOS line ends, comments and blank lines, files that are not of the corpus, a skeleton without
    trials, a trial that is there twice.

    Args:
        root: where it is laid out.
        subjects: how many.
        trials: of each subject.
        frames: of each trial at 120 Hz, a little more in each next one.
        kind: "amc", or "bvh".

    Returns:
        The directory that holds the subjects'.
    """
    corpus = root / ("all_asfamc/subjects" if kind == "amc" else "bvh")
    for subject in range(1, subjects + 1):
        home = corpus / f"{subject:02d}"
        home.mkdir(parents=True)
        upper = subject == 3
        if kind == "amc":
            _write(home / f"{subject:02d}.{'ASF' if upper else 'asf'}", asf_text(subject), subject)
        for trial in range(1, trials + 1):
            values = motion(subject, trial, frames + 8 * trial + subject)
            text = amc_text(values) if kind == "amc" else bvh_text(subject, values)
            _write(home / f"{subject:02d}_{trial:02d}.{kind.upper() if upper else kind}", text, subject)
    (corpus / "readme.txt").write_text("not of the corpus\n", encoding="utf-8")
    shutil.copytree(corpus / "01", corpus / "01 (copy)")
    if kind == "amc":
        (corpus / "99").mkdir()
        (corpus / "99" / "99.asf").write_text(asf_text(99), encoding="utf-8")
    return corpus


def _write(path: Path, text: str, subject: int) -> None:
    if subject == 2 and path.suffix == ".amc":
        text = text.replace(":DEGREES\n", ":DEGREES\n\n# cleaned by hand\n").replace("\nrtoes", "\n\nRToes")
    path.write_bytes(text.replace("\n", "\r\n" if subject % 2 else "\n").encode())


def recipe_arguments(root: Path) -> list[str]:
    """Makes the corpus in `root`; arguments of run.sh that go through all stages in a minute."""
    training = (
        "--limits.steps 3 --data.batch_frames 480 --validation.every_steps 3 --model_conf.latent 4 "
        "--model_conf.hidden 16 --model_conf.state 16"
    )
    options = ["--models", "srnn_s1_z64", "--train_args", training, "--nj", "1", "--sample_seconds", "1"]
    return ["--data_root", str(make(root, subjects=4, frames=400)), *options]
