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
    dev_figures={  # which of them there are depends on the stage (measure.py)
        "dev_loss": "min",  # weighted as in training
        "dev_filler": "min",  # nats per token that is filled
        "dev_bits": "min",  # the same in bits
        "dev_inserter": "min",  # nats a gap
        "dev_recover": "min",  # nats a deleted token: does the picker foresee whether it comes back?
        "dev_picker": "min",  # nats per token: is it wrong?
        "dev_gate": "min",  # nats a text: is anything in it wrong?
        "dev_token_auc": "max",  # a wrong token is doubted more than a right one
        "dev_gate_auc": "max",  # a wrong text is opened rather than a right one
        "dev_f05": "max",  # of the edits of one round of `auto` on wrong texts
        "dev_untouched": "max",  # share of the tokens of right texts that this round leaves alone
    },
    generate=Generate("dualmask.families.edit.cli.commands:generate", "dualmask.families.edit.cli.options:GENERATE"),
    commands="dualmask.families.edit.cli.commands:app",
    suites="dualmask.families.edit.cli.suites:SUITES",
    check="dualmask.families.edit.checks:check_run",
)
