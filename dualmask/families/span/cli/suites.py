"""What this family adds to ``dualmask eval``: functions with the options of ``eval_options.Measured`` and their own."""

from dualmask.families.span.cli.eval_span import span

SUITES = (span,)
