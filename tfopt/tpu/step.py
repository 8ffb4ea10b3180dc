"""The training step of a compiled Keras model as a TPU program in StableHLO."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfopt.compat import keras, tf, tf_functions, tf_handle_data

# What stands around the operators of a TPU program in TensorFlow's graph.
_FRAME = {"NoOp", "Assert", "TPUReplicateMetadata"}
_MARK = "_tpu_replicate"
_UNSUPPORTED = re.compile(r"(\w+) \(No registered .*?\{\{node ([^}]+)\}\}", re.DOTALL)


class NotForTPUError(Exception):
    """A step has operators that no TPU program can have; the message names them and the layer."""


@dataclass(frozen=True, slots=True)
class Step:
    """One training step of one of `replicas`: its operators, and what comes in and goes out.

    `data` are the tensors of a batch and `resources` the handles of the variables, in the
    order in which the lowered program takes them.
    """

    graph: Any
    operations: list
    data: list
    resources: list
    outputs: list
    replicas: int


def traced(model: "keras.Model", batch: Any, strategy: "tf.distribute.TPUStrategy") -> Step:
    """Return the step that `model.fit` runs under `strategy` on each of its replicas.

    `batch` is the tf.TensorSpecs of a replica's batch, as `train_step` takes it.
    """

    @tf.function
    def stepped(batch: Any) -> Any:
        return strategy.run(model.train_step, args=(batch,))

    graph = stepped.get_concrete_function(batch).graph
    operations = [o for o in graph.get_operations() if _MARK in o.node_def.attr]
    inside = {id(o) for o in operations}
    arriving: dict[str, Any] = {}
    for operation in operations:
        arriving |= {x.name: x for x in operation.inputs if id(x.op) not in inside}
    return Step(
        graph=graph,
        operations=operations,
        data=[x for x in arriving.values() if x.dtype != tf.resource],
        resources=[x for x in arriving.values() if x.dtype == tf.resource],
        outputs=[o.inputs[0] for o in graph.get_operations() if o.type == "TPUReplicatedOutput"],
        replicas=strategy.num_replicas_in_sync,
    )


def lowered(step: Step) -> str:
    """Return `step` as StableHLO; raises NotForTPUError where an operator has no such form."""
    # TensorFlow's compiler wants variables to look at; what is in them goes into no program.
    variables = [tf.Variable(tf.zeros(s.shape, s.dtype)) for s in map(_variable, step.resources)]
    specs = [tf.TensorSpec(x.shape, x.dtype) for x in step.data]
    try:
        ir = program(step, variables).experimental_get_compiler_ir(*specs)
        return ir(stage="stablehlo", platform_name="CPU")
    except (tf.errors.OpError, ValueError) as error:
        raise NotForTPUError(_named(str(error))) from error


def program(step: Step, variables: list) -> Any:
    """Return `step` as a compiled function of its data, which changes `variables`.

    These are one for each of the step's resources, in their order.
    """

    def run(*data: Any) -> list:
        known = {x.name: y for x, y in zip(step.data, data, strict=True)}
        known |= {x.name: v.handle for x, v in zip(step.resources, variables, strict=True)}
        _Replay(step.replicas).run(step.operations, step.graph, known)
        return [known[x.name] for x in step.outputs]

    return tf.function(run, jit_compile=True)


def _named(message: str) -> str:
    found = dict.fromkeys(_UNSUPPORTED.findall(message))
    if not found:
        return message.splitlines()[0]
    return "; ".join(f"operator {kind} at {node}" for kind, node in found)


def _variable(handle: Any) -> Any:
    inner = handle.op.inputs[0] if handle.op.type == "TPUReplicatedInput" else handle
    known = tf_handle_data.get_resource_handle_data(inner).shape_and_type[0]
    return tf.TensorSpec(tf.TensorShape(known.shape), tf.dtypes.as_dtype(known.dtype))


class _Replay:
    """Operators of one graph, made again in the graph that is being traced.

    A sum over replicas is made as the collective that XLA lowers on every platform, since plain
    TensorFlow has the TPU's own for TPUs only; functions are replayed too, as it may be inside.
    """

    def __init__(self, replicas: int) -> None:
        self._replicas, self._sums = replicas, 0

    def run(self, operations: list, owner: Any, known: dict) -> None:
        """Make `operations` of the graph `owner`; `known` has tensors by name, new ones too."""
        for operation in operations:
            if operation.type in _FRAME or operation.type == "Placeholder":
                continue
            inputs = [known[x.name] for x in operation.inputs]
            make = getattr(self, f"_{operation.type}", self._same)
            outputs = make(operation, owner, inputs)
            known.update({x.name: y for x, y in zip(operation.outputs, outputs, strict=True)})

    def _same(self, operation: Any, owner: Any, inputs: list) -> list:
        graph = tf.compat.v1.get_default_graph()
        attrs = {k: v for k, v in operation.node_def.attr.items() if not k.startswith("_")}
        for value in attrs.values():
            if value.func.name:
                graph._add_function_recursive(_function(owner, value.func.name))
        types = [x.dtype for x in operation.outputs]
        # By the same name, which has the layer's in it.
        made = graph._create_op_internal(
            operation.type, inputs, types, name=operation.name, attrs=attrs, op_def=operation.op_def
        )
        for old, new in zip(operation.outputs, made.outputs, strict=True):
            tf_handle_data.copy_handle_data(old, new)
        return made.outputs

    def _CrossReplicaSum(self, operation: Any, owner: Any, inputs: list) -> list:  # noqa: N802
        del operation, owner
        if self._replicas == 1:
            return inputs[:1]
        self._sums += 1
        total = tf.raw_ops.CollectiveReduceV2(
            input=inputs[0],
            group_size=self._replicas,
            group_key=1,
            instance_key=self._sums,
            ordering_token=[],
            merge_op="Add",
            final_op="Id",
        )
        return [total]

    def _PartitionedCall(self, operation: Any, owner: Any, inputs: list) -> list:  # noqa: N802
        return self._called(operation, "f", owner, inputs)

    _StatefulPartitionedCall = _PartitionedCall

    def _If(self, operation: Any, owner: Any, inputs: list) -> list:  # noqa: N802
        condition, *rest = inputs

        def branch(which: str) -> Callable:
            return lambda: self._called(operation, which, owner, rest)

        chosen = tf.cast(condition, tf.bool)
        found = tf.cond(chosen, branch("then_branch"), branch("else_branch"))
        return list(tf.nest.flatten(found))

    _StatelessIf = _If

    def _called(self, operation: Any, attribute: str, owner: Any, inputs: list) -> list:
        function = _function(owner, operation.get_attr(attribute).name)
        with owner.as_default():
            definition = getattr(function, "cached_definition", None) or function.definition
            graph = tf_functions.function_def_to_graph(definition)
        known = {x.name: y for x, y in zip(graph.inputs, inputs, strict=True)}
        self.run(graph.get_operations(), graph, known)
        return [known[x.name] for x in graph.outputs]


def _function(graph: Any, name: str) -> Any:
    """Return the function that `graph`, or one around it, has by this name."""
    return graph._get_function(name) or _function(graph.outer_graph, name)
