"""Motion capture: known skeletons stand where they should, frames give the motion back, and each fault is named."""

import json
import math
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from imitations import human_motion
from PIL import Image
from programs import call, load

from speechlvm.bin import dump as dump_program
from speechlvm.data.dumps import open_dump
from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.data.kaldi.matrices import read_vectors
from speechlvm.experiment.config import load_config
from speechlvm.reporting.tables import load_tables
from speechlvm.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs/human_motion"
REAL = ROOT.parent / "shared/corpora/cmu_mocap"
SETS = ("train", "valid", "test")

prepare, draw = load(RECIPE / "local/prepare.py"), load(RECIPE / "local/draw.py")
asf_amc, bvh, motion_features, skeleton = (
    sys.modules[name] for name in ("asf_amc", "bvh", "motion_features", "skeleton")
)
joint_positions, rotation = skeleton.joint_positions, skeleton.rotation

# Two bones: an upper arm along x that rotates about z and x, and a forearm that goes on and bends about y.
ASF = """# made by hand
:version 1.10
:name ARM
:units
  mass 1.0
  length 0.45
  angle deg
:documentation
  begin nothing, end nothing
:root
  order TX TY TZ RX RY RZ
  axis XYZ
  position 0 0 0
  orientation 0 0 0
:bonedata
  begin
    id 1
    name upper
    direction 1 0 0
    length 2
    axis 0 0 0 XYZ
    dof rx rz
    limits (-180 180)
           (-inf inf)
  end
  begin
    id 2
    name fore
    direction 1 0 0
    length 1
    axis 0 0 90 XYZ
    dof ry
    limits (-10 170)
  end
:hierarchy
  begin
    root upper
    upper fore
  end
"""
AMC = """#!OML:ASF ARM.ASF
:FULLY-SPECIFIED
:DEGREES
1
root 1 2 3 0 0 0
upper 0 90
fore 0
2
root 1 2 3 0 90 0
upper 0 0
fore 30
3
root 1 2 3 0 0 0
upper 90 90
fore 0
"""
BVH = """HIERARCHY
ROOT Hips
{
\tOFFSET 0 0 0
\tCHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
\tJOINT Leg
\t{
\t\tOFFSET 0 -1 0
\t\tCHANNELS 3 Zrotation Xrotation Yrotation
\t\tEnd Site
\t\t{
\t\t\tOFFSET 0 -2 0
\t\t}
\t}
}
MOTION
Frames: 2
Frame Time: 0.01
0 5 0 0 0 90 90 0 0
0 5 0 0 90 0 0 90 0
"""
# The same leg with position channels that do not change.
SIX = BVH.replace("CHANNELS 3 Z", "CHANNELS 6 Xposition Yposition Zposition Z").replace("90 0 0\n", "0 -1 0 90 0 0\n")
SIX = SIX.replace("0 90 0\n", "0 -1 0 0 90 0\n")
REST_POSE = "trials begin with a rest pose that is no motion and was left out"
STILL = "trials have positions of all joints; as those below the root do not move, they were read as offsets"
OFF_BY_ONE = "trials have a frame more or less than they say (Frames: N); those that are there were read"


def run(*arguments: object):
    """The preparation with these arguments."""
    return call(prepare.main, *arguments)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def arm(folder: Path, asf: str = ASF, amc: str = AMC):
    acclaim = asf_amc.read_asf(write(folder / "arm.asf", asf))
    return acclaim, asf_amc.read_amc(write(folder / "arm_1.amc", amc), acclaim)


# --- Positions against known answers ----------------------------------------------------------------------------------


def test_a_two_bone_arm_stands_where_it_should(tmp_path):
    asf, motion = arm(tmp_path)
    positions = joint_positions(asf.skeleton, motion)
    assert [joint.name for joint in asf.skeleton.joints] == ["root", "upper", "fore", "fore_end"]
    assert asf.skeleton.angles == ["upper_rz", "upper_rx", "fore_ry"]
    shoulder = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(positions[:, 0], np.tile(shoulder, (3, 1)), atol=1e-12)
    # 1: rz turns x to y. 2: the root's ry turns x to -z; the forearm's axis is turned by 90 degrees about z, so that
    # its ry bends about the world's -x and does not move a bone along x. 3: rx, listed first, is applied first and
    # turns the bone about itself.
    for frame, elbow, hand in ((0, (0, 2, 0), (0, 3, 0)), (1, (0, 0, -2), (0, 0, -3)), (2, (0, 2, 0), (0, 3, 0))):
        np.testing.assert_allclose(positions[frame, 2], shoulder + elbow, atol=1e-12)
        np.testing.assert_allclose(positions[frame, 3], shoulder + hand, atol=1e-12)


def test_an_axis_turns_what_a_joint_turns_about(tmp_path):
    # about the axis turned by 90 degrees around z, rx is a turn about the world's y: x to -z
    asf, motion = arm(tmp_path, ASF.replace("dof ry", "dof rx"), AMC.replace("fore 0", "fore 90"))
    positions = joint_positions(asf.skeleton, motion)
    # frame 1: the upper arm turned the forearm's frame by 90 degrees about z, so world y is -x there
    np.testing.assert_allclose(positions[0, 3] - positions[0, 2], (0, 0, -1), atol=1e-12)


def test_a_bvh_leg_stands_where_it_should(tmp_path):
    file = bvh.read_bvh(write(tmp_path / "1_1.bvh", BVH))
    positions = joint_positions(file.skeleton, file.motion)
    assert file.motion.rate_hz == pytest.approx(100) and file.oddities == ()
    assert [joint.name for joint in file.skeleton.joints] == ["hips", "leg", "leg_end"]
    # 1: x by 90 degrees turns -y to -z; the leg's z by 90 turns its own -y to x
    np.testing.assert_allclose(positions[0], [(0, 5, 0), (0, 5, -1), (2, 5, -1)], atol=1e-12)
    # 2: y leaves -y alone; the leg's x turns -y to -z, which the root's y turned to -x
    np.testing.assert_allclose(positions[1], [(0, 5, 0), (0, 4, 0), (-2, 4, 0)], atol=1e-12)


SPELLINGS = [
    (BVH.lower().replace("\t", " ").replace("\n{", " {").replace(": ", ":").replace("\n", "\r\n") + "\r\n\r\n", ()),
    (BVH.replace("\n\t\t{", "{").replace("End Site{", "End Site toe tip {").replace("0\n\t\t}\n\t}", "0 } }"), ()),
    (BVH.replace("Leg", "Left  Leg").replace("Frame Time: 0.01", "Frame Time 1e-2").replace("-2 0", "-2E+0 .0"), ()),
    (BVH.replace("Frames: 2", "Frames: 3"), (OFF_BY_ONE,)),
    (BVH.replace("Frames: 2", "Frames: 1"), (OFF_BY_ONE,)),
    (
        BVH.replace("Zrotation Yrotation Xrotation", "Xposition Yposition Zposition")
        .replace("6 Xposition Yposition Zposition", "6 Zrotation Yrotation Xrotation")
        .replace("0 5 0 0 0 90", "0 0 90 0 5 0")
        .replace("0 5 0 0 90 0", "0 90 0 0 5 0"),
        (),
    ),
    (SIX, (STILL,)),
    (SIX.replace("0 -1 0 90", "0 0 0 90").replace("0 -1 0 0 90", "0 0 0 0 90"), (STILL,)),  # added to OFFSET
    (SIX.replace("OFFSET 0 -1 0", "OFFSET 0 0 0").replace("0 -1 0 90", "0 -1.0004 0 90"), (STILL,)),
]


@pytest.mark.parametrize(("text", "oddities"), SPELLINGS)
def test_a_bvh_leg_in_other_spellings_is_the_same(text, oddities, tmp_path):
    usual = bvh.read_bvh(write(tmp_path / "1_1.bvh", BVH))
    file = bvh.read_bvh(write(tmp_path / "1_2.bvh", text))
    name = file.skeleton.joints[1].name
    assert file.oddities == oddities and name in ("leg", "left_leg")
    assert file.motion.rate_hz == usual.motion.rate_hz and file.skeleton.angles == [f"{name}_r{axis}" for axis in "zxy"]
    positions = [joint_positions(one.skeleton, one.motion) for one in (file, usual)]
    np.testing.assert_allclose(*positions, atol=1e-3)


def test_asf_and_bvh_of_the_same_motion_agree(tmp_path):
    corpora = [human_motion.make(tmp_path, subjects=1, frames=100, kind=kind) for kind in ("amc", "bvh")]
    asf = asf_amc.read_asf(corpora[0] / "01/01.asf")
    acclaim = joint_positions(asf.skeleton, asf_amc.read_amc(corpora[0] / "01/01_01.amc", asf))
    file = bvh.read_bvh(corpora[1] / "01/01_01.bvh")
    assert file.oddities == (REST_POSE,)
    assert [joint.name for joint in file.skeleton.joints] == [joint.name for joint in asf.skeleton.joints]
    np.testing.assert_allclose(joint_positions(file.skeleton, file.motion), acclaim, atol=1e-3, rtol=0)
    assert np.ptp(acclaim[:, :, 1]) > 20  # it stands


# --- Angles and frames ------------------------------------------------------------------------------------------------


def test_angles_do_not_jump():
    truth = np.stack([np.linspace(0, 500, 200), 80 * np.sin(np.linspace(0, 9, 200)), np.linspace(30, -400, 200)], 1)
    same = np.where((np.arange(200) % 7 < 3)[:, None], truth * [1, -1, 1] + 180, truth)
    mended = skeleton.continuous((same + 180) % 360 - 180)
    assert abs(np.diff(mended, axis=0)).max() < 5
    np.testing.assert_allclose(rotation("zyx", mended), rotation("zyx", truth), atol=1e-12)
    assert (abs(np.median(mended, axis=0)) <= 180).all()


def test_frames_give_the_motion_back(tmp_path):
    corpus = human_motion.make(tmp_path, subjects=1, frames=900)
    asf = asf_amc.read_asf(corpus / "01/01.asf")
    motion = asf_amc.read_amc(corpus / "01/01_01.amc", asf)
    values = motion_features.encode(motion, 4)
    assert values.shape == (math.ceil(len(motion.position) / 4) - 1, 6 + len(asf.skeleton.angles))
    back = motion_features.decode(values)
    np.testing.assert_allclose(motion_features.encode(back, 1), values[1:], atol=1e-9)
    was = joint_positions(asf.skeleton, motion)[::4][1:]
    now = joint_positions(asf.skeleton, back)
    # the same but for place and heading of the beginning: one turn about the vertical and one shift fit all frames
    turned = was @ rotation("y", np.array([[-skeleton.heading(motion.rotation)[0, 0]]]))[0].T
    np.testing.assert_allclose(now, turned + (now - turned)[0, 0] * [1, 0, 1], atol=1e-9)
    assert values[:, 3].min() > 0 and values[:, 3].sum() > 360  # walked round, without a jump


def test_frames_do_not_depend_on_place_and_heading():
    generator = np.random.default_rng(3)
    walk = np.cumsum(generator.normal(size=(50, 6)), axis=0)
    motion = skeleton.Motion(walk[:, :3], rotation("zyx", walk[:, 3:]), np.zeros((50, 0)))
    turn = rotation("y", np.array([[77.0]]))[0]
    other = skeleton.Motion(walk[:, :3] @ turn.T + [5, 0, -9], turn @ motion.rotation, motion.angles)
    np.testing.assert_allclose(motion_features.encode(other, 1), motion_features.encode(motion, 1), atol=1e-9)


@pytest.mark.parametrize("said", ["in the motion", "in the skeleton", "in both"])
def test_radians_become_degrees(said, tmp_path):
    asf, motion = arm(tmp_path)
    amc = AMC.replace("90", f"{math.pi / 2}").replace("30", f"{math.pi / 6}")
    amc = amc.replace(":DEGREES\n", "" if said == "in the skeleton" else ":RADIANS\n")
    text = ASF
    if said != "in the motion":
        text = ASF.replace("angle deg", "angle rad").replace("axis 0 0 90", f"axis 0 0 {math.pi / 2}")
    other_asf, other = arm(tmp_path, text, amc)
    np.testing.assert_allclose(other.angles, motion.angles, atol=1e-9)
    np.testing.assert_allclose(other.rotation, motion.rotation, atol=1e-12)
    axes = ([joint.axis for joint in one.skeleton.joints] for one in (asf, other_asf))
    np.testing.assert_allclose(*axes, atol=1e-12)


# --- What is wrong with a file ----------------------------------------------------------------------------------------

BAD_ASF = [
    ("", ":?.*empty"),
    ("\x00\x01\x02 stuff\n", ":1: .*before any section; expected ASF"),
    (ASF[: ASF.index(":hierarchy")], ":34: no section :hierarchy"),
    (ASF[: ASF.index("    dof ry")] + ":hierarchy\n", ":31: .*no 'end'"),
    (ASF.replace("    upper fore\n  end\n", ""), ":37: no parent .* for fore; the file is cut"),
    (ASF + ":root\n", ":40: section :root is given twice"),
    (ASF.replace("angle deg", "angle gon"), ":7: angles in 'gon'; expected deg or rad"),
    (ASF.replace("order TX TY", "order TX TX"), ":11: root order .* expected each of tx ty tz rx ry rz"),
    (ASF.replace("  order TX TY TZ RX RY RZ\n", ""), ":13: no order in :root"),
    (ASF.replace("orientation 0 0 0", "orientation 0 9 0"), ":14: root orientation 0 9 0; expected 0 0 0"),
    (ASF.replace("direction 1 0 0", "direction 1 0", 1), ":19: direction has 2 values; expected 3"),
    (ASF.replace("direction 1 0 0", "direction 3 0 0", 1), ":19: .* not of length 1"),
    (ASF.replace("length 2", "length nan"), ":20: length is 'nan'; expected 1 finite numbers"),
    (ASF.replace("axis 0 0 90 XYZ", "axis 0 0 90"), ":31: axis 0 0 90; expected three angles and their order"),
    (ASF.replace("dof ry", "dof l"), ":32: dof l; expected some of rx ry rz"),
    (ASF.replace("    limits (-10 170)\n", "    limits (-10 170) (1 2)\n"), ":34: bone fore has 4 limits"),
    (ASF.replace("    length 2\n", ""), ":24: bone upper has no length"),
    (ASF.replace("    name fore\n", ""), ":33: the bone of line 26 has no name"),
    (ASF.replace("name fore", "name upper"), ":28: bone name 'upper'"),
    (ASF.replace("    id 2", "    colour red"), ":27: 'colour' in a bone"),
    (ASF.replace("    upper fore", "    upper foot"), ":38: 'foot' is in no section :bonedata"),
    (ASF.replace("    root upper\n", ""), ":37: 'upper' has no parent above this line"),
    (ASF.replace("    upper fore", "    upper fore fore"), ":38: 'fore' has a parent already"),
]
BAD_AMC = [
    (" \r\n", ": empty"),
    (AMC[: AMC.index("1\nroot")], ":3: no frames up to the end"),
    (AMC.replace("90", "1.5").replace("30", "0.5"), ": in degrees, but no angle exceeds 2"),
    (AMC.replace("upper 0 0\n", "upper 0\n"), ":10: bone upper has 1 values; expected 2"),
    (AMC.replace("fore 30", "fore -1.#IND"), ":11: bone fore is '-1.#ind'; expected 1 finite"),
    (AMC.replace("root 1 2 3 0 90 0", "root 1 inf 3 0 90 0"), ":9: bone root is '1 inf 3 0 90 0'"),
    (AMC.replace("fore 30", "foot 30"), ":11: 'foot 30'; expected a bone of the skeleton"),
    (AMC.replace("fore 30\n", ""), ":11: frame 2 has no fore; the file is cut or belongs to another"),
    (AMC.replace("fore 30", "upper 1 2"), ":11: bone upper twice in frame 2"),
    (AMC.replace("\n3\n", "\n4\n"), ":12: frame 4 after frame 2; expected the next one"),
    (AMC[: AMC.rindex("fore")], ":14: frame 3 has no fore; the file is cut"),
    (AMC.replace(":DEGREES", ":SAMPLES-PER-SECOND 0"), ":3: :samples-per-second 0; expected a number above 0"),
    (AMC.replace("\n1\nroot", "\nroot"), ":4: 'root 1 2 3 0 0 0'; expected a keyword or a frame"),
]
BAD_BVH = [
    ("\n", ": empty"),
    ("hello\n", ":1: 'hello'; expected hierarchy"),
    (BVH[: BVH.index("\t\tEnd")], ":9: the hierarchy ends here; the file is cut"),
    (BVH[: BVH.index("MOTION")], ":15: no line MOTION"),
    (BVH[: BVH.index("Frames")], ":16: no 'Frames:' and 'Frame Time:'"),
    (BVH.replace("MOTION", "ROOT Other\nMOTION"), ":16: 'root' after the root's end"),
    (BVH.replace("OFFSET 0 -1 0", "OFFSET 0 nan 0"), ":8: OFFSET has 'nan'; expected finite numbers"),
    (BVH.replace("OFFSET 0 -1 0", "OFFSET 0 -1"), ":8: OFFSET has 'channels'"),
    (BVH.replace("CHANNELS 3", "CHANNELS 2"), ":9: 'Yrotation'; expected joint or end or }"),
    (BVH.replace("Xrotation Yrotation\n\t\tEnd", "Xturn Yrotation\n\t\tEnd"), ":9: CHANNELS 3"),
    (BVH.replace("CHANNELS 3 ", "CHANNELS 8 1 2 3 4 5 "), ":9: CHANNELS 8 1 2 3 4 5 zrotation xrotation yrotation; e"),
    (SIX.replace("0 -1 0 90", "0 -1.5 0 90"), ": positions of joint leg change by 0.5; .* root_transform_only"),
    (BVH.replace("6 Xposition Yposition Zposition", "3"), ":5: root hips has channels"),
    (BVH.replace("JOINT Leg", "JOINT Hips"), ":6: joint name 'hips'"),
    (BVH.replace("Frames: 2", "Frames: many"), ":17: 'Frames: many'; expected a number above 0"),
    (BVH.replace("Frames: 2\n", ""), ":17: 'Frame Time: 0.01'; expected 'Frames: N'"),
    (BVH.replace("Frames: 2", "Frames: 4"), ":17: says 4 frames, but 2 follow"),
    (BVH.rstrip()[:-2] + "\n", ":20: 8 values; expected 9"),
    (BVH.replace("0 5 0 0 90", "0 5 nan 0 90"), ":20: frame 2 has 'nan'; expected finite numbers"),
]
BAD = [(name, *row) for name, rows in (("1.asf", BAD_ASF), ("1.amc", BAD_AMC), ("1.bvh", BAD_BVH)) for row in rows]


@pytest.mark.parametrize(("name", "text", "expected"), BAD, ids=[f"{name}{expected}" for name, _, expected in BAD])
def test_a_bad_file_is_one_line(name, text, expected, tmp_path):
    acclaim = asf_amc.read_asf(write(tmp_path / "arm.asf", ASF))
    path = write(tmp_path / name, text)
    read = {"1.asf": asf_amc.read_asf, "1.amc": lambda path: asf_amc.read_amc(path, acclaim), "1.bvh": bvh.read_bvh}
    with pytest.raises(UserError) as caught:
        read[name](path)
    message = str(caught.value)
    assert re.fullmatch(re.escape(str(path)) + expected + ".*", message), message


def test_a_unit_that_nobody_says_is_not_guessed(tmp_path):
    with pytest.raises(UserError, match="does not say the unit of its angles; expected a line :DEGREES or :RADIANS"):
        arm(tmp_path, ASF.replace("  angle deg\n", ""), AMC.replace(":DEGREES\n", ""))


def test_oddities_of_good_files_are_read(tmp_path):
    asf, motion = arm(tmp_path)
    odd = AMC.replace("fore", "FORE").replace("\n2\n", "\n\n# a comment\n2   # frame\n").replace("\n", "\r\n")
    other_asf, other = arm(tmp_path, ASF.upper().replace("\n", "\r\n"), odd.rstrip() + "\r\n\r\n")
    assert other_asf.skeleton == asf.skeleton
    np.testing.assert_array_equal(other.angles, motion.angles)
    # bones may stand in any order, and frames be numbered from zero and say their rate
    odd = AMC.replace("upper 0 0\nfore 30\n", "fore 30\nupper 0 0\n").replace(":DEG", ":SAMPLES-PER-SECOND 60\n:DEG")
    other = arm(tmp_path, amc=odd.replace("\n1\n", "\n0\n").replace("\n2\n", "\n1\n").replace("\n3\n", "\n2\n"))[1]
    np.testing.assert_array_equal(other.angles, motion.angles)
    assert (motion.rate_hz, other.rate_hz) == (None, 60)


# --- Preparation ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("mocap with blanks")
    corpus = human_motion.make(root, trials=2, frames=240)
    return corpus, root / "data", run("--corpus", corpus, "--out", root / "data", "--nj", 2)


def test_the_imitation_is_prepared(prepared, tmp_path):
    corpus, out, done = prepared
    assert done.returncode == 0, done.stderr
    sets = {name: load_data_dir(out / name) for name in SETS}
    assert [len(data.utt2spk) for data in sets.values()] == [18, 2, 2]
    assert "22 trials of 11 subjects, 1 each for valid and test; divided by subject" in done.stdout
    speakers = [set(data.utt2spk.values()) for data in sets.values()]
    assert not any(a & b for a in speakers for b in speakers if a is not b)
    for data in sets.values():
        assert data.rate_hz == 30 and set(data.channels.values()) == {"real"}
        for utterance, place in data.feats.items():
            values = read_vectors(place)
            assert values.shape == (data.num_frames[utterance], len(data.channels))
            assert np.isfinite(values).all()
    # 240 + 8 + 1 frames at 120 Hz: every 4th gives 63, whose first starts the others
    assert next(d for d in sets.values() if "01_01" in d.num_frames).num_frames["01_01"] == 62
    for warning in (
        "warning: files are none of .asf, .amc and .bvh and were left out: ",
        "warning: 2 trials are identical copies: ",
        "warning: skeletons have no trial: ",
    ):
        assert warning in done.stderr
    assert run("--corpus", corpus, "--out", tmp_path / "data").returncode == 0  # in one process
    for name in SETS:
        assert (tmp_path / "data/frames" / f"{name}.ark").read_bytes() == (out / "frames" / f"{name}.ark").read_bytes()


def test_what_does_not_move_is_left_out_and_named(prepared):
    _, out, done = prepared
    still = "lclavicle_rz lclavicle_ry lfingers_rx rclavicle_rz rclavicle_ry rfingers_rx"
    assert f"6 of 62 channels left out, as they do not move in train: {still}" in done.stdout
    bodies = json.loads((out / "motion.json").read_text(encoding="utf-8"))
    assert bodies["left_out"]["lfingers_rx"] == pytest.approx(7.12502)
    channels = list(load_data_dir(out / "train").channels)
    assert channels == [name for name in bodies["channels"] if name not in bodies["left_out"]]
    assert set(bodies["skeletons"]) == {f"{subject:02d}" for subject in range(1, 12)}


def test_bvh_files_are_prepared(tmp_path):
    corpus = human_motion.make(tmp_path, subjects=4, frames=120, kind="bvh")
    done = run("--corpus", corpus, "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "4 trials of 4 subjects, 1 each for valid and test; divided by trial" in done.stdout
    assert "warning: 4 trials begin with a rest pose that is no motion and was left out: 01_01" in done.stderr
    data = load_data_dir(tmp_path / "data/train")
    assert len(data.channels) + done.stdout.count("_r") == 6 + 3 * 30


THREE = "01_01 02_01 03_01"
NAMES = {
    "flat": (lambda kind, subject: f"{subject:02}{'_01' * (kind == '.amc')}{kind}", THREE, None),
    "capitals": (
        lambda kind, subject: f"{subject}/{subject:02}{'_01' * (kind == '.amc')}{kind.upper()}",
        THREE,
        None,
    ),
    "apart": (lambda kind, subject: f"{kind[1:]}/A_{subject}{' run' * (kind == '.amc')}{kind}", "a-1_run a-2", None),
    "one skeleton each": (
        lambda kind, subject: f"{'xyz'[subject - 1]}/{'My Actor' if kind == '.asf' else f'Walk ({subject})'}{kind}",
        "my-actor_walk_1 my-actor_walk_2",
        "3 trials are not named after a skeleton; the only one in their folder is used",
    ),
}


@pytest.mark.parametrize(("place", "names", "warning"), NAMES.values(), ids=NAMES)
def test_trials_and_skeletons_of_other_names(place, names, warning, tmp_path):
    usual = human_motion.make(tmp_path / "usual", subjects=3, frames=60)
    for path in sorted(usual.rglob("0*/0*")):
        if re.fullmatch(r"0[1-3](_01)?\.(asf|amc)", path.name.lower()):
            copy = tmp_path / "corpus" / place(path.suffix.lower(), int(path.stem[:2]))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    done = run("--corpus", tmp_path / "corpus", "--out", tmp_path / "data")
    assert done.returncode == 0 and (warning in done.stderr if warning else done.stderr == ""), done.stderr
    found = {name: who for part in SETS for name, who in load_data_dir(tmp_path / "data" / part).utt2spk.items()}
    assert " ".join(sorted(found)).startswith(names) and len(found) == 3
    assert found == {name: name.partition("_")[0] for name in found}
    assert set(json.loads((tmp_path / "data/motion.json").read_text())["skeletons"]) == set(found.values())


def test_bvh_files_of_any_name_and_of_two_bodies(tmp_path):
    for place, name in enumerate(("dance (1).bvh", "Läufer.bvh", "x_a.bvh", "x_b.bvh")):
        text = SIX.replace("0 -1 0", f"0 -{1 + place} 0").replace("Frames: 2", "Frames: 11").replace("0.01", "0.033")
        write(tmp_path / name, text + f"0 {place} 0 0 0 9 0 -{1 + place} 0 1 0 {place}\n" * 9)
    done = run("--corpus", tmp_path, "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "warning: 2 trials have no '_' in their names (SUBJECT_TRIAL); each is a separate subject: " in done.stderr
    assert "warning: trials have other bones than their subject's first trial, whose are drawn: x_b" in done.stderr
    bodies = json.loads((tmp_path / "data/motion.json").read_text())["skeletons"]
    assert {name: joints[1]["offset"][1] for name, joints in bodies.items()} == {"dance-1": -1, "l-ufer": -2, "x": -3}


SLOW = BVH.replace("0.01", "0.0333333")
SPOILT = {
    "02_01.amc: no skeleton 02.asf beside it (nor one elsewhere": lambda c: (c / "02/02.asf").unlink(),
    "walk.amc: no skeleton walk.asf": lambda c: write(c / "02/09.asf", ASF) and write(c / "02/walk.amc", AMC),
    "--.bvh: no letter a to z and no digit in its name; rename it, e.g. 02_01": lambda c: write(c / "--.bvh", BVH),
    "another recording than": lambda c: write(c / "02_01.bvh", BVH),
    "05_01.bvh: recorded at 100 Hz, which is not a multiple of 30 Hz": lambda c: write(c / "05_01.bvh", BVH),
    "2 frames at 30 Hz give 1 at 30 Hz": lambda c: write(c / "05_01.bvh", SLOW),
    "05_01.bvh: other angles than 4 of 5 trials (lacks lfemur_rz": lambda c: write(
        c / "05_01.bvh", SLOW.replace("Frames: 2", "Frames: 3") + "0 " * 9
    ),
}


@pytest.mark.parametrize(("expected", "spoil"), SPOILT.items(), ids=SPOILT)
def test_a_spoilt_corpus_is_refused_whole(spoil, expected, tmp_path):
    corpus = human_motion.make(tmp_path, subjects=4, frames=60)
    spoil(corpus)
    done = run("--corpus", corpus, "--out", tmp_path / "data")
    assert done.returncode == 1 and expected in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "data/train").exists() and not (tmp_path / "data/.frames").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["--rate_hz", "50"], 1, "AMC files (--amc_rate_hz): recorded at 120 Hz, which is not a multiple of 50 Hz"),
        (["--rate_hz", "240"], 1, "which is not a multiple of 240 Hz; give --rate_hz 120"),
        (["--nj", "0"], 2, "--nj: '0': expected an integer above 0"),
        ([], 2, "2 trials; expected at least 3, one for each of train, valid, test"),
    ],
)
def test_options_are_checked(arguments, status, expected, tmp_path):
    corpus = human_motion.make(tmp_path, subjects=3 if arguments else 2, frames=40)
    done = run("--corpus", corpus, "--out", tmp_path / "data", *arguments)
    assert done.returncode == status and expected in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("frame_time", "every"), [(0.0083, 4), (0.0083333, 4), (0.033, 1), (0.017, 2), (0.04, None)])
def test_frame_times_are_rounded(frame_time, every):
    if every:
        assert prepare.frames_apart("x", 1 / frame_time, 30) == every
    else:
        with pytest.raises(UserError, match="recorded at 25 Hz, which is not a multiple of 30 Hz"):
            prepare.frames_apart("x", 1 / frame_time, 30)


# --- Configurations and pictures --------------------------------------------------------------------------------------


def test_all_have_one_floor_or_they_could_not_be_compared():
    configs = [load_config(path) for path in (RECIPE / "conf").glob("*.yaml")]
    assert {config.distribution_conf["minimum_std"] for config in configs} == {0.01}
    [table] = load_tables(RECIPE / "conf/tables")
    assert all(row.published == {} for row in table.rows)


@pytest.fixture(scope="module")
def sampled(prepared, tmp_path_factory):
    """A dump of the test set, and an experiment whose samples are pieces of it."""
    _, data, _ = prepared
    root = tmp_path_factory.mktemp("drawn")
    words = ["--data", str(data / "test"), "--out", str(root / "dump"), "--kind", "vectors"]
    assert dump_program.main(words) == 0
    dump = open_dump(root / "dump")
    name = min(dump.records)
    samples = root / "exp/lstm/seed1/samples"
    samples.mkdir(parents=True)
    index = [("prior_0", "prior", []), (f"continuation_{name}", "continuation", [12]), ("original_0", "original", [])]
    for stem, _, _ in index:
        np.save(samples / f"{stem}.npy", dump.read(name)[:24])
    entries = [{"name": stem, "kind": kind, "log_likelihood_nats": 1.0, "marks": marks} for stem, kind, marks in index]
    (samples / "samples.json").write_text(json.dumps(entries), encoding="utf-8")
    (samples / "done.json").write_text("{}", encoding="utf-8")
    return root


def drawn(root: Path, dump: Path):
    return call(draw.main, "--exp", root / "exp", "--dump", dump, "--models", "lstm", "--seeds", 1)


def test_films_are_drawn_once(sampled):
    done = drawn(sampled, sampled / "dump")
    assert done.returncode == 0, done.stderr
    home = sampled / "exp/lstm/seed1/motion"
    assert (home / "films.png").read_bytes()[:4] == b"\x89PNG" and (home / "films.pdf").read_bytes()[:4] == b"%PDF"
    with Image.open(home / "motion.gif") as picture:
        assert picture.n_frames == 12  # 24 frames of 30 Hz at 15 Hz
        shown = []
        for frame in range(picture.n_frames):
            picture.seek(frame)
            shown.append(np.asarray(picture.convert("RGB")))
    assert any((shown[0] != other).any() for other in shown[1:])  # it moves
    assert (sampled / "exp/motion/films.pdf").exists()
    assert f"{home}: complete" in drawn(sampled, sampled / "dump").stdout


def test_bodies_are_the_recorded_ones(sampled, prepared):
    corpus, _, _ = prepared
    bodies = draw.Bodies(sampled / "dump")
    name = min(bodies.dump.records)
    positions = bodies.positions(bodies.dump.read(name), name)
    [path] = [path for path in corpus.rglob("*") if path.stem == name and "copy" not in str(path)]
    [asf_path] = [file for file in path.parent.iterdir() if file.suffix.lower() == ".asf"]
    asf = asf_amc.read_asf(asf_path)
    recorded = joint_positions(asf.skeleton, asf_amc.read_amc(path, asf))[::4][1:]
    np.testing.assert_allclose(positions[..., 1], recorded[..., 1], atol=1e-4)
    apart = [np.linalg.norm(places[:, -1] - places[:, 5], axis=1) for places in (positions, recorded)]
    np.testing.assert_allclose(*apart, atol=1e-4)
    joints = [joint.name for joint in bodies.joints]
    sides = [bodies.sides[joints.index(joint)] for joint in ("ltibia", "rtibia", "lhand", "rhand", "head")]
    assert sides == [0, 1, 0, 1, 2]


def test_data_that_changed_since_the_dump_are_refused(sampled, prepared, tmp_path):
    _, data, _ = prepared
    shutil.copytree(sampled / "dump", tmp_path / "dump")
    content = json.loads((data / "motion.json").read_text(encoding="utf-8"))
    del content["left_out"]["lfingers_rx"]
    (tmp_path / "motion.json").write_text(json.dumps(content), encoding="utf-8")
    info = json.loads((tmp_path / "dump/info.json").read_text(encoding="utf-8"))
    (tmp_path / "dump/info.json").write_text(json.dumps(info | {"source": str(tmp_path / "test")}), encoding="utf-8")
    done = drawn(sampled, tmp_path / "dump")
    assert done.returncode == 1 and "motion.json: other channels than those of" in done.stderr


# --- The real trials --------------------------------------------------------------------------------------------------


def test_real_people_stand_on_the_floor_and_keep_their_bones(tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"no motion capture at {REAL}")
    trials = sorted((REAL / "subjects").rglob("*.amc"))
    assert len(trials) >= 6
    for path in trials:
        asf = asf_amc.read_asf(path.parent / f"{path.parent.name}.asf")
        motion = asf_amc.read_amc(path, asf)
        positions = joint_positions(asf.skeleton, motion)
        joints = asf.skeleton.joints
        assert len(joints) == 31 + 7 and len(asf.skeleton.angles) == 56
        for index, joint in enumerate(joints[1:], 1):
            lengths = np.linalg.norm(positions[:, index] - positions[:, joint.parent], axis=1)
            np.testing.assert_allclose(lengths, np.linalg.norm(joint.offset), atol=1e-9)
        names = [joint.name for joint in joints]
        toes, head = names.index("ltoes_end"), names.index("head_end")
        assert -1.5 < positions[:, toes, 1].min() < 1.5  # 0.056 m to the unit
        assert 25 < np.median(positions[:, head, 1]) < 32
        back = motion_features.decode(motion_features.encode(motion, 4))
        np.testing.assert_allclose(joint_positions(asf.skeleton, back)[..., 1], positions[::4][1:, :, 1], atol=1e-9)
    done = run("--corpus", REAL / "subjects", "--out", tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "6 of 62 channels left out, as they do not move in train: lclavicle_rz lclavicle_ry" in done.stdout
    assert sum(len(load_data_dir(tmp_path / name).utt2spk) for name in SETS) >= len(trials)


# --- The whole recipe -------------------------------------------------------------------------------------------------


@pytest.mark.recipe
def test_the_recipe_runs(run_recipe):
    run_recipe("human_motion")
