"""The only door to TensorFlow, Keras, tfmot and LiteRT, and to what shows their figures.

Each name below is loaded at the first use of one of its attributes, so that a config can
be read and validated, and `--help` answered, without waiting seconds for TensorFlow.
Keras is `tf_keras` (Keras 2): tfmot works with no other.
"""

import contextlib
import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

# What TensorFlow is loaded within; a main sets it.
while_loading = contextlib.nullcontext


class _Lazy(types.ModuleType):
    """A module that is imported when something is first asked of it."""

    def __getattr__(self, name: str) -> Any:
        # Tools that inspect modules ask for __wrapped__ and the like; that is no use of it.
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        if "tensorflow" in sys.modules:
            module = importlib.import_module(self.__name__)
        else:
            with while_loading():
                module = importlib.import_module(self.__name__)
        value = getattr(module, name)
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras
    import wandb
    from ai_edge_litert import interpreter as litert
    from ai_edge_litert import schema_py_generated as tflite_schema
    from ai_edge_quantizer import quantizer as edge_quantizer
    from tensorboard.plugins.custom_scalar import layout_pb2 as tb_layout
    from tensorboard.plugins.custom_scalar import summary as tb_charts
    from tensorboard.plugins.hparams import api_pb2 as tb_hparams_api
    from tensorboard.plugins.hparams import summary as tb_hparams
    from tensorboard.plugins.pr_curve import summary as tb_pr_curves
    from tensorflow.lite.python import convert as tflite_convert
    from tensorflow.python.framework import function_def_to_graph as tf_functions
    from tensorflow.python.ops import handle_data_util as tf_handle_data
    from tensorflow.python.tpu import tpu_system_metadata as tf_tpu_metadata
    from tensorflow_model_optimization.python.core.sparsity.keras import (
        pruning_wrapper as tfmot_pruning,
    )
else:
    tf = _Lazy("tensorflow")
    keras = _Lazy("tf_keras")
    tfmot = _Lazy("tensorflow_model_optimization")
    # Its wrapper is public as a function only, and can't be specialised so.
    tfmot_pruning = _Lazy(
        "tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper"
    )
    litert = _Lazy("ai_edge_litert.interpreter")
    tflite_schema = _Lazy("ai_edge_litert.schema_py_generated")
    tflite_convert = _Lazy("tensorflow.lite.python.convert")
    # A TPU's program is taken out of the graph that TPUStrategy traces, which isn't public.
    tf_functions = _Lazy("tensorflow.python.framework.function_def_to_graph")
    tf_handle_data = _Lazy("tensorflow.python.ops.handle_data_util")
    tf_tpu_metadata = _Lazy("tensorflow.python.tpu.tpu_system_metadata")
    edge_quantizer = _Lazy("ai_edge_quantizer.quantizer")
    # TensorBoard's plugins say themselves what they read; they load TensorFlow.
    tb_charts = _Lazy("tensorboard.plugins.custom_scalar.summary")
    tb_layout = _Lazy("tensorboard.plugins.custom_scalar.layout_pb2")
    tb_hparams = _Lazy("tensorboard.plugins.hparams.summary")
    tb_hparams_api = _Lazy("tensorboard.plugins.hparams.api_pb2")
    tb_pr_curves = _Lazy("tensorboard.plugins.pr_curve.summary")
    wandb = _Lazy("wandb")

__all__ = [
    "edge_quantizer",
    "keras",
    "litert",
    "tb_charts",
    "tb_hparams",
    "tb_hparams_api",
    "tb_layout",
    "tb_pr_curves",
    "tf",
    "tf_functions",
    "tf_handle_data",
    "tf_tpu_metadata",
    "tflite_convert",
    "tflite_schema",
    "tfmot",
    "tfmot_pruning",
    "wandb",
]
