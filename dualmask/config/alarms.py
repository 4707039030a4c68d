"""What counts as a collapse that losses do not show: the keys that every family has. Pure."""

from __future__ import annotations

from pydantic import Field

from dualmask.config.section import Positive, Section


class AlarmConfig(Section):
    """A figure out of its bounds in so many steps on end; which figures there are is the family's business."""

    steps: Positive = Field(200, description="in a row")
    stop: bool = Field(False, description="an alarm ends the run, behind a checkpoint")
