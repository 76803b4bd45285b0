"""Audits which matrix products of an exported model run in 8 bits on this machine, and why others
do not.

If a runtime does not recognize the position of a quantizer, it silently computes in float. So every
product of the exported graph is looked up in the graph that the runtime executes.

    OpenVINO      the executed node that contains the product: 8-bit inputs or not
    ONNX Runtime  the optimized graph: the operator that the product became
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attar.cores import usable_cores
from attar.export.float_sites import float_sites
from attar.extras import require
from attar.models.deployed.cpu_runtimes import OnnxRuntime, OpenVinoRuntime, the_core
from attar.models.deployed.runtimes import ONNX_FILE, OPENVINO_FILE
from attar.models.simulated.qparams import ModelQParams

ATTENTION_REASON = (
    "a product of two activations inside attention, which are left in float: a zero point would "
    "keep it in float, or integers make it no faster"
)
UNQUANTIZED_REASON = "the model was never quantized"
LEFT_REASON = (
    "its weight, or an activation of this model, was left in float when the model was quantized"
)
FOUR_BIT_REASON = "the runtime's 4-bit kernel multiplies floats by 4-bit weights"
SIMULATED_REASON = "torch computes in float on the integer grid"
LOST_REASON = "not found in the executed graph: the runtime renamed it or fused it away"
UNKNOWN_REASON = "the runtime kept a quantized product in float: its kernel did not take it"

INT8_OPERATORS = frozenset(
    {
        "MatMulIntegerToFloat",
        "QLinearMatMul",
        "MatMulInteger",
        "DynamicQuantizeMatMul",
        "QGemm",
        "QAttention",
    }
)
FOUR_BIT = "f32 × u4"
FOUR_BIT_OPERATOR = "MatMulNBits"
FLOAT_OPERATORS = frozenset(
    {
        "MatMul",
        "FusedMatMul",
        "Gemm",
        "FusedGemm",
        "Attention",
        "MultiHeadAttention",
        FOUR_BIT_OPERATOR,
    }
)


CONTEXT = " (2)"
"""Suffix of the name of an attention's second product, probabilities × values."""
PRODUCTS_IN = {"MatMul": 1, "ScaledDotProductAttention": 2}
"""OpenVINO operation → number of its matrix products: attention has scores and context."""


@dataclass(frozen=True)
class Product:
    """One matrix product and how it is executed."""

    name: str
    """The module's fqn; products of an attention are numbered."""
    is_int8: bool
    kernel: str
    reason: str = ""
    """Why it does not run in 8 bits."""
    precision: str = ""
    """Operand types of the kernel: "u8 × i8", "f32 × f32", "f32 × u4"; empty if unknown."""


@dataclass(frozen=True)
class FusionAudit:
    """`fusion_audit.json`."""

    products: tuple[Product, ...]

    def as_metrics(self) -> dict[str, Any]:
        """The counts and exceptions for the step's metrics."""
        slow = [product for product in self.products if not product.is_int8]
        return {
            "num_matmuls": len(self.products),
            "num_int8": len(self.products) - len(slow),
            "float": [{"name": product.name, "reason": product.reason} for product in slow],
        }

    def unexpected(self) -> tuple[Product, ...]:
        """Quantized products that do not run in an 8-bit kernel."""
        return tuple(product for product in self.products if product.reason == UNKNOWN_REASON)

    def as_json(self) -> dict[str, Any]:
        return {**self.as_metrics(), "products": [asdict(product) for product in self.products]}


def audit_openvino(folder: Path, qparams: ModelQParams | None) -> FusionAudit:
    """Look up every MatMul of `openvino_model.xml` in the graph that OpenVINO executes.

    Args:
        qparams: of the source model; None if it was float.
    """
    file = folder / OPENVINO_FILE
    source = the_core().read_model(file)
    wanted = [
        op.get_friendly_name()
        for op in source.get_ordered_ops()
        for _ in range(PRODUCTS_IN.get(op.get_type_name(), 0))
    ]
    executed = list(_executed_products(OpenVinoRuntime(file, usable_cores()).compiled))
    scores_are_float = qparams is None or "query" in float_sites(qparams, "openvino")
    products: list[Product] = []
    for name, fqn in zip(wanted, _numbered([_module_of(name) for name in wanted]), strict=True):
        node = next((node for node in executed if node.holds(name)), None)
        if node is None:  # renamed when attention was fused into one kernel
            node = next((n for n in executed if _module_of(n.name) == _module_of(name)), None)
        if node is None:
            products.append(Product(fqn, False, "unknown", LOST_REASON))
            continue
        in_attention, is_context = node.layer != "FullyConnected", fqn.endswith(CONTEXT)
        precision = "" if node.layer == "Subgraph" else " × ".join(node.input_types[:2])
        is_int8 = node.is_int8(is_context)
        left = in_attention and (is_context or scores_are_float)
        reason = "" if is_int8 else _reason(fqn, left, precision, qparams)
        kernel = f"{node.layer} {node.primitive}"
        products.append(Product(fqn, is_int8, kernel, reason, precision))
    return FusionAudit(tuple(products))


@dataclass(frozen=True)
class _Executed:
    name: str
    layer: str
    primitive: str
    originals: frozenset[str]
    input_types: tuple[str, ...]

    def holds(self, product: str) -> bool:
        return bool({product, f"{product}_original"} & self.originals)

    def is_int8(self, is_context: bool) -> bool:
        """Whether the product is computed in int8. A fused attention reads queries and keys first,
        and values last."""
        is_attention = self.layer == "Subgraph"
        types = self.input_types[-1:] if is_context and is_attention else self.input_types[:2]
        return all(kind in ("u8", "i8") for kind in types)


def _executed_products(compiled: Any) -> Iterator[_Executed]:
    for op in compiled.get_runtime_model().get_ordered_ops():
        facts = {name: value.astype(str) for name, value in op.get_rt_info().items()}
        if facts.get("layerType") in ("FullyConnected", "MatMul", "Subgraph"):
            yield _Executed(
                op.get_friendly_name(),
                facts["layerType"],
                facts["primitiveType"],
                frozenset(facts["originalLayersNames"].split(",")),
                tuple(port.get_element_type().get_type_name() for port in op.inputs()),
            )


def _module_of(name: str) -> str:
    """Extract the module's fqn from "__module.model.bert.pooler.dense/aten::linear/MatMul"."""
    return name.split("/")[0].removeprefix("__module.model.")


def audit_onnx(folder: Path, qparams: ModelQParams | None) -> FusionAudit:
    """Every product in the graph that ONNX Runtime executes.

    Args:
        qparams: of the model it was made from; None: that was float.
    """
    onnx = require("onnx", "export")
    with tempfile.TemporaryDirectory() as aside:
        optimized = Path(aside) / "optimized.onnx"
        OnnxRuntime(folder / ONNX_FILE, usable_cores(), optimized)
        graph = onnx.load(optimized).graph
    stored = {tensor.name for tensor in graph.initializer}
    nodes = [n for n in graph.node if n.op_type in INT8_OPERATORS | FLOAT_OPERATORS]
    names = _numbered([_onnx_name(node, stored) for node in nodes])
    products: list[Product] = []
    for node, name in zip(nodes, names, strict=True):
        is_int8 = node.op_type in INT8_OPERATORS
        left = not any(name in stored for name in node.input[1:2])
        precision = "u8 × i8" if is_int8 else "f32 × f32"
        if node.op_type == FOUR_BIT_OPERATOR:
            precision = FOUR_BIT
        reason = "" if is_int8 else _reason(name, left, precision, qparams)
        products.append(Product(name, is_int8, node.op_type, reason, precision))
    return FusionAudit(tuple(products))


def audit_simulated(qparams: ModelQParams | None) -> FusionAudit:
    """Every Linear, none of which torch computes in integers."""
    weights = [] if qparams is None else [w.fqn for w in qparams.weights if w.kind == "linear"]
    names = [name.removesuffix(".weight") for name in weights]
    return FusionAudit(
        tuple(Product(n, False, "torch", SIMULATED_REASON, "f32 × f32") for n in names)
    )


def _onnx_name(node: Any, stored: set[str]) -> str:
    """The fqn of the Linear whose integers go in; else the name the product was exported with,
    to which fusions append theirs.
    """
    integers = [name for name in node.input if name in stored and name.endswith(".integers")]
    if integers:
        return integers[0].removeprefix("model.").removesuffix(".integers")
    return node.name.removeprefix("fused ").split("/")[0] or node.op_type


def _reason(fqn: str, left_in_attention: bool, precision: str, qparams: ModelQParams | None) -> str:
    if qparams is None:
        return UNQUANTIZED_REASON
    if precision == FOUR_BIT:
        return FOUR_BIT_REASON
    if left_in_attention:
        return ATTENTION_REASON
    # the sites that a Linear reads are unknown here, so any float site may be the reason
    left = set(qparams.float_tensors)
    is_left = f"{fqn}.weight" in left or any(":" in name for name in left)
    return LEFT_REASON if is_left else UNKNOWN_REASON


def _numbered(names: Sequence[str]) -> list[str]:
    """Make names unique by adding numbers.

    Example:
        >>> _numbered(["a", "b", "a"])
        ['a', 'b', 'a (2)']
    """
    seen: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found
