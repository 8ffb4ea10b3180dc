"""LiteRT's own profiler, which its Python package has in its library and doesn't show.

It is reached through the C API of libLiteRt, whose structures are those of one release: run it in
a process of its own, which another release may crash.
"""

import contextlib
import ctypes
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfopt.benchmark import CannotRunError, Setting

_TESTED = "2.3."
_PACKAGE = "ai-edge-litert"
_CPU = 1
_BUILTIN = 2
_WARM_UP = 20
# Runs between two readings: the profiler's buffer holds some thousand events.
_AT_ONCE = 10
_Handle = ctypes.c_void_p
_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Event(ctypes.Structure):
    """ProfiledEventData of litert/c/litert_profiler_event.h."""

    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_size_t * 6),
        ("index", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


class _TensorType(ctypes.Structure):
    """LiteRtRankedTensorType: the element's type, rank and flags, dimensions, strides."""

    _fields_ = [
        ("element", ctypes.c_int32),
        ("rank", ctypes.c_uint32),
        ("dimensions", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    ]


def is_here() -> bool:
    """Return whether the LiteRT that is installed is one whose profiler is known."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(_PACKAGE).startswith(_TESTED)
    return False


def events(setting: Setting, runs: int) -> Iterator[list[Event]]:
    """Yield what the profiler has of some runs of the file on zeros, until there are `runs`."""
    session = _Session(setting)
    for _ in range(_WARM_UP):
        session.run()
    for _ in range(-(-runs // _AT_ONCE)):
        yield session.profiled(_AT_ONCE)


class _Session:
    """A file compiled by LiteRT with its profiler on. Nothing is freed before the process ends."""

    def __init__(self, setting: Setting) -> None:
        found: Any = importlib.util.find_spec("ai_edge_litert")
        self._library = ctypes.CDLL(str(Path(found.origin).with_name("libLiteRt.so")))
        self._path, self._kept = setting.path, []
        self._environment = self._made("CreateEnvironment", 0, None)
        path = str(setting.path).encode()
        model = self._made("CreateModelFromFile", self._environment, path)
        options = self._options(setting)
        self._compiled = self._made("CreateCompiledModel", self._environment, model, options)
        self._signature = self._made("GetModelSignature", model, ctypes.c_size_t(0))
        self._inputs, self._outputs = self._buffers("Input"), self._buffers("Output")
        self._profiler = self._made("CompiledModelGetProfiler", self._compiled)

    def run(self) -> None:
        """Make one inference."""
        buffers = [part for each in (self._inputs, self._outputs) for part in (len(each), each)]
        sized = [ctypes.c_size_t(part) if isinstance(part, int) else part for part in buffers]
        self._call("RunCompiledModel", self._compiled, ctypes.c_size_t(0), *sized)

    def profiled(self, runs: int) -> list[Event]:
        """Return the events of so many inferences."""
        self._call("ResetProfiler", self._profiler)
        self._call("StartProfiler", self._profiler)
        for _ in range(runs):
            self.run()
        self._call("StopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("GetNumProfilerEvents", self._profiler, ctypes.byref(count))
        found = (Event * count.value)()
        self._call("GetProfilerEvents", self._profiler, count, found)
        return list(found)

    def _options(self, setting: Setting) -> Any:
        options = self._made("CreateOptions")
        self._call("SetOptionsHardwareAccelerators", options, _CPU)
        self._add(options, "runtime_options_string", "enable_profiling = true\n")
        kernels = "" if setting.xnnpack else f"kernel_mode = {_BUILTIN}\n"
        self._add(options, "xnnpack", f"num_threads = {setting.threads}\n{kernels}")
        return options

    def _add(self, options: Any, name: str, toml: str) -> None:
        content, no_deleter = ctypes.create_string_buffer(toml.encode()), _Deleter(lambda _: None)
        self._kept += [content, no_deleter]
        payload = ctypes.cast(content, _Handle)
        added = self._made("CreateOpaqueOptions", name.encode(), payload, no_deleter)
        self._call("AddOpaqueOptions", options, added)

    def _buffers(self, kind: str) -> Any:
        """Return a zeroed buffer for each input or output of the first signature."""
        count = ctypes.c_size_t()
        self._call(f"GetNumSignature{kind}s", self._signature, ctypes.byref(count))
        found = (_Handle * count.value)()
        for index in range(count.value):
            at = ctypes.c_size_t(index)
            tensor = self._made(f"GetSignature{kind}TensorByIndex", self._signature, at)
            shaped = _TensorType()
            self._call("GetRankedTensorType", tensor, ctypes.byref(shaped))
            shaped.dimensions[:] = [abs(size) for size in shaped.dimensions]  # -1: any, here 1
            needs = self._made(
                f"GetCompiledModel{kind}BufferRequirements", self._compiled, ctypes.c_size_t(0), at
            )
            buffer = self._made(
                *("CreateManagedTensorBufferFromRequirements", self._environment),
                *(ctypes.byref(shaped), needs),
            )
            self._call("ClearTensorBuffer", buffer)
            found[index] = buffer
        return found

    def _made(self, name: str, *arguments: Any) -> Any:
        """Return the handle that a function writes to its last argument."""
        made = _Handle()
        self._call(name, *arguments, ctypes.byref(made))
        return made

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status:
            raise CannotRunError(
                f"{self._path}: LiteRT can't profile it: LiteRt{name} failed ({status}); take "
                "TensorFlow's tool by --benchmark_model=PATH."
            )
