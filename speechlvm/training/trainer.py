"""The trainer of all systems. If killed, rerunning the same command resumes with bit-identical results.

This holds for limits in steps or epochs; a limit in seconds, and a schedule over it, depend on the clock.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from speechlvm.data.dumps.dataset import Batch, Segment, cut_utterances, keyed_generator, load_batches, plan_batches
from speechlvm.data.dumps.dump import Dump
from speechlvm.distributions.noise import Noise
from speechlvm.experiment.checkpoint import Checkpoints, check_settings, load_weights
from speechlvm.experiment.config import ExperimentConfig
from speechlvm.models.base import Model
from speechlvm.models.bound import Series
from speechlvm.modules.frames import frame_mask
from speechlvm.observation import Observation
from speechlvm.scoring.accounting import LN2, CorpusScore
from speechlvm.scoring.objective import objective, row_terms, total_nats
from speechlvm.scoring.particles import Particles
from speechlvm.training.distributed import OneProcess
from speechlvm.training.dry_run import check_step_fits
from speechlvm.training.progress import Progress
from speechlvm.training.scalars import Scalars
from speechlvm.training.schedules import auxiliary_weights, decays, free_nats, kl_weight, learning_rate
from speechlvm.training.validation import Validation
from speechlvm.utils.devices import to_device
from speechlvm.utils.errors import Interrupted, UserError
from speechlvm.utils.files import atomic_write

CHECKPOINT_SECONDS = 120.0
log = logging.getLogger(__name__)


class Trainer:
    """Trains one model, in one or several processes.

    Args:
        config: configuration of the experiment.
        model: model on its device, with initial weights.
        observation: observation on the same device.
        train: training dump.
        valid: validation dump; selects the best checkpoint.
        directory: directory of the experiment.
        seed: seed of data order, segments and noise.
        processes: processes that train this model; default: only this one.
        requests: stop signals received, from `stop_requests`.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        model: Model,
        observation: Observation,
        train: Dump,
        valid: Dump,
        directory: Path,
        seed: int,
        processes: OneProcess | None = None,
        requests: Sequence[int] = (),
    ) -> None:
        self.processes, self.requests = processes or OneProcess(), requests
        self.config, self.model, self.observation, self.seed = config, model, observation, seed
        self.train_dump, self.directory = train, Path(directory)
        self.device = next(model.parameters()).device
        self.frames = {utterance: record.frames for utterance, record in train.records.items()}
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.training.learning_rate.peak, fused=True)
        self.checkpoints = Checkpoints(self.directory / "checkpoints")
        self.progress = Progress()
        self.scalars: Scalars | None = None
        utterances = _choose(sorted(valid.records), config.validation.utterances)
        self.validation = Validation(valid, utterances, observation, config.data.max_frames, self.processes, requests)
        self._beside = None
        if model.experts:
            from speechlvm.training.expert_segments import ExpertSegments

            self._beside = ExpertSegments(train)
        self._half = half_precision(config.training.precision, self.device)
        # small gradients would be 0 in float16; a step whose gradients are too large is left out, and the scale reduced
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self._half == torch.float16)
        self._groups_per_epoch = len(self._groups(0))

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train until a limit is reached.

        Raises:
            Interrupted: stopped by a signal, after saving a checkpoint.
            UserError: the loss or a gradient is not finite.
        """
        torch.manual_seed(self.seed)  # nothing draws from this generator, but checkpoints contain its state
        self._resume()
        with self.processes.raise_on_all():
            self._check_before_training()
        self.processes.replicate(self.model)
        with self.processes.raise_on_all():
            if self.processes.is_rank0:
                self._write_history()
                self.scalars = Scalars(self.directory / "tb", self.progress.step)
        hidden = not (self.processes.is_rank0 and sys.stderr.isatty())
        bar = tqdm(total=100.0, unit="%", disable=hidden, bar_format="{l_bar}{bar}| {postfix}")
        try:
            self._steps(bar)
        finally:
            bar.close()
            if self.scalars is not None:
                self.scalars.close()

    def _check_before_training(self) -> None:
        """Fail now instead of hours later if there is too little disk space or memory."""
        if self.progress.is_finished(self.config):
            return
        if cut := cut_utterances(self.frames, self.config.data):
            log.info(
                "%d of %d utterances are longer than %d frames and are trained in segments",
                cut, len(self.frames), self.config.data.row_frames,
            )  # fmt: skip
        self.checkpoints.check_space(self.model)
        shards = [self.processes.shard(rows) for batches in self._groups(self.progress.epoch) for rows in batches]
        shards = [rows for rows in shards if rows]
        if shards:
            check_step_fits(
                lambda batch: self._loss(batch, batch.frames)[0].backward(),
                self.optimizer, self.train_dump, shards, self.config.data,
            )  # fmt: skip

    def _steps(self, bar: tqdm) -> None:
        progress = self.progress
        self._saved_at = time.monotonic()
        plan = self._plan()
        self._validate_if_due()
        while not progress.is_finished(self.config):
            if progress.decay_step < 0 and decays(self.config.training.learning_rate, self._fraction(progress)):
                progress.decay_step = progress.step
                self._save()
            batches, ends_epoch = next(plan)
            started = time.monotonic()
            nats, norm, failure = self._step(batches)
            seconds = time.monotonic() - started
            overdue = time.monotonic() - self._saved_at > CHECKPOINT_SECONDS
            everywhere = self.processes.all_gather(nats, seconds, overdue, self._request(), error=failure)
            if not math.isfinite(norm) and self._scaler.get_scale() <= 1.0:  # on all processes
                rows = [segment for batch in batches for segment in batch]
                raise self.processes.log_once(self._failure("the gradient norm", norm, rows))
            all_nats, all_seconds, all_overdue, requests = zip(*everywhere, strict=True)
            nats_per_frame = sum(all_nats) / _frames(batches)
            rate = self.optimizer.param_groups[0]["lr"]
            self._log_scalars({"train/nats_per_frame": nats_per_frame, "train/gradient_norm": norm, "train/rate": rate})
            progress.advance(max(all_seconds), ends_epoch)
            self._show(bar, nats_per_frame)
            if request := max(requests):
                self._stop(request)
            saved = self._validate_if_due()
            if any(all_overdue) and not saved:
                self._save()
        if progress.is_stale(self.config):
            log.info("converged: no new best in %d validations (validation.patience)", progress.stale)

    def _stop(self, request: float) -> None:
        self._save()
        name = signal.Signals(int(request)).name
        raise self.processes.log_once(
            Interrupted(f"stopped by {name} after step {self.progress.step}; run the same command again to resume")
        )

    def _request(self) -> int:
        """The first stop signal received; 0: none."""
        return self.requests[0] if self.requests else 0

    def _plan(self) -> Iterator[tuple[list[list[Segment]], bool]]:
        """Yields the batches of each optimiser step from here on, and whether it is the last step of its epoch.

        In parallel, `_reader` yields the rows of this process of these batches, in order.
        """
        while True:
            groups = self._groups(self.progress.epoch)[self.progress.group :]
            shards = [self.processes.shard(rows) for batches in groups for rows in batches]
            shards = [rows for rows in shards if rows]
            self._reader = load_batches(self.train_dump, shards, self.config.data.workers, self._beside)
            yield from ((batches, batches is groups[-1]) for batches in groups)

    def _groups(self, epoch: int) -> list[list[list[Segment]]]:
        """The optimiser steps of an epoch, each a list of batches: a function of (seed, epoch) alone."""
        batches = plan_batches(self.frames, self.config.data, self.seed, epoch)
        size = self.config.training.accumulate
        return [batches[i : i + size] for i in range(0, len(batches), size)]

    # -- one step ------------------------------------------------------------------------------------------------

    def _step(self, batches: list[list[Segment]]) -> tuple[float, float, UserError | None]:
        """Take one optimiser step, and wait for the device once, when it has everything to do.

        Returns:
            The bound of the rows of this process in nats, the norm of the gradient, and the error if a loss of these
            rows is not finite. After an error, or with such a norm, the weights are lost.
        """
        training, progress = self.config.training, self.progress
        rate = learning_rate(training.learning_rate, progress.step, self._fraction(progress))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        frames = _frames(batches)
        read: list[Batch] = []
        values: list[torch.Tensor] = []

        def next_loss() -> torch.Tensor:
            read.append(next(self._reader))
            loss, nats = self._loss(read[-1], frames)
            values.extend((loss.detach().double(), nats))
            return self._scaler.scale(loss)

        for position, rows in enumerate(batches):
            loss = next_loss if self.processes.shard(rows) else None
            self.processes.backward(loss, last=position == len(batches) - 1)
        self._scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.gradient_clip or math.inf)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        norm_value, *found = torch.stack([norm.double(), *values]).tolist()
        for batch, loss_value in zip(read, found[::2], strict=False):
            if not math.isfinite(loss_value):
                return math.nan, norm_value, self._failure("the loss", loss_value, batch.segments)
        return sum(found[1::2]), norm_value, None

    def _loss(self, batch: Batch, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The objective of the rows of this process of a batch, divided by the frames of the whole step.

        Returns:
            It, and the bound of these rows in nats, float64.
        """
        training, progress = self.config.training, self.progress
        data, lengths = to_device(batch.data, self.device), to_device(batch.lengths, self.device)
        inputs, target = self.observation.inputs(data, lengths), self.observation.target(data)
        noise = Noise(batch.noise_keys(self.seed, progress.epoch), self.device)
        autocast = torch.autocast(self.device.type, self._half, enabled=self._half is not None)
        if training.particles:
            particles = Particles(self.model, noise, training.particles, resample=True)
            with autocast:
                particles.add(inputs, target, lengths, self.model.encode(inputs, lengths))
            total = particles.nats.sum()
            loss = -total / frames
        else:
            features = None
            if batch.beside is not None:
                mask = frame_mask(lengths, inputs.shape[1])
                features = {"experts": Series(to_device(batch.beside, self.device), mask, 1)}
            with autocast:
                bound = self.model.score(inputs, target, lengths, noise, features)
            total = total_nats(row_terms(bound)).sum()
            kl_factor = kl_weight(training.kl_weight, progress.step)
            auxiliary = auxiliary_weights(training.auxiliary, progress.step)
            free, per_dimension = free_nats(training, progress.step), training.free_nats_unit == "dimension"
            loss = objective(bound, frames, kl_factor, free, auxiliary, per_dimension)
        return loss, total.detach()

    def _failure(self, what: str, value: float, rows: Sequence[Segment]) -> UserError:
        names = [segment.utterance for segment in rows]
        steps = self.checkpoints.steps()
        last = self.checkpoints.path(steps[-1]) if steps else "none"
        return UserError(
            f"step {self.progress.step + 1}: {what} is {value} on {', '.join(names[:8])}"
            f"{', ...' if len(names) > 8 else ''}; last good checkpoint: {last}; lower the learning rate or clip more"
        )

    # -- validation, logs, checkpoints ------------------------------------------------------------------------------

    def _validate_if_due(self) -> bool:
        """Validate and save if this step needs it; returns whether it did."""
        if not self.progress.needs_validation(self.config):
            return False
        score = self.validation.score(self.model)
        if score is None:  # the resumed run validates first
            self._stop(max(request for (request,) in self.processes.all_gather(self._request())))
        is_best = self.progress.add_validation(self.config, score, self.observation.continuous)
        self._log_validation(score, is_best)
        self._save()
        return True

    def _log_validation(self, score: CorpusScore, is_best: bool) -> None:
        progress, density = self.progress, self.observation.continuous
        self._log_scalars({"valid/nats_per_frame": score.nats_per_frame, "valid/bits_per_frame": score.bits_per_frame})
        self._log_scalars({f"valid/{name}": value for name, value in score.terms_nats_per_frame.items()})
        kl = sum(value for name, value in score.terms_nats_per_frame.items() if name.startswith("kl_")) / LN2
        log.info(
            "step %d, epoch %d, %.0f s: valid %.4f %s%s%s",
            progress.step, progress.epoch, progress.seconds,
            score.nats_per_frame if density else score.bits_per_frame,
            "nats/frame" if density else "bits/frame",
            f" (KL {kl:.4f} bits)" if kl else "",
            ", best so far" if is_best else "",
        )  # fmt: skip

    def _save(self) -> None:
        with self.processes.raise_on_all():
            if self.processes.is_rank0:
                self._write_checkpoint()
                self._write_history()
        self._saved_at = time.monotonic()

    def _write_checkpoint(self) -> None:
        progress = self.progress
        self.checkpoints.save(
            progress.step,
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self._scaler.state_dict(),
                "generator": torch.get_rng_state(),
                "observation": self.observation.to_dict(),
                "progress": asdict(progress),
                "frozen": json.dumps(self.config.frozen(), sort_keys=True),
                "provenance": {
                    "step": progress.step,
                    "epoch": progress.epoch,
                    "seconds": progress.seconds,
                    "seed": self.seed,
                    "data_hash": self.train_dump.info["data_hash"],
                },
            },
        )
        if progress.best_step == progress.step:
            self._mark_best()
        self.checkpoints.prune(progress.decay_step)

    def _fraction(self, progress: Progress) -> float:
        return progress.fraction(self.config, self._groups_per_epoch)

    def _mark_best(self) -> None:
        if self.progress.best_step in self.checkpoints.steps():
            self.checkpoints.mark_best(self.progress.best_step, self.progress.best)

    def _resume(self) -> None:
        content = self.processes.broadcast_from_rank0(self._load_latest)
        if content is None:
            return
        with self.processes.raise_on_all():
            load_weights(self.model, content["model"], str(self.checkpoints.directory))
            self.optimizer.load_state_dict(content["optimizer"])
            self._scaler.load_state_dict(content["scaler"] or self._scaler.state_dict())
            torch.set_rng_state(content["generator"])
            self.progress = Progress(**content["progress"])
            if self.processes.is_rank0:
                self._mark_best()  # the run may have been killed between saving a checkpoint and marking it
                self.checkpoints.prune(self.progress.decay_step)
        log.info("resuming after step %d (epoch %d)", self.progress.step, self.progress.epoch)
        settings, last = self.config.training.learning_rate, self.optimizer.param_groups[0]["lr"]
        rate = learning_rate(settings, self.progress.step, self._fraction(self.progress))
        if self.progress.step > settings.warmup_steps and rate > 1.01 * last:
            log.warning(
                "the learning rate rises from %.2g to %.2g, as its schedule now spans a larger limit: validation gets "
                "worse before it gets better; with schedule constant-decay it would not", last, rate,
            )  # fmt: skip

    def _load_latest(self) -> dict[str, Any] | None:
        """The newest checkpoint, or None.

        Raises:
            UserError: it belongs to another training run.
        """
        content = self.checkpoints.load_latest()
        if content is None:
            return None
        check_settings(content, self.config, str(self.checkpoints.directory))
        content = self._before_decay(content)
        progress = Progress(**content["progress"])
        if progress.best_step not in self.checkpoints.steps():
            progress.forget_best()
        return {**content, "progress": asdict(progress)}

    def _before_decay(self, content: dict[str, Any]) -> dict[str, Any]:
        """The checkpoint to resume from: if a larger limit postpones the final decay, the one at which it began.

        Later checkpoints are then removed.
        """
        step = content["progress"].get("decay_step", -1)
        if step not in self.checkpoints.steps():
            return content
        earlier = self.checkpoints.load(step)
        if decays(self.config.training.learning_rate, self._fraction(Progress(**earlier["progress"]))):
            return content
        log.info("continuing from step %d, before the decay of the learning rate; later checkpoints are removed", step)
        self.checkpoints.remove_after(step)
        return {**earlier, "progress": {**earlier["progress"], "decay_step": -1}}

    def _write_history(self) -> None:
        with atomic_write(self.directory / "history.jsonl") as stream:
            stream.writelines(json.dumps(entry, sort_keys=True) + "\n" for entry in self.progress.history)

    def _log_scalars(self, scalars: dict[str, float]) -> None:
        if self.scalars is not None:
            self.scalars.add(scalars, self.progress.step)

    def _show(self, bar: tqdm, train_nats: float) -> None:
        progress = self.progress
        shown = f"{train_nats:.3f} nats/frame" if self.observation.continuous else f"{-train_nats / LN2:.3f} bits/frame"
        bar.n = round(100 * self._fraction(progress), 1)
        bar.set_postfix_str(f"step {progress.step}, epoch {progress.epoch}, {progress.seconds:.0f} s, train {shown}")
        if progress.step % 50 == 0:
            log.info("step %d, epoch %d, %.0f s: train %s", progress.step, progress.epoch, progress.seconds, shown)


def half_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """The type of most products in training: for `bfloat16` this or, on GPUs without it, float16; None is float32."""
    if precision == "float32":
        return None
    if device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        log.warning("precision: this CPU has no bf16 arithmetic; training in float32")
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        log.warning("precision: this GPU has no bf16 arithmetic; training in float16, with scaled losses")
        return torch.float16
    return torch.bfloat16


def _choose(utterances: list[str], count: int | None) -> list[str]:
    """A fixed random subset of `count` utterances, sorted; all if `count` is None or not smaller than their number."""
    if count is None or count >= len(utterances):
        return utterances
    return sorted(keyed_generator("validation subset").choice(utterances, count, replace=False).tolist())


def _frames(batches: list[list[Segment]]) -> int:
    """Frames of an optimiser step of all processes, without padding."""
    return sum(segment.frames for rows in batches for segment in rows)
