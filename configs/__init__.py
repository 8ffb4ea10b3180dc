"""The experiments that tfopt ships, a file each; `--config=NAME` finds them here."""
