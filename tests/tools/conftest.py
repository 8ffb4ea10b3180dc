import pytest

from tfopt.compat import tf


class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([1, 16], tf.float32)])
    def small(self, x):
        return tf.matmul(x, tf.ones((16, 4)))

    @tf.function(input_signature=[tf.TensorSpec([1, 256], tf.float32)])
    def large(self, x):
        return tf.matmul(tf.matmul(x, tf.ones((256, 2048))), tf.ones((2048, 256)))

    @tf.function(input_signature=[tf.TensorSpec([1, 16], tf.float32)])
    def custom(self, x):
        return tf.math.erfinv(x)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Files that tfopt didn't make, without its names, by the name of the method."""
    folder, module = tmp_path_factory.mktemp("files"), Model()
    for name in ("small", "large", "custom"):
        function = getattr(module, name).get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        converter.allow_custom_ops = True
        (folder / f"{name}.tflite").write_bytes(converter.convert())
    return folder
