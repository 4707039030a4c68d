"""What ends a training run and is not a programmer's mistake."""


class TrainingError(RuntimeError):
    """One line that says what happened and what to do."""
