"""Errors that end a training run and are not bugs."""


class TrainingError(RuntimeError):
    """The run cannot continue. The message is one line that says what happened and what to do."""
