"""The tools: `tfopt inspect FILE` runs tools/inspect.py; a file more is a tool more."""
