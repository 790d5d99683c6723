"""RESULTS.md: the papers' tables next to our scores, all scores, and latent space analysis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from speechlvm.coding import CONTINUOUS, PCM_CODINGS
from speechlvm.reporting.collect import File, Score
from speechlvm.reporting.compare import ComparedTable
from speechlvm.reporting.formats import Column, Grid, markdown_table
from speechlvm.reporting.published import TRAINING, mean_and_std, number, published_grid, training_cells
from speechlvm.scoring.results import EXACT_BOUNDS

PCM_BITS = 16
LN2 = math.log(2.0)


# --- All scores -------------------------------------------------------------------------------------------------------


def bits_overview(scores: list[Score]) -> str:
    """Every probability on one set, best first: bits under each coding, share of 16-bit PCM, parameters, training.

    Each bound of an experiment has a row.
    """
    codings = sorted({score.coding for score in scores})
    experiments: dict[tuple[str, str], dict[str, Score]] = {}
    for score in scores:
        experiments.setdefault((score.experiment, score.bound), {})[score.coding] = score
    header = ["experiment", *[f"{coding} [bpf]" for coding in codings], "bound", "95 % interval", "PCM rate"]
    header += ["KL [bpf]", "parameters", *(column.name for column in TRAINING)]
    rows = []
    for experiment, bound in sorted(experiments, key=lambda e: _sort_key(experiments[e])):
        by_coding = experiments[experiment, bound]
        main = by_coding.get("mulaw", next(iter(by_coding.values())))
        interval = main.first.bits_per_frame_interval
        pcm = [by_coding[c].mean("bits_per_frame") for c in PCM_CODINGS if c in by_coding]
        kl = main.kl_nats_per_frame
        rows.append(
            [
                experiment,
                *[mean_and_std(by_coding[c], "bits_per_frame") if c in by_coding else "" for c in codings],
                bound,
                f"{interval[0]:.3f} - {interval[1]:.3f}" if len(main.results) == 1 and interval else "",
                f"{100 * min(pcm) / PCM_BITS:.1f} %" if pcm else "",
                "" if kl is None else f"{kl / LN2:.3f}",
                str(main.first.parameters or ""),
                *training_cells(main),
            ]
        )
    return markdown_table(header, rows)


def _sort_key(by_coding: dict[str, Score]) -> tuple[float, float]:
    bits = {coding: score.mean("bits_per_frame") for coding, score in by_coding.items()}
    other = 0.0 if any(coding in bits for coding in PCM_CODINGS) else math.inf
    return bits.get("mulaw", other), min(bits.values())


def densities_overview(scores: list[Score]) -> str:
    """Every density on one set, most likely first: nats, bound, output with its floor, parameters, training."""
    header = ["experiment", "nats per utterance", "nats per frame", "bound", "output", "KL [nats per frame]"]
    header += ["parameters", *(column.name for column in TRAINING)]
    rows = []
    for score in sorted(scores, key=lambda score: (-score.mean("nats_per_frame"), score.experiment)):
        kl = score.kl_nats_per_frame
        rows.append(
            [
                score.experiment,
                mean_and_std(score, "nats_per_utterance"),
                mean_and_std(score, "nats_per_frame", lambda value, _: f"{value:.3f}"),
                score.bound,
                score.output,
                "" if kl is None else f"{kl:.3f}",
                str(score.first.parameters or ""),
                *training_cells(score),
            ]
        )
    return markdown_table(header, rows)


def overviews(scores: list[Score]) -> list[str]:
    """All scores, set by set: title, table, and what preparing the set has left out."""
    parts = []
    kinds = (("pmf", "results", bits_overview), ("density", "densities", densities_overview))
    for name, (unit, what, overview) in itertools.product(sorted({score.set for score in scores}), kinds):
        here = [score for score in scores if score.set == name and score.first.unit == unit]
        if here:
            size = f"({here[0].first.utterances} utterances, {here[0].first.frames} frames)"
            parts += [f"## All {what} on `{name}` {size}", overview(here), *_preparation(here)]
    return parts


def scores_grid(scores: list[Score]) -> Grid:
    """Scores of one experiment, for its page and its model card."""
    names = {"set": False, "coding": False, "likelihood": True, "95 % interval": True, "bound": False}
    names |= dict.fromkeys(("KL", "utterances", "frames"), True)
    rows = []
    for score in scores:
        result, density = score.first, score.first.unit == "density"
        unit = "nats_per_utterance" if density else "bits_per_frame"
        interval, kl = result.bits_per_frame_interval, score.kl_nats_per_frame
        rows.append(
            [
                score.set,
                score.coding,
                f"{score.symbol}{number(score.mean(unit), unit)} {unit.replace('_', ' ')}",
                f"{interval[0]:.3f} - {interval[1]:.3f}" if interval else "",
                score.bound,
                "" if kl is None else f"{kl:.3f} nats per frame" if density else f"{kl / LN2:.3f} bits per frame",
                str(result.utterances),
                str(result.frames),
            ]
        )
    columns = [Column(name, number=numeric) for name, numeric in names.items()]
    return Grid("scores", "Likelihoods: of bits less is better, of nats more", columns, rows)


def files_grid(files: Sequence[File]) -> Grid:
    """Compressed files beside what they hold."""
    names = {"experiment": False, "seed": True, "system": False, "set": False}
    names |= dict.fromkeys(("utterances", "frames", "bound [bpf]", "file [bpf]", "overhead", "initial [bpf]"), True)
    names |= dict.fromkeys(
        ("header [bpf]", "FLAC [bpf]", "lanes", "encode [x real time]", "decode [x real time]"), True
    )
    rows = []
    for file in files:
        seconds = file.frames / file.rate_hz
        per_frame = [f"{bits / file.frames:.3f}" for bits in (file.model_bits, 8 * file.file_bytes, file.header_bits)]
        rows.append(
            [
                file.model,
                "" if file.seed is None else str(file.seed),
                file.system,
                file.set,
                str(file.utterances),
                str(file.frames),
                ("" if file.bound in EXACT_BOUNDS else "<=") + per_frame[0],
                per_frame[1],
                f"{100 * file.overhead:.2f} %",
                f"{file.initial_bits / file.frames:.3f}" if file.initial_bits else "",
                per_frame[2],
                f"{8 * file.flac_bytes / file.frames:.3f}",
                str(file.lanes),
                f"{seconds / file.encode_seconds:.3g}",
                f"{seconds / file.decode_seconds:.3g}",
            ]
        )
    note = (
        "Some utterances in one file (utterances.slvm), which a new process has decompressed to the same bits. Bound "
        "and FLAC are of the same utterances; overhead: the file without its initial bits, against the bound. Models "
        "with latents take initial bits (bits back) for the latents of the first utterances: the more utterances there "
        "are, the less they weigh; the shorter the steps (s = 1), the more there are. Speeds are of this machine, for "
        "so many utterances side by side (lanes)."
    )
    columns = [Column(name, number=numeric) for name, numeric in names.items()]
    records = [file.model_dump() for file in files]
    return Grid("files", "Files: what utterances take, losslessly compressed", columns, rows, note, records)


# --- RESULTS.md -------------------------------------------------------------------------------------------------------


def _explanations(tables: list[ComparedTable], scores: list[Score]) -> str:
    """What the tables' signs and units mean: those that occur."""
    rows = [row for table in tables for row in table.rows]
    everything = [*scores, *(score for row in rows for score in row.scores.values())]
    marks = {score.sign for score in everything} | {row.row.mark for row in rows if row.row.published}
    codings = {score.coding for score in everything} | {table.table.coding for table in tables}
    discrete, densities = codings - {CONTINUOUS}, CONTINUOUS in codings
    sentences = {
        "bpf = bits per frame (one waveform sample).": discrete,
        "`<=`: an upper bound on bits.": discrete and "<=" in marks,
        "`>=`: a lower bound on nats.": densities and ">=" in marks,
        "Bounds are the one-sample ELBO, as in the papers.": marks & {"<=", ">="},
        "IWAE-K is the importance-weighted bound of K samples, FIVO-K that of a particle filter with K particles.": any(
            score.tighter for score in everything
        ),
        "`+-`: standard deviation over seeds, after their mean.": any(len(score.results) > 1 for score in everything),
        "mulaw bits are bits of 16-bit mu-law codes as in source A.": "mulaw" in codings,
        "linear and mulaw-pcm bits are bits of the PCM signal itself, comparable with FLAC, whose bits are the "
        "length of its files.": codings & set(PCM_CODINGS),
        "mulaw8 bits are of 8-bit codes and compare with nothing else here.": "mulaw8" in codings,
        "Nats are of the density of normalised values, which nothing but the least standard deviation of the output "
        "keeps from growing without limit.": densities,
        "Training and steps are those after which the model was best on the validation set.": any(
            score.first.steps is not None for score in everything
        ),
    }
    return " ".join(sentence for sentence, wanted in sentences.items() if wanted)


def _other_data(scores: list[Score]) -> list[str]:
    """A line for each set that changed between scores, for instance because it was prepared again."""
    hashes: dict[str, dict[str | None, list[str]]] = {}
    for score in scores:
        for result in score.results:
            experiment = "/".join(filter(None, (score.root, score.experiment)))
            hashes.setdefault(score.set, {}).setdefault(result.data_hash, []).append(experiment)
    lines = []
    for name, found in hashes.items():
        most = max(found, key=lambda data: len(found[data]))
        others = sorted({experiment for data in found if data != most for experiment in found[data]})
        if others:
            lines.append(f"`{name}` changed since these were scored: {', '.join(others)}; score them again.")
    return lines


def _other_frames(tables: list[ComparedTable], scores: list[Score]) -> list[str]:
    """A line for each result of another program that is not of the data that were scored here."""
    here = {score.set: (score.first.frames, score.first.utterances) for score in scores if not score.root}
    lines = []
    for item in (item for table in tables for item in table.rows if item.row.external):
        for name, score in item.scores.items():
            theirs = (score.first.frames, score.first.utterances)
            if here.get(name, theirs) != theirs:
                lines.append(
                    f"Not comparable: {item.row.external} has {theirs[0]} frames and {theirs[1]} utterances of "
                    f"`{name}`, this recipe {here[name][0]} and {here[name][1]}."
                )
    return lines


def _preparation(scores: list[Score]) -> list[str]:
    """What was left out, converted and tolerated when the data of some scores were prepared."""
    lines: list[str] = []
    for told in (result.preparation for score in scores for result in score.results):
        parts = [f"unusable audio files were left out (rejected.tsv): {told.rejected}"] * bool(told.rejected)
        parts += [f"{count} were converted ({kind})" for kind, count in sorted(told.converted.items())]
        parts += [f"{kind}: {count}" for kind, count in sorted(told.tolerated.items())]
        line = f"In preparing the corpus: {'; '.join(parts)}."
        if parts and line not in lines:
            lines.append(line)
    return lines


def document(
    tables: list[ComparedTable],
    orders: Mapping[str, Sequence[Grid]],
    scores: list[Score],
    analyses: Sequence[Grid],
    train_set: str,
    command: str,
    errors: list[str],
) -> str:
    """The whole of RESULTS.md.

    Args:
        tables: the chosen ones.
        orders: of their systems, by table.
        scores: the recipe's own, and those of the roots that rows name.
        analyses: tables of the recipe's own compressed files and latent space analysis.
        train_set: what they were trained on.
        command: that made them.
        errors: a line for each file that cannot be used.
    """
    parts = [f"# Results (trained on `{train_set}`)", f"Made by `{command}`."]
    parts += [text for text in (_explanations(tables, scores),) if text]
    parts += [f"Left out: {error}." for error in errors]
    parts += _other_data(scores)
    parts += _other_frames(tables, scores)
    for table in tables:
        grid = published_grid(table)
        parts += [f"## {grid.title}", grid.markdown()]
        parts += [grid.note] if grid.note else []
        parts += [
            f"Blank, though scored: `{experiment}` on `{name}` has the output {found}."
            for experiment, name, found in table.misplaced
        ]
        parts += [
            f"Blank: `{folder}` has a result of {found}, which is not in this table."
            for folder, found in table.unplaced
        ]
        for order in orders[table.table.table]:
            parts += [f"### {order.title}", order.markdown(), order.note]
    parts += overviews([score for score in scores if not score.root])
    for grid in analyses:
        parts += [f"## {grid.title}", grid.note, grid.markdown()]
    return "\n\n".join(parts) + "\n"
