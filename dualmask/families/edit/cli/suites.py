"""What this family adds to ``dualmask eval``: functions with the options of ``eval_options.Measured`` and their own."""

from dualmask.families.edit.cli.eval_deletion import gaps, quickstart, reconstruction
from dualmask.families.edit.cli.eval_everyday import everyday
from dualmask.families.edit.cli.eval_gec import gec
from dualmask.families.edit.cli.eval_rounds import adaptive, editing

SUITES = (reconstruction, gaps, quickstart, editing, adaptive, everyday, gec)
