"""What a run will need, from its configuration alone. Pure: imports neither torch nor an engine."""
