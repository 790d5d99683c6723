"""Check that a model has the properties that all programs rely on; for your own models, see MODELS.md.

The model of a configuration is built with random weights in float64, and tested on a short random signal. The coding is
mulaw8, whose codes are few enough to sum over, or normalised. Prints one line per property: ok, or what was found.
"""

from pathlib import Path

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.utils.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Check one model."""
    parser = make_parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML configuration")
    arguments = parser.parse_args(argv)

    from speechlvm.coding import CONTINUOUS
    from speechlvm.experiment.config import load_config
    from speechlvm.experiment.load import build
    from speechlvm.observation import AudioObservation, Statistics
    from speechlvm.scoring.contract import CHECKS, Broken, Subject, check_members, shaken

    config = load_config(arguments.config)
    coding = config.coding if config.coding == CONTINUOUS else "mulaw8"
    observation = AudioObservation(coding, Statistics(0.0, 0.1))
    try:
        model = build(config, observation, seed=1)
        check_members(model)
        subject = Subject.of(shaken(model), observation)
    except UserError:
        raise
    except Exception as error:  # `Broken`, or anything that the model raises
        found = _told(error).removeprefix("FAILS: ")
        hint = "see MODELS.md" if isinstance(error, Broken) else "--debug shows where this was raised"
        raise UserError(f"{config.model}: cannot be built: {found}; {hint}") from error
    failed = {}
    for name, check in CHECKS.items():
        try:
            check(subject)
        except Exception as error:  # `Broken`, or anything that the model raises
            failed[name] = error
        print(f"{name:10} {_told(failed.get(name))}", flush=True)
    if failed:
        crash = next((error for error in failed.values() if not isinstance(error, Broken)), None)
        hint = "see MODELS.md" if crash is None else "--debug shows where the first error was raised"
        raise UserError(f"{config.model}: fails {', '.join(failed)}; {hint}") from crash
    return 0


def _told(error: Exception | None) -> str:
    from speechlvm.scoring.contract import Broken

    if error is None:
        return "ok"
    found = " ".join(str(error).split())
    return f"FAILS: {found if isinstance(error, Broken) else f'{type(error).__name__}: {found}'}"


if __name__ == "__main__":
    run_main(main)
