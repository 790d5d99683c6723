"""All runs of the probes of an experiment: their plan, their data, and means and standard deviations of results."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.latents.labelled import Unsuitable
from speechlvm.latents.probes import SETS
from speechlvm.latents.probes.clock import Features, clock_hop
from speechlvm.latents.probes.tasks import Task, build_task
from speechlvm.latents.probes.training import ProbeSettings, train_probe
from speechlvm.latents.probes.units import train_units
from speechlvm.latents.store import open_stores
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import atomic_write, hash_value

ALL = "all"
NEARLY_ALL = 0.9
METRICS = ("phone_error_rate", "unit_error_rate", "word_error_rate", "accuracy")


@dataclass(frozen=True)
class ProbeRun:
    """One training run of a probe: representation, task, size of the training data, and seed."""

    representation: str
    task: str
    size: str
    seed: int

    @property
    def stem(self) -> str:
        """Stem of its file name."""
        return f"{self.representation}_{self.task}_{self.size}_seed{self.seed}"


class Probing:
    """The representations and labels of three sets, and the runs on them.

    Args:
        stores: representations, by set.
        data: data directories, by set.
        tasks: names of tasks with label files.
        vocabulary: number of sentencepiece units; None: the default, as far as the transcripts support it.
        optional: leave out tasks without enough labels.

    Raises:
        Unsuitable: not enough labels for a task.
        UserError: the stores are of different models, do not match the data, or have utterances in common.
        ConfigError: the transcripts do not support the vocabulary.
    """

    def __init__(
        self,
        stores: Mapping[str, Path],
        data: Mapping[str, Path],
        tasks: Iterable[str],
        vocabulary: int | None,
        optional: bool = False,
    ) -> None:
        self.stores = dict(zip(SETS, open_stores(stores[s] for s in SETS), strict=True))
        for s, store in self.stores.items():
            if not store.utterances:
                raise UserError(f"{store.directory}: holds no utterances; give the representations of the {s} set")
            if store.rate_hz is None:
                raise UserError(f"{store.directory}: frames have no rate; probes are for speech")
        self.rate_hz = self.stores["train"].rate_hz
        self.hop = clock_hop(self.rate_hz)
        directories = {s: load_data_dir(data[s]) for s in SETS}
        utterances = {s: self.stores[s].utterances for s in SETS}
        # stage 6 may have extracted only a random part of a large set
        self._partial = len(utterances["train"]) < len(directories["train"].utt2spk)
        for s in SETS:
            unknown = [utterance for utterance in utterances[s] if utterance not in directories[s].num_samples]
            if unknown:
                raise UserError(
                    f"{data[s]}: has no utterance {unknown[0]}, which {stores[s]} has ({len(unknown)} in all); "
                    f"give the data directory of the {s} set"
                )
        text = directories["train"].text
        known = (text[utterance] for utterance in utterances["train"] if utterance in text)
        self.units: bytes | None = None
        self.tasks: dict[str, Task] = {}
        self.left_out: dict[str, str] = {}
        for name in tasks:
            try:
                self.units = train_units(known, vocabulary) if name == "units" else self.units
                self.tasks[name] = build_task(name, directories, utterances, self.hop, self.units)
            except Unsuitable as error:
                if not optional:
                    raise
                self.left_out[name] = str(error)
        self._frames = {u: directories[s].num_samples[u] for s in SETS for u in utterances[s]}
        self._features: Features | None = None
        self._moments = None

    def minutes(self, utterances: Iterable[str]) -> float:
        """Total duration of some utterances in minutes."""
        return sum(self._frames[utterance] for utterance in utterances) / self.rate_hz / 60

    def coinciding(self, task: Task, sizes: Sequence[str]) -> list[str]:
        """Sizes of at least 90 % of the training data, which are therefore treated as "all".

        Empty if only a part of the training set has been extracted.
        """
        if self._partial:
            return []
        there = self.minutes(task.trainable)
        return [size for size in sizes if size != ALL and float(size) >= NEARLY_ALL * there]

    def plan(self, sizes: Sequence[str], seeds: Sequence[int]) -> list[ProbeRun]:
        """The list of runs, grouped by representation.

        Raises:
            UserError: all of the training set is requested, but only a part has been extracted.
        """
        if self._partial and ALL in sizes:
            raise UserError(
                f"{self.stores['train'].directory}: only a part of the training set; run stage 6 (latents) again, with "
                f"--probe_minutes '{' '.join(sizes)}'"
            )
        chosen = {}
        for name, task in self.tasks.items():
            same = self.coinciding(task, sizes)
            chosen[name] = [size for size in sizes if size != ALL and size not in same]
            chosen[name] += [ALL] if same or ALL in sizes else []
        return [
            ProbeRun(representation, name, size, seed)
            for representation in self.stores["train"].representations
            for name, of_task in chosen.items()
            for size in of_task
            for seed in seeds
        ]

    def subset(self, run: ProbeRun) -> list[str]:
        """Training utterances of a run: the first ones in a random order given by the seed, so sizes are nested."""
        trainable = self.tasks[run.task].trainable
        if run.size == ALL:
            return trainable
        drawn: list[str] = []
        frames = 0
        for utterance in sorted(trainable, key=lambda utterance: hash_value([run.seed, utterance])):
            if frames >= float(run.size) * 60 * self.rate_hz:
                break
            drawn.append(utterance)
            frames += self._frames[utterance]
        return drawn

    def execute(self, run: ProbeRun, settings: ProbeSettings, device: torch.device) -> dict[str, Any]:
        """Train and score one probe; returns its entry in result.json."""
        if self._features is None or self._features.representation.name != run.representation:
            self._features = Features(run.representation, self.stores.values(), self._frames, self.hop)
            self._moments = self._features.moments(self.stores["train"].utterances)
        drawn = self.subset(run)
        task = self.tasks[run.task]
        scores = train_probe(task, self._features, self._moments, drawn, settings, run.seed, device)
        return {**asdict(run), "minutes": self.minutes(drawn), "utterances": len(drawn), **scores}

    def write_units(self, path: Path) -> None:
        """Write the sentencepiece model, if there is one."""
        if self.units is not None:
            with atomic_write(path, "wb") as stream:
                stream.write(self.units)

    def describe(self, sizes: Sequence[str]) -> dict[str, Any]:
        """Source, sets, representations and tasks, for result.json."""
        store = self.stores["train"]
        return {
            "source": store.source,
            "left_out": self.left_out,
            "sets": {s: self.stores[s].info["set"] for s in SETS},
            "clock_hz": self.rate_hz / self.hop,
            "representations": {
                name: {"kind": known.kind, "rate_hz": store.step_rate_hz(name), "dimensions": known.dimensions}
                for name, known in store.representations.items()
            },
            "tasks": {
                name: {
                    "alphabet": task.alphabet,
                    "chance": task.chance(),
                    "minutes": {s: self.minutes(task.trainable if s == "train" else task.references[s]) for s in SETS},
                    "utterances": {s: len(task.trainable if s == "train" else task.references[s]) for s in SETS},
                    "unlabelled": task.unlabelled,
                    "too_short": task.too_short,
                    "same_as_all": self.coinciding(task, sizes),
                }
                for name, task in self.tasks.items()
            },
        }


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of each metric, for each task, representation and size.

    `<metric>_std` is the sample standard deviation; None for a single seed.
    """
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["task"], run["representation"], run["size"]), []).append(run)
    table = []
    for (task, representation, size), group in groups.items():
        row = {"task": task, "representation": representation, "size": size, "seeds": len(group)}
        for name in ("minutes", *(metric for metric in METRICS if metric in group[0])):
            values = [run[name] for run in group]
            row[name] = statistics.fmean(values)
            if name != "minutes":
                row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
        table.append(row)
    return table
