"""What TensorBoard finds in a folder, by TensorBoard's own code."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams

from tfopt.compat import tf


def events(folder):
    return EventAccumulator(str(folder), {"tensors": 0}).Reload()


def values(found, tag):
    """Return step and number of each point of the curve `tag`."""
    return [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in found.Tensors(tag)]


def text(found, tag):
    (event,) = found.Tensors(tag)
    return tf.make_ndarray(event.tensor_proto).item().decode()


def session(found):
    """Return how the HParams dashboard's session began, and how it ended."""
    content = found.PluginTagToContent("hparams")
    return (
        hparams.parse_session_start_info_plugin_data(content[hparams.SESSION_START_INFO_TAG]),
        hparams.parse_session_end_info_plugin_data(content[hparams.SESSION_END_INFO_TAG]),
    )


def charts(found):
    """Return the tags of each chart of the custom scalars."""
    (event,) = found.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tf.make_ndarray(event.tensor_proto).item())
    return {c.title: list(c.multiline.tag) for each in layout.category for c in each.chart}
