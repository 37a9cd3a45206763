"""What is done to a trained network's logits afterwards: --tau, --temperature, --calibrate."""

from collections.abc import Sequence
from typing import NamedTuple

from caecnn_jax import errors
from caecnn_jax.results import calibration


class CorrectionError(errors.UserError):
    """A correction that cannot be made, or would be judged on what it was fitted on."""


class Correction(NamedTuple):
    """What is wanted; nothing by default. `losses.PostHoc` is what then comes of it."""

    tau: float = 0.0  # times log(n_c / n), taken from the logits
    temperature: float = 1.0  # that divides the logits
    calibrate: bool = False  # whether the temperature is fitted on the fold's validation part

    @property
    def suffix(self) -> str:
        """What the name of an evaluation gets, so that none overwrites another's."""
        parts = [f"-tau{self.tau:g}"] if self.tau else []
        parts += [f"-temperature{self.temperature:g}"] if self.temperature != 1 else []
        return "".join(parts + ["-calibrated"] * self.calibrate)

    def check(self, run: str, *, has_cnn: bool, folds: Sequence[str], split: str | None) -> None:
        """Raises CorrectionError where it cannot be made for `run`, or judged on `split`.

        `folds` are the run's folder's; `split` None: nothing is judged.
        """
        if self == NONE:
            return
        if not abs(self.tau) <= 100:
            raise CorrectionError(f"--tau={self.tau}: must be from -100 to 100, often 1")
        if not calibration.LEAST <= self.temperature <= calibration.MOST:
            bounds = f"from {calibration.LEAST} to {calibration.MOST:g}"
            raise CorrectionError(f"--temperature={self.temperature}: must be {bounds}")
        if not has_cnn:
            raise CorrectionError(
                "--tau, --temperature and --calibrate: this run trained no CNN, so no logits"
            )
        if not self.calibrate:
            return
        if self.temperature != 1:
            raise CorrectionError("--calibrate finds the temperature: leave --temperature out")
        if run not in folds:
            remedy = "choose a fold with --fold" if folds else "give a --temperature instead"
            raise CorrectionError(
                f"--calibrate: {run} has no validation part of its own to fit on: {remedy}"
            )
        if split == "valid":
            raise CorrectionError(
                "--calibrate fits on the fold's validation part, so that it cannot be judged on "
                "it: add --split test"
            )


NONE = Correction()
