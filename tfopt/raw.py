"""Files and texts to the raw things that front ends make examples of: Pillow, wave and NumPy."""

import os
import wave
from pathlib import Path

import numpy as np

from tfopt.data.front_end import Image, LogMel, Tokens, Waveform
from tfopt.errors import ConfigError
from tfopt.tflite.metadata import Description

_AS_THEY_ARE = ("L", "LA", "RGB", "RGBA")


def examples(given: str, description: Description) -> np.ndarray:
    """Return the examples (n, *shape), not yet normalised, of a file or a text.

    An .npy file holds them as they are, one or several. Raises ConfigError of one sentence.
    """
    shape, front_end = description.shape, description.front_end
    path = Path(given)
    if isinstance(front_end, Tokens):
        if os.path.isfile(given):  # noqa: PTH113, as a Path raises where a text is long
            raise ConfigError(
                f"expected a text, received the name of a file, {given!r}; give what is in it, as "
                f'"$(cat {given})".'
            )
        return front_end(given, shape)[None]
    try:
        if path.suffix == ".npy":
            return _features(path, shape)
        if isinstance(front_end, Image):
            return front_end(_pixels(path), shape)[None]
        if isinstance(front_end, Waveform | LogMel):
            return front_end(_sound(path, front_end.rate), shape)[None]
    except OSError as error:
        # Pillow has no strerror for what it can't identify.
        said = error.strerror or "it is damaged or of another format"
        raise ConfigError(f"can't read {path}: {said}.") from error
    raise ConfigError(
        f"expected an .npy file, as this file takes features of shape {shape}, received {given!r}."
    )


def _features(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ConfigError(f"can't read {path}: it is no .npy file of numbers.") from error
    if found.shape == shape:
        return found[None]
    if found.shape[1:] == shape:
        return found
    raise ConfigError(
        f"{path}: expected an example of shape {shape} or several of them, received {found.shape}."
    )


def _pixels(path: Path) -> np.ndarray:
    import PIL.Image

    try:
        with PIL.Image.open(path) as image:
            if image.mode.startswith("I;16"):
                return np.asarray(image).astype(np.uint16) >> 8
            if image.mode in ("1", "I", "F"):
                return np.asarray(image.convert("L"))
            alike = image.mode in _AS_THEY_ARE
            return np.asarray(image if alike else image.convert("RGB"))
    except (ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ConfigError(f"can't read {path}: {' '.join(str(error).split())}.") from error


def _sound(path: Path, rate: int) -> np.ndarray:
    """Return the samples (n,) of -1..1 at `rate`, of all channels together."""
    try:
        with wave.open(str(path)) as file:
            width, channels, own = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        said = str(error) or "it ends too early"
        raise ConfigError(f"can't read {path}: it is no .wav file of PCM ({said}).") from error
    frames = np.frombuffer(data[: len(data) // (width * channels) * width * channels], np.uint8)
    bytes_ = frames.reshape(-1, width).astype(np.int64)
    # Little-endian; one byte has no sign, more of them have.
    values = (bytes_ << 8 * np.arange(width)).sum(-1)
    half = 1 << 8 * width - 1
    values = values - half if width == 1 else (values ^ half) - half
    return _at_rate((values / half).reshape(-1, channels).mean(-1), own, rate)


def _at_rate(samples: np.ndarray, own: int, rate: int) -> np.ndarray:
    """Return `samples` at another `rate`: with the same spectrum, as far as both can hold it."""
    if own == rate or not len(samples):
        return samples
    length = max(round(len(samples) * rate / own), 1)
    return np.fft.irfft(np.fft.rfft(samples), length) * (length / len(samples))
