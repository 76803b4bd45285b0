"""FLOPs saved by scoring a corpus with a proxy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OfflineFlops:
    """FLOPs to score a corpus before any student is trained, with a proxy and without."""

    teacher: int
    """For the sample."""
    reference: int
    """For the sample."""
    training: int
    """To train the proxy."""
    predicting: int
    """To score every chunk with the proxy."""
    sampled: float
    """Share of the corpus's tokens in the sample."""

    @property
    def total(self) -> int:
        return self.teacher + self.reference + self.training + self.predicting

    @property
    def teacher_on_all(self) -> int:
        """FLOPs of scoring every chunk with the teacher."""
        return round(self.teacher / self.sampled)

    @property
    def share_of_teacher(self) -> float:
        return self.total / self.teacher_on_all

    def as_json(self) -> dict[str, float]:
        return {
            **{name: value for name, value in vars(self).items() if name != "sampled"},
            "total": self.total,
            "teacher_on_all": self.teacher_on_all,
            "reference_on_all": round(self.reference / self.sampled),
            "share_of_teacher": self.share_of_teacher,
        }

    def sentence(self) -> str:
        return (
            f"{self.total:.2g} FLOPs of scoring with a proxy (sample {self.teacher:.2g} by the "
            f"teacher and {self.reference:.2g} by the reference, training {self.training:.2g}, "
            f"predicting {self.predicting:.2g}); the teacher alone would take "
            f"{self.teacher_on_all:.2g} for every chunk: {self.share_of_teacher:.0%} of it"
        )
