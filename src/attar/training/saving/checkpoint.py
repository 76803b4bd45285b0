"""Checkpoints of a run: written to a temporary folder, sealed with hashes, renamed into place; the
previous one is kept.

The problem: a run can be killed while it saves, and what it saved can be damaged later. The idea: a
checkpoint is a folder whose `state.json`, written last, holds the sha256 of its tensors; the folder
gets its name only when all of it is on disk. The reader takes the newest checkpoint whose hashes
match and names those it skipped.

    <scratch>/checkpoint-00000120/  weights.safetensors  moments.safetensors  best.safetensors
    state.json

`best.safetensors` is a hard link to the weights of the step that validated best, so keeping it
costs no bytes and every checkpoint is complete by itself. Only tensors and JSON are written: no
pickle.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from attar.artifacts import disk_errors_explained, read_json, sha256_of, sync, write_json
from attar.errors import ArtifactError
from attar.progress import Progress
from attar.training.saving.state import Place

STATE_FILE = "state.json"
WEIGHTS_FILE = "weights.safetensors"
MOMENTS_FILE = "moments.safetensors"
BEST_FILE = "best.safetensors"
FINISHED = re.compile(r"checkpoint-(\d{8})")
KEPT = 2
"""The newest one, and one to fall back on."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint whose hashes were checked."""

    folder: Path
    place: Place
    about: Mapping[str, Any]
    """Conditions under which it was saved, which must be equal for a resumed run to be
    bit-identical.
    """

    @property
    def weights(self) -> dict[str, Tensor]:
        return load_file(self.folder / WEIGHTS_FILE)

    @property
    def moments(self) -> dict[str, Tensor]:
        return load_file(self.folder / MOMENTS_FILE)


class CheckpointStore:
    """The checkpoints of one run, in one folder."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress
        self._best: tuple[Path, str] | None = None

    @property
    def best_weights(self) -> dict[str, Tensor]:
        """Weights of the best step, according to the newest checkpoint that was saved or read."""
        assert self._best is not None, "no checkpoint has a best state yet"
        return load_file(self._best[0])

    def save(
        self,
        place: Place,
        weights: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        about: Mapping[str, Any],
    ) -> Path:
        """Write a checkpoint; the tensors may be the model's own.

        Raises:
            ResourceError: the disk is full; earlier checkpoints are unchanged.
        """
        final = self._folder / f"checkpoint-{place.step:08d}"
        aside = self._folder / f".writing-{place.step:08d}"
        bytes_needed = sum(t.nbytes for tensors in (weights, moments) for t in tensors.values())
        with disk_errors_explained(self._folder, bytes_needed):
            try:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
                hashes = {
                    WEIGHTS_FILE: _write_tensors(aside / WEIGHTS_FILE, weights),
                    MOMENTS_FILE: _write_tensors(aside / MOMENTS_FILE, moments),
                }
                hashes |= self._link_best(aside, place, hashes[WEIGHTS_FILE])
                content = {"place": asdict(place), "about": dict(about), "files": hashes}
                write_json(aside / STATE_FILE, content)
                sync(aside)
                shutil.rmtree(final, ignore_errors=True)
                aside.rename(final)
                sync(self._folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        if BEST_FILE in hashes:
            self._best = (final / BEST_FILE, hashes[BEST_FILE])
        for outdated in self._finished()[KEPT:]:
            shutil.rmtree(outdated, ignore_errors=True)
        return final

    def newest(self) -> Checkpoint | None:
        """The newest complete checkpoint; damaged and unfinished ones are listed in a warning."""
        skipped = [f"{path.name} (unfinished)" for path in self._folder.glob(".writing-*")]
        found = None
        for folder in self._finished():
            try:
                found = self._read(folder)
                break
            except ArtifactError as error:
                skipped.append(f"{folder.name} ({error})")
        if skipped:
            where = "the beginning" if found is None else found.folder.name
            self._progress.warn(
                f"skipped {'; '.join(skipped)} in {self._folder}; continuing from {where}"
            )
        return found

    def _finished(self) -> list[Path]:
        """Folders of finished checkpoints, newest first."""
        folders = [path for path in self._folder.glob("*") if FINISHED.fullmatch(path.name)]
        return sorted(folders, key=lambda path: path.name, reverse=True)

    def _read(self, folder: Path) -> Checkpoint:
        content = read_json(folder / STATE_FILE)
        try:
            place, about = Place(**content["place"]), content["about"]
            hashes: dict[str, str] = content["files"]
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{STATE_FILE} is not a checkpoint") from error
        for name, expected in hashes.items():
            if not (folder / name).is_file():
                raise ArtifactError(f"{name} is missing")
            if sha256_of(folder / name) != expected:
                raise ArtifactError(f"{name} is truncated or changed: its sha256 differs")
        if BEST_FILE in hashes:
            self._best = (folder / BEST_FILE, hashes[BEST_FILE])
        return Checkpoint(folder, place, about)

    def _link_best(self, aside: Path, place: Place, weights_hash: str) -> dict[str, str]:
        if place.best_step is None:
            return {}
        if place.best_step == place.step:
            source, known_hash = aside / WEIGHTS_FILE, weights_hash
        else:
            assert self._best is not None, "the best step was never saved"
            source, known_hash = self._best
        try:
            os.link(source, aside / BEST_FILE)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, aside / BEST_FILE)
            sync(aside / BEST_FILE)
        return {BEST_FILE: known_hash}


def _write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write and sync a file; return the sha256 of its bytes."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    sync(file)
    return sha256_of(file)
