"""Check an untrusted graph before a runtime opens it. Imports neither torch nor `onnx`.

Whoever writes a graph can also write its hash into `deploy.json`. So the graph itself is checked
for what our exporters never write and what could make a runtime run forever or read other files:

    a node that contains a graph (Loop, If, Scan)   may never end; without one a graph is finite
    functions defined by the model                  nested calls of a few make billions of nodes
    weights in other files                          only those in deploy.json, which are hashed
    XML with deep nesting, or with entities         OpenVINO's reader is recursive

An ONNX file is a protobuf message: nested fields of (number · 8 + type, value). Only the few fields
named below are followed, so weights are skipped and not read.

Not checked: the memory that operators need, which a runtime knows only at run time.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from xml.parsers import expat

import numpy as np

from attar.errors import ArtifactError
from attar.untrusted import MIB, open_file, read_bytes

MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE, ENTRY = range(7)
PARTS = {
    (MODEL, 7): GRAPH,
    (GRAPH, 1): NODE,
    (GRAPH, 5): TENSOR,
    (GRAPH, 15): SPARSE,
    (NODE, 5): ATTRIBUTE,
    (ATTRIBUTE, 5): TENSOR,
    (ATTRIBUTE, 10): TENSOR,
    (ATTRIBUTE, 22): SPARSE,
    (ATTRIBUTE, 23): SPARSE,
    (SPARSE, 1): TENSOR,
    (SPARSE, 2): TENSOR,
    (TENSOR, 13): ENTRY,
}
"""(message, field number) → the message in that field; onnx.proto3 of ONNX 1.19."""
REFUSED = {
    (MODEL, 25): "defines functions of its own",
    (ATTRIBUTE, 6): "has a node that holds a graph (Loop, If or Scan)",
    (ATTRIBUTE, 11): "has a node that holds a graph (Loop, If or Scan)",
}
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
"""Wire types of a field."""
MAX_XML_BYTES = 64 * MIB
"""Weights are in a separate file; 1,000 blocks take 20 MiB."""
MAX_XML_DEPTH = 32
"""OpenVINO's own files have 8 levels."""
BODIES = ("body", "then_body", "else_body")
"""XML elements of OpenVINO's Loop, TensorIterator and If."""


def check_onnx(file: Path, named: Collection[str]) -> None:
    """Check an ONNX file.

    Args:
        named: files of its folder that are hashed, from which weights may be read.

    Raises:
        ArtifactError: it contains something that is not allowed, or is not an ONNX file.
    """
    with open_file(file) as stream:
        try:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                fault = next(_onnx_faults(content, named), None)
        except (ValueError, IndexError) as error:  # an empty file, or a length beyond its end
            raise ArtifactError(
                f"cannot open {file}: it is not an ONNX file ({error}); export the model again"
            ) from error
    if fault:
        raise _refused(file, fault)


def check_openvino(file: Path) -> None:
    """Check the XML of an OpenVINO model.

    Raises:
        ArtifactError: it contains something that is not allowed, or is not XML.
    """
    raw = read_bytes(file, MAX_XML_BYTES)
    depth = 0

    def refuse(what: str) -> None:
        raise _refused(file, what)

    def begin(name: str, _: object) -> None:
        nonlocal depth
        depth += 1
        if depth == 1 and name != "net":
            refuse(f"begins with <{name:.40}>, expected <net>")
        if depth > MAX_XML_DEPTH:
            refuse(f"is nested deeper than {MAX_XML_DEPTH} levels")
        if name in BODIES:
            refuse("has a layer that holds a graph (Loop, TensorIterator or If)")

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.StartDoctypeDeclHandler = lambda *_: refuse("declares a document type")
    try:
        parser.Parse(raw, True)
    except expat.ExpatError as error:
        raise ArtifactError(
            f"cannot open {file}: it is not the XML of an OpenVINO model ({error}); export the "
            "model again"
        ) from error


def _refused(file: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"{file} {what}, which attar never exports, so it is refused; export the model again"
    )


def require_one_output(count: int, file: Path) -> None:
    """Raise if a graph has more or fewer than one output, because the logits would be ambiguous."""
    if count != 1:
        raise ArtifactError(f"{file} has {count} outputs, expected 1; export the model again")


def inputs_of(batch: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The inputs of a graph, from a batch.

    Raises:
        ArtifactError: an input is not provided by the task.
    """
    absent = [name for name in names if name not in batch]
    if absent:
        raise ArtifactError(
            f"the model reads {', '.join(names)}, and the input_names of its task.json lack "
            f"{', '.join(absent)}; export the model again"
        )
    return {name: batch[name] for name in names}


def _onnx_faults(content: mmap.mmap, named: Collection[str]) -> Iterator[str]:
    parts = [(MODEL, 0, len(content))]
    while parts:
        message, begin, end = parts.pop()
        if message == ENTRY:
            texts = {n: content[first:last] for n, first, last in _fields(content, begin, end)}
            name = texts.get(2, b"").decode("utf-8", "replace")
            if texts.get(1) == b"location" and name not in named:
                yield f"reads weights from {name!r}, a file that deploy.json does not name"
            continue
        for number, first, last in _fields(content, begin, end):
            if (message, number) in REFUSED:
                yield REFUSED[message, number]
            elif (message, number) in PARTS:
                parts.append((PARTS[message, number], first, last))


def _fields(content: mmap.mmap, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, begin, end) of the length-delimited fields; fields with numbers are skipped."""
    while begin < end:
        key, begin = _varint(content, begin)
        kind = key & 7
        if kind == LENGTH:
            length, begin = _varint(content, begin)
            if begin + length > end:
                raise ValueError(f"a field of {length} bytes in {end - begin}")
            yield key >> 3, begin, begin + length
            begin += length
        elif kind == VARINT:
            _, begin = _varint(content, begin)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            begin += 8 if kind == EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field of type {kind}")


def _varint(content: mmap.mmap, begin: int) -> tuple[int, int]:
    """Decode a varint: seven bits per byte, lowest first; the last byte is below 128."""
    value = 0
    for place in range(10):
        byte = content[begin + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, begin + place + 1
    raise ValueError("a number of more than 10 bytes")
