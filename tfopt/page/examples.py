"""Examples of the test split as a person sees, hears or reads them."""

import base64
import io
from collections.abc import Iterable
from functools import singledispatch
from typing import Any

import numpy as np

from tfopt.data.front_end import Image, LogMel, Tokens, Waveform
from tfopt.data.normalisation import Normalisation

_MOST_PIXELS, _FEW_PIXELS = 128, 48
_COLOUR = (74, 123, 234)  # seen in light and in dark
_MOST_WORDS = 60
_FRAMES, _FLOOR_DB = 64, 60.0


def taken(test: Iterable, indices: list[int], normalisation: Normalisation) -> dict[int, Any]:
    """Return the examples of the split `test` at `indices`, as they were before normalisation.

    Those of a model with several inputs, which nobody can show as one thing, are left out.
    """
    found, first = {}, 0
    mean, std = np.array(normalisation.mean), np.array(normalisation.std)
    for examples, _, weights in test if indices else ():
        if isinstance(examples, (dict, tuple)):
            return {}
        real = np.flatnonzero(np.asarray(weights).reshape(-1) > 0)
        for index in indices:
            if first <= index < first + len(real):
                found[index] = np.asarray(examples)[real[index - first]] * std + mean
        first += len(real)
        if first > max(indices):
            break
    return found


@singledispatch
def drawn(front_end: Any, example: np.ndarray) -> dict[str, str]:
    """Return how `example` is shown: as `image`, a data URI, or `text`, or not.

    An image is of a `kind`, and has a `look`: "pixels", that can be told apart, "smooth", or
    "filled", whose sides may have any ratio.
    """
    del front_end, example
    return {}


@drawn.register
def _(front_end: Image, example: np.ndarray) -> dict[str, str]:
    pixels = np.clip(np.round(example * 255 / front_end.peak), 0, 255).astype(np.uint8)
    look = "pixels" if max(pixels.shape) <= _FEW_PIXELS else "smooth"
    return {"kind": "image", "look": look, "image": _png(pixels)}


@drawn.register
def _(front_end: Waveform, example: np.ndarray) -> dict[str, str]:
    samples = example.reshape(-1)
    frame = max(min(len(samples) // 2, front_end.rate // 40), 2)
    starts = np.linspace(0, len(samples) - frame, _FRAMES).astype(int)
    frames = samples[starts[:, None] + np.arange(frame)] * np.hanning(frame)
    decibels = 20 * np.log10(np.abs(np.fft.rfft(frames)) + 1e-9)
    return {"kind": "spectrogram", "look": "filled", "image": _heat(decibels, _FLOOR_DB)}


@drawn.register
def _(front_end: LogMel, example: np.ndarray) -> dict[str, str]:
    del front_end
    energies = example.reshape(example.shape[:2])
    return {
        "kind": "spectrogram",
        "look": "filled",
        "image": _heat(energies, float(np.ptp(energies))),
    }


@drawn.register
def _(front_end: Tokens, example: np.ndarray) -> dict[str, str]:
    words = dict(enumerate(front_end.vocabulary, 2))
    tokens = [int(token) for token in example.reshape(-1) if round(float(token)) > 0]
    text = " ".join(words.get(token, "□") for token in tokens[:_MOST_WORDS])
    return {"text": text + (" …" if len(tokens) > _MOST_WORDS else "")}


def _heat(values: np.ndarray, floor: float) -> str:
    """Return `values` (time, frequency) as a picture, low frequencies at the bottom."""
    brightness = 1 - (values.max() - values) / (floor or 1)
    return _png((255 * np.clip(brightness, 0, 1)).astype(np.uint8).T[::-1, :, None])


def _png(pixels: np.ndarray) -> str:
    return _uri(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3], _MOST_PIXELS)


def _uri(pixels: np.ndarray, most: int | None = None) -> str:
    """Return the data URI of a picture, which is made smaller where a side is above `most`."""
    import PIL.Image  # deferred; it comes with matplotlib

    made = PIL.Image.fromarray(pixels)
    if most:
        made.thumbnail((most, most))
    content = io.BytesIO()
    made.save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def matrix_png(shares: np.ndarray) -> str:
    """Return (rows, columns) of 0 to 1 as a picture of one colour, more or less transparent."""
    alpha = 255 * np.clip(shares, 0, 1) ** 0.5
    colours = np.broadcast_to(_COLOUR, (*shares.shape, 3))
    return _uri(np.concatenate([colours, alpha[..., None]], axis=-1).astype(np.uint8))
