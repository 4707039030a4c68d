"""DualMaskLM: the Mask Picker deletes, the Mask Inserter asks, the filler fills, and a Gate decides which is needed."""

from dualmask.families.edit.config import EditAlarms, EditConfig, FillerStage, InserterStage, RewardStage, RoundStage
from dualmask.families.registry import Family, Generate

FAMILY = Family(
    name="dualmask",
    model=EditConfig,
    stages=(FillerStage, InserterStage, RoundStage, RewardStage),
    runtime="dualmask.families.edit.runtime:RUNTIME",
    alarms=EditAlarms,
    shown=("recon", "ptr_count", "keep_recover", "reward"),
    generate=Generate("dualmask.families.edit.cli.commands:generate", "dualmask.families.edit.cli.options:GENERATE"),
    commands="dualmask.families.edit.cli.commands:app",
    suites="dualmask.families.edit.cli.suites:SUITES",
    check="dualmask.families.edit.checks:check_run",
)
