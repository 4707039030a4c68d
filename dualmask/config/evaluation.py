"""How a run is judged while it trains: the keys of the section ``eval``. Pure."""

from __future__ import annotations

from pydantic import Field, model_validator

from dualmask.config.section import Positive, Section


class EvalConfig(Section):
    """The dev part of the data is measured during training (docs/judging.md)."""

    every_steps: Positive | None = Field(None, description="also at the end of each stage; None: nothing is measured")
    sequences: Positive = Field(64, description="of the dev part, always the same ones, spread over the whole of it")
    metric: str | None = Field(
        None, description="which evaluation is the best; None, or where a stage lacks it: the stage's own"
    )
    patience: Positive | None = Field(
        None, description="evaluations in a row without a new best behind which the stage ends and the next begins"
    )
    keep_best: bool = Field(True, description="the last stage's best checkpoint is kept beside checkpoint.keep_last")
    thresholds: bool = Field(
        True,
        description="when the run ends, one process chooses the exported model's thresholds on the dev part; false "
        "where one process cannot hold the model (`dualmask calibrate` does it later)",
    )
    export_best: bool = Field(False, description="the export holds that checkpoint, not the last step")

    @model_validator(mode="after")
    def _consistent(self) -> EvalConfig:
        asked = {"metric": self.metric, "patience": self.patience, "export_best": self.export_best}
        if self.every_steps is None and (idle := next((key for key, value in asked.items() if value), None)):
            raise ValueError(f"eval.{idle}={asked[idle]} needs evaluations: set eval.every_steps, or remove it")
        if self.export_best and not self.keep_best:
            raise ValueError("eval.export_best=True needs the best checkpoint: set eval.keep_best to true")
        return self
