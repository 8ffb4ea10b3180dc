"""What one example is made of: a picture, a sound or a text, by NumPy alone.

A front end is called with the raw thing and the shape of an example, and returns the example as
a data set has it: before `Normalisation`. It goes into a .tflite's metadata, so that whoever has
the file can make its input.
"""

import re
from collections.abc import Iterator

import numpy as np

from tfopt.spec import bounded, spec

_LUMA = np.array([0.299, 0.587, 0.114])
_LOWEST_HZ = 20.0
_SILENCE = 1e-6
_WORD = re.compile(r"(?:[^\W_]|')+")
_FIRST_WORD = 2


@spec
class Image:
    """A picture (h, w) or (h, w, channels) of 0..255, as Pillow gives it, or in grey with alpha.

    The example is (height, width, 1 or 3) of 0..`peak`, resized as image folders are.
    """

    peak: float = bounded(255, above=0)

    def __call__(self, raw: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return `raw` as an example of `shape`."""
        pixels = raw.reshape(*raw.shape[:2], -1).astype(np.float64)
        # Alpha goes, as it does where TensorFlow decodes.
        pixels = pixels[..., : 1 if pixels.shape[-1] <= 2 else 3]
        if pixels.shape[-1] > shape[-1]:
            pixels = np.round(pixels @ _LUMA)[..., None]
        for axis in (0, 1):
            if pixels.shape[axis] != shape[axis]:
                weights = _weights(pixels.shape[axis], shape[axis])
                pixels = np.moveaxis(np.tensordot(weights, pixels, (1, axis)), 0, axis)
        pixels = np.clip(np.round(pixels), 0, 255) * (self.peak / 255)
        return np.broadcast_to(pixels, shape).astype(np.float32)


def _weights(size: int, wanted: int) -> np.ndarray:
    """Return the matrix (wanted, size) of tf.image.resize: bilinear, antialiased."""
    scale = size / wanted
    centres = (np.arange(wanted) + 0.5) * scale
    distances = np.abs(np.arange(size) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = np.maximum(1 - distances, 0)
    return weights / weights.sum(1, keepdims=True)


@spec
class Waveform:
    """A sound (n,) of -1..1, of `rate` samples a second.

    The example is (samples,) or (samples, 1), cut off or filled up with silence.
    """

    rate: int = bounded(16_000, least=1)

    def __call__(self, raw: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return `raw` as an example of `shape`."""
        return _filled(raw, shape[0]).astype(np.float32).reshape(shape)


@spec
class LogMel:
    """A sound (n,) of -1..1, of `rate` samples a second, by what is in its `mels` bands.

    The example is (frames, mels) or (frames, mels, 1): for each frame of `frame` samples, which
    begin `hop` samples apart, the logarithm of the energy in each band, under Hann's window and
    on the mel scale (HTK's) from 20 Hz to half of the rate.
    """

    rate: int = bounded(16_000, least=1)
    frame: int = bounded(640, least=2)
    hop: int = bounded(320, least=1)
    mels: int = bounded(40, least=1)

    def __call__(self, raw: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return `raw` as an example of `shape`."""
        frames = shape[0]
        filled = _filled(raw, self.frame + (frames - 1) * self.hop)
        starts = self.hop * np.arange(frames)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.frame) / self.frame)
        length = 1 << (self.frame - 1).bit_length()
        spectrum = np.fft.rfft(filled[starts[:, None] + np.arange(self.frame)] * window, length)
        energies = np.abs(spectrum) ** 2 @ self._bands(length)
        return np.log(energies + _SILENCE).astype(np.float32).reshape(shape)

    def _bands(self, length: int) -> np.ndarray:
        """Return the share (bins, mels) that each bin of the spectrum has in each band."""
        bins = _mel(np.linspace(0, self.rate / 2, length // 2 + 1))[:, None]
        edges = np.linspace(_mel(_LOWEST_HZ), _mel(self.rate / 2), self.mels + 2)
        low, centre, high = edges[:-2], edges[1:-1], edges[2:]
        rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
        bands = np.maximum(np.minimum(rising, falling), 0)
        bands[0] = 0  # the constant part is no sound
        return bands


def _mel(hertz: np.ndarray | float) -> np.ndarray:
    return 1127 * np.log1p(np.asarray(hertz) / 700)


def _filled(raw: np.ndarray, length: int) -> np.ndarray:
    """Return the first `length` of `raw`, with zeros where it has fewer."""
    return np.pad(raw[:length], (0, max(length - len(raw), 0)))


@spec
class Tokens:
    """A text, as places of its words in `vocabulary`, counted from 2.

    Words are in lower case, and end where there is no letter, digit or apostrophe. The example
    is (length,): 0 fills it up, 1 is a word that `vocabulary` lacks.
    """

    vocabulary: tuple[str, ...]

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what was expected) where a word could never be found."""
        if any(_WORD.findall(word.lower()) != [word] for word in self.vocabulary):
            yield "vocabulary", "words in lower case of letters, digits and apostrophes"

    def __call__(self, raw: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return `raw` as an example of `shape`."""
        places = {word: place for place, word in enumerate(self.vocabulary, _FIRST_WORD)}
        found = [places.get(word, 1) for word in _WORD.findall(raw.lower())]
        return _filled(np.array(found, np.float32), shape[0])


FrontEnd = Image | Waveform | LogMel | Tokens
