"""What a file of a test says of itself."""

from typing import Any

from tfopt.tflite.metadata import Description


def description(**fields: Any) -> Description:
    """A description, of which a test says what it is about: the shape at least."""
    made_up = {
        **{"config": "net", "config_hash": "0123456789ab", "stage": "train", "variant": "int8"},
        **{"accuracy": 0.5, "examples": 8, "class_names": ("a", "b", "c")},
    }
    return Description(**made_up | fields)
