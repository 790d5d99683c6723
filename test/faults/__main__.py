"""Injects faults and prints what was survived: see test/faults.sh."""

import argparse
import importlib
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
KINDS = ("kill", "operations", "signals", "locks", "stages", "disk")


def _import_packages() -> None:
    """This package, and `imitations`. Their parent on the path would hide the package that is tested."""
    sys.path.remove(str(HERE))
    for name in ("imitations", "faults"):
        path = HERE.parent / name / "__init__.py"
        specification = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[name])


def main() -> int:
    """Runs the kinds asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="faults.sh", description=__doc__, allow_abbrev=False)
    parser.add_argument("--kinds", default=" ".join(KINDS), help="kinds of faults, of these (default: all)")
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs of the kind kill (default: 200)")
    parser.add_argument("--minutes", type=float, default=30.0, help="no further fault is drawn then (default: 30)")
    parser.add_argument("--seed", type=int, default=1, help="of all draws (default: 1)")
    parser.add_argument("--work", type=Path, help="where experiments are kept (default: a temporary directory)")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split()
    if not kinds or not set(kinds) <= set(KINDS):
        parser.error(f"--kinds '{arguments.kinds}': expected some of {' '.join(KINDS)}")
    _import_packages()
    from faults.campaign import Campaign

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="speechlvm_faults_") as temporary:
        directory = arguments.work or Path(temporary)
        campaign = Campaign(directory.absolute(), arguments.seed, arguments.kills, began + 60 * arguments.minutes)
        for kind in kinds:
            campaign.say(f"{kind} starts")
            try:
                importlib.import_module(f"faults.{kind}").run(campaign)
            except RuntimeError as error:  # a step fails undisturbed; the counts so far are worth something
                campaign.count(kind, "undisturbed", [str(error)])
    print(f"\nseed {arguments.seed}, {(time.monotonic() - began) / 60:.1f} minutes\n\n{campaign.table()}\n")
    print(*campaign.notes, sep="\n")
    for violation in campaign.violations:
        print(f"VIOLATION: {violation}")
    print(f"{len(campaign.violations)} violations")
    return 1 if campaign.violations else 0


if __name__ == "__main__":
    sys.exit(main())
