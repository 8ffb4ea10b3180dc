"""A file as a C array, for a microcontroller that has no file system."""

import json
import re
from pathlib import Path

from tfopt.checkpoint import remove, write_atomically
from tfopt.errors import ConfigError

# TensorFlow Lite Micro reads the model in place.
_ALIGNMENT = 16
_IN_A_LINE = 12
_SUFFIXES = (".h", ".c")


def c_array(content: bytes, name: str, origin: str = "") -> tuple[str, str]:
    """Return the C header and source of `content` as the array `name`, with its length.

    `origin` is the file of which they are, which a comment says.
    """
    guard = f"{name.upper()}_H_"
    header = (
        f'#ifndef {guard}\n#define {guard}\n\n#ifdef __cplusplus\nextern "C" {{\n#endif\n\n'
        f"extern const unsigned char {name}[];\nextern const unsigned int {name}_len;\n\n"
        f"#ifdef __cplusplus\n}}\n#endif\n\n#endif  // {guard}\n"
    )
    rows = [content[at : at + _IN_A_LINE] for at in range(0, len(content), _IN_A_LINE)]
    lines = "\n".join("    " + " ".join(f"0x{byte:02x}," for byte in row) for row in rows)
    source = (
        f"{_origin(origin)}\n"
        f'#include "{name}.h"\n\n'
        f"// TensorFlow Lite Micro reads the model in place, which must be aligned.\n"
        f"const unsigned char {name}[] __attribute__((aligned({_ALIGNMENT}))) = {{\n{lines}\n}};\n"
        f"const unsigned int {name}_len = {len(content)};\n"
    )
    return header, source


def write_c_array(content: bytes, folder: Path, stem: str, origin: str) -> list[Path]:
    """Write header and source of `content`, the file `origin`, to `folder`; return their paths.

    They are named `stem`, in C's letters. Raises ConfigError where those of another file are.
    """
    paths, name = _paths(folder, stem), _name(stem)
    if paths[1].exists():
        found = paths[1].read_text().partition("\n")[0]
        if found != _origin(origin):
            raise ConfigError(
                f"{paths[1]}: expected none, or that of {origin!r}, received one that begins "
                f"{found[:80]!r}; rename the file or choose another folder."
            )
    for path, text in zip(paths, c_array(content, name, origin), strict=True):
        write_atomically(path, text)
    return paths


def remove_c_array(folder: Path, stem: str) -> None:
    """Remove from `folder` what `write_c_array` wrote of its file `stem`.tflite, if it is there."""
    paths = _paths(folder, stem)
    if not paths[1].exists():
        return
    with paths[1].open() as source:
        is_ours = source.readline().rstrip("\n") == _origin(f"{stem}.tflite")
    for path in paths if is_ours else ():
        remove(path)


def _paths(folder: Path, stem: str) -> list[Path]:
    return [folder / f"{_name(stem)}{suffix}" for suffix in _SUFFIXES]


def _name(stem: str) -> str:
    return re.sub(r"\W|^(?=\d)", "_", stem, flags=re.ASCII)


def _origin(origin: str) -> str:
    # As JSON, since a name may end in what goes on in C's next line.
    return f"// Of {json.dumps(origin)}, by tfopt."
