"""Variants that ai-edge-quantizer makes of the float32 file: 4 bit weights, GPTQ, blocks."""

import importlib.util
import re
import warnings
from typing import Any, ClassVar

import numpy as np

from tfopt.compat import edge_quantizer, keras
from tfopt.errors import ConfigError, matches
from tfopt.export.calibration import MinMax, ranges
from tfopt.export.inputs import Examples
from tfopt.export.variants import Variant, check_exclude, chosen, excluded, named
from tfopt.facts import measure
from tfopt.spec import bounded, having, spec
from tfopt.stages.hold import is_initial, shares_values

_ALL = ".*"
# What computes with weights of 4 bit; depthwise kernels and embeddings have 8.
_KERNELS = ("FULLY_CONNECTED", "CONV_2D")
# Layers of whose weights each is rounded by itself, and with one scale in a channel.
_ONE_BY_ONE = ("Conv", "DepthwiseConv", "SeparableConv", "Embedding")


@spec
class Octav:
    """Clips weights where the error of cutting off and rounding is least (Sakr et al. 2022)."""

    name: ClassVar[str] = "octav"

    def algorithm(self) -> str:
        """Return ai-edge-quantizer's name for it."""
        return "OCTAV"


@spec
class GPTQ:
    """Rounds a kernel column by column and lets the rest make up for it (Frantar et al. 2022).

    Dense kernels only, by the Hessian of their inputs on the examples; convolutions are rounded
    to the nearest code.
    """

    name: ClassVar[str] = "gptq"

    def algorithm(self) -> str:
        """Return ai-edge-quantizer's name for it."""
        return "GPTQ"


@spec
class Static:
    """Activations in `bits` 8 or 16, their ranges from examples as `calibration` says."""

    bits: int = 8
    calibration: Any = having("clip", MinMax)

    def rules(self) -> Any:
        """Yield what is impossible."""
        if self.bits not in (8, 16):
            yield "bits", "8 or 16"

    @property
    def name(self) -> str:
        """The word in the artifact's name."""
        return named(f"a{self.bits}", self.calibration)

    def add(self, quantizer: Any, operator: Any, bits: int, **options: Any) -> None:
        """Tell ai-edge-quantizer what to do with weights of `bits` at this kind of operator."""
        granularity = options.pop("granularity")
        quantizer.add_static_config(
            _ALL, operator, self.bits, bits, weight_granularity=granularity, **options
        )


@spec
class Dynamic:
    """Activations float in the file, quantized by the runtime while it computes."""

    name: ClassVar[str] = "dynamic"

    def add(self, quantizer: Any, operator: Any, bits: int, **options: Any) -> None:
        """Tell ai-edge-quantizer what to do with weights of `bits` at this kind of operator."""
        quantizer.add_dynamic_config(_ALL, operator, bits, **options)


@spec
class WeightOnly:
    """Everything computed in float; weights are expanded before they are used."""

    name: ClassVar[str] = "weights"

    def add(self, quantizer: Any, operator: Any, bits: int, **options: Any) -> None:
        """Tell ai-edge-quantizer what to do with weights of `bits` at this kind of operator."""
        quantizer.add_weight_only_config(_ALL, operator, bits, **options)


@spec
class EdgeQuantized(Variant):
    """Weights of convolutions and Dense in `bits` 4 or 8, by ai-edge-quantizer.

    `weights` chooses their scales: MinMax(), MSE(), Octav() or GPTQ(); one scale for each output
    channel, or with `block` for each so many inputs of a Dense unit. `activations` are Static(),
    Dynamic() or WeightOnly(). What has no such kernel has weights of 8 bit, and layers whose
    name matches one of the patterns in `exclude` stay float. Needs `pip install tfopt[edge]`.
    """

    runs_what_float_does: ClassVar[bool] = False

    bits: int = 4
    block: int = 0
    weights: Any = having("algorithm", Octav)
    activations: Any = having("add", Static)
    examples: int = bounded(200, least=1)
    exclude: tuple[str, ...] = ()

    def rules(self) -> Any:
        """Yield what is impossible."""
        yield from Variant.rules(self)
        if self.bits not in (4, 8):
            yield "bits", "4 or 8"
        if self.block not in (0, 32, 64, 128, 256):
            yield "block", "0, 32, 64, 128 or 256 inputs"
        if self.block and (self.bits != 4 or not isinstance(self.activations, Dynamic)):
            yield "block", "0 where weights have 8 bit or activations aren't Dynamic()"
        if isinstance(self.weights, GPTQ) and isinstance(self.activations, Static):
            # Its Hessian takes the place of the range: logits come out wrong without an error.
            yield "weights", "another choice than GPTQ() with Static() activations"

    @property
    def name(self) -> str:
        """Such as `edge_w4_a8_mse`: bits, activations, and how weights are rounded."""
        kind = f"edge_w{self.bits}" + (f"b{self.block}" if self.block else "")
        return named(f"{kind}_{self.activations.name}_{self.weights.name}", None, self.exclude)

    def check(self, model: "keras.Model") -> None:
        """Raise ConfigError where the package is missing or a layer doesn't divide into blocks."""
        Variant.check(self, model)
        check_exclude(self.name, self.exclude, model)
        if importlib.util.find_spec("ai_edge_quantizer") is None:
            raise ConfigError(
                f"variant {self.name!r}: expected the package ai-edge-quantizer, found none; "
                "pip install 'tfopt[edge]'."
            )
        self._check_shared(model)
        for layer in model.layers if self.block else ():
            if isinstance(layer, keras.layers.Dense) and layer.kernel.shape[0] % self.block:
                raise ConfigError(
                    f"variant {self.name!r}, block: expected Dense layers with a multiple of "
                    f"{self.block} inputs, received {layer.name!r} with {layer.kernel.shape[0]}; "
                    "choose block=0."
                )

    def _check_shared(self, model: "keras.Model") -> None:
        """Raise ConfigError where weights that are equal would be rounded to different codes."""
        if not (self.block or isinstance(self.weights, GPTQ)):
            return
        option = "block=0" if self.block else "other weights than GPTQ()"
        for kernel in measure(model).kernels:
            if kernel.inner_type.startswith(_ONE_BY_ONE) or matches(kernel.layer, self.exclude):
                continue
            constant = is_initial(kernel.distinct_total, kernel.zeros > 0)
            if not constant and shares_values(kernel):
                raise ConfigError(
                    f"variant {self.name!r}: expected kernels without shared values, received "
                    f"{kernel.layer!r}, of which a stage has made {kernel.distinct:,} distinct "
                    f"values per channel, which it would round to more; choose {option}."
                )

    def complete(self, content: bytes, model: "keras.Model", examples: Examples) -> bytes:
        """Return the float32 `content` quantized."""
        quantizer: Any = edge_quantizer.Quantizer(content)
        self._configure(quantizer, excluded(content, self.exclude, model))
        with warnings.catch_warnings():
            # It needs every tensor of the float model, which is what LiteRT warns of.
            warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors")
            seen = self._seen(quantizer, content, chosen(self.name, examples, self.examples))
            result = quantizer.quantize(
                seen, enable_progress_bar=False, enable_progress_report=False
            )
        return bytes(result.quantized_model)

    def _configure(self, quantizer: Any, left: set[str]) -> None:
        """Say what to do with each kind of operator, and to leave alone what is in `left`."""
        operator = edge_quantizer.qtyping.TFLOperationName
        self.activations.add(quantizer, operator("*"), 8, granularity="CHANNELWISE")
        for kind in _KERNELS:
            dense = kind == "FULLY_CONNECTED"
            chosen = self.weights if dense or not isinstance(self.weights, GPTQ) else MinMax()
            self.activations.add(
                quantizer,
                operator(kind),
                self.bits,
                granularity=f"BLOCKWISE_{self.block}" if self.block and dense else "CHANNELWISE",
                algorithm_key=edge_quantizer.AlgorithmName(chosen.algorithm()),
            )
        for name in left:
            quantizer.update_quantization_recipe(
                f"^{re.escape(name)};?$", operator("*"), algorithm_key="no_quantize"
            )

    def _seen(self, quantizer: Any, content: bytes, examples: Examples) -> dict | None:
        """Return what the examples tell of each tensor, in ai-edge-quantizer's words."""
        if isinstance(self.activations, Static):
            found = ranges(content, examples, self.activations.calibration)
            return {
                name: {"min": np.array([[low]], "f"), "max": np.array([[high]], "f")}
                for name, (low, high) in found.items()
            }
        if not quantizer.need_calibration:
            return None
        each = zip(*examples.values(), strict=True)
        by_name = [dict(zip(examples, (x[None] for x in one), strict=True)) for one in each]
        return quantizer.calibrate({"serving_default": by_name})
