"""Export a trained model to a folder: weights as safetensors, settings, results and a model card.

The folder suffices to rebuild the model, and nothing in it can run code; programs that score, sample and extract accept
it as --exp. The licence is for you to choose.
"""

import argparse
from pathlib import Path
from typing import Any

from speechlvm import __version__
from speechlvm.bin.cli import make_parser, run_main
from speechlvm.bin.inputs import check_trained
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.files import hash_file
from speechlvm.utils.text import counted


def main(argv: list[str] | None = None) -> int:
    """Export one trained model."""
    parser = make_parser(__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="experiment directory")
    parser.add_argument("--out", type=Path, required=True, help="directory to create")
    parser.add_argument(
        "--licence", default="unknown", help="licence of the weights, as its identifier on the Hugging Face Hub"
    )
    parser.add_argument("--data_set", default="", help="name of the corpus for the card, e.g. TIMIT")
    parser.add_argument("--push_to_hub", metavar="USER/NAME", help="also upload the folder to the Hugging Face Hub")
    arguments = parser.parse_args(argv)
    hub = _hub() if arguments.push_to_hub else None

    from speechlvm.experiment.export import is_export, is_exported

    trained = check_trained(arguments.exp)
    if is_export(arguments.exp):
        raise ConfigError(f"--exp {arguments.exp}: already an export; copy it")
    inputs = {
        "model": hash_file(trained),
        "scores": {
            path.parent.name: hash_file(path)
            for path in sorted(arguments.exp.glob("score_*/result.json"))
            if (path.parent / "done.json").exists()
        },
        "licence": arguments.licence,
        "data_set": arguments.data_set,
        "speechlvm": __version__,
    }
    if is_exported(arguments.out, inputs):
        print(f"{arguments.out}: complete")
    else:
        _export(arguments, inputs)
    if hub:
        _push(hub, arguments.out, arguments.push_to_hub)
    return 0


def _export(arguments: argparse.Namespace, inputs: dict[str, Any]) -> None:
    from speechlvm.experiment.export import write_export
    from speechlvm.experiment.load import load_experiment
    from speechlvm.reporting.card import model_card, scores_of_model
    from speechlvm.utils.files import read_json

    experiment = load_experiment(arguments.exp)
    cells = scores_of_model(arguments.exp, inputs["model"])
    card = model_card(experiment, cells, arguments.out.absolute().name, arguments.licence, arguments.data_set)
    results = {
        name.removeprefix("score_"): read_json(arguments.exp / name / "result.json") for name in inputs["scores"]
    }
    write_export(arguments.out, experiment, results, card, inputs)
    print(f"{arguments.out}: {experiment.name}, {counted(len(results), 'results')}")


def _hub() -> Any:
    """The client of the Hub, imported before any work is done."""
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UserError("--push_to_hub: huggingface_hub is not installed; pip install huggingface_hub") from error
    return HfApi()


def _push(hub: Any, folder: Path, repository: str) -> None:
    try:
        hub.create_repo(repository, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"speechlvm {__version__}")
    except Exception as error:  # several libraries raise, depending on the version
        raise UserError(
            f"--push_to_hub {repository}: {' '.join(str(error).split())}; {folder} is complete; log in with "
            "`hf auth login`, and run the same command again"
        ) from error
    print(f"{folder}: uploaded to https://huggingface.co/{repository}")


if __name__ == "__main__":
    run_main(main)
