"""What layers do to the axes of their tensors: one rule an operation, named as torch names it.

A rule gets the operation's result and its arguments, and sets the result's ``axes``; ``ends`` are the parameters whose
zeroing makes the result zero.
"""

from collections.abc import Callable

from torch import Tensor

from motivation.pairing.tracing.axes import HEAD_WIDTH, SOFTMAX, Axis, as_one, equate, fix, fresh, regroup, size_of
from motivation.pairing.tracing.views import Axes, axes_of


def broadcast(out: Tensor | tuple, inputs: list[Tensor]) -> None:
    """Broadcast: dimensions aligned from the right are one, size 1 aside."""
    for result in out if isinstance(out, tuple | list) else (out,):
        if not isinstance(result, Tensor):
            continue
        merged: Axes = [[] for _ in result.shape]
        for tensor in inputs:
            axes = axes_of(tensor)
            for number in range(1, min(len(axes), len(merged)) + 1):
                ours, theirs = merged[-number], axes[-number]
                if theirs and result.shape[-number] == tensor.shape[-number]:
                    if ours and ours is not theirs:
                        equate(ours, theirs)
                    else:
                        merged[-number] = theirs
        result.axes = [axes if axes else fresh(size) for axes, size in zip(merged, result.shape, strict=True)]


def _parameters(*tensors: Tensor | None) -> tuple[str, ...]:
    """Names of those tensors that are parameters."""
    return tuple(tensor.parameter for tensor in tensors if hasattr(tensor, "parameter"))


def _cat(out, tensors, dim=0):
    dim %= out.dim()
    tensors = [tensor for tensor in tensors if tensor.numel()]
    merged = [list(axes) for axes in axes_of(tensors[0])]
    for tensor in tensors[1:]:
        for number, axes in enumerate(axes_of(tensor)):
            if number != dim:
                equate(merged[number], axes)
    if len(tensors) > 1:
        merged[dim] = [Axis(out.shape[dim], "sum", [as_one(axes_of(tensor)[dim]) for tensor in tensors])]
    out.axes = merged


def _stack(out, tensors, dim=0):
    merged = list(axes_of(tensors[0]))
    for tensor in tensors[1:]:
        for ours, theirs in zip(merged, axes_of(tensor), strict=True):
            equate(ours, theirs)
    new = fresh(len(tensors))
    fix(new, "counts stacked tensors")
    merged.insert(dim % out.dim(), new)
    out.axes = merged


def _mm(out, left, right):
    rows, inner = axes_of(left)[-2:]
    inner_right, columns = axes_of(right)[-2:]
    equate(inner, inner_right)
    batch = []
    for ours, theirs in zip(axes_of(left)[:-2], axes_of(right)[:-2], strict=True):
        equate(ours, theirs)
        batch.append(ours)
    weight = getattr(right, "parameter", None) or getattr(left, "parameter", None)
    if weight is None:
        fix(inner, HEAD_WIDTH)
    else:
        out.ends = (weight,)
    out.axes = [*batch, rows, columns]


def _addmm(out, bias, left, right, **_):
    _mm(out, left, right)
    if axes_of(bias) and axes_of(bias)[-1]:
        equate(out.axes[-1], axes_of(bias)[-1])
    if hasattr(bias, "parameter") and hasattr(out, "ends"):
        out.ends = (*out.ends, bias.parameter)


def _convolution(out, tensor, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    channels, filters = axes_of(tensor)[1], axes_of(weight)
    for axes in axes_of(tensor)[2:] + filters[2:]:
        fix(axes, "is convolved over")
    [filter_in, filter_out] = filters[:2] if transposed else filters[1::-1]
    if groups > 1:
        channels = regroup([channels], (groups, tensor.shape[1] // groups))
        if not channels[1]:
            for axis in channels[0]:
                axis.root().counts_groups = True
        full, part = (filter_in, filter_out) if transposed else (filter_out, filter_in)
        divided = regroup([full], (groups, size_of(full) // groups))
        equate(channels[0], divided[0])
        if transposed:
            equate(channels[1], divided[1])
            result = divided[0] + part
        else:
            equate(channels[1], part)
            result = full
    else:
        equate(channels, filter_in)
        result = filter_out
    if bias is not None:
        equate(result, axes_of(bias)[0])
    out.axes = [axes_of(tensor)[0], result, *(fresh(size) for size in out.shape[2:])]
    out.ends = _parameters(weight, bias)


def _batch_norm(out, tensor, weight, bias, *statistics):
    channels = axes_of(tensor)[1] if tensor.dim() > 1 else []
    out, *_ = out if isinstance(out, tuple | list) else (out,)
    if any(value is True for value in statistics):  # in training mode: a weight's own statistics are taken
        for axes in axes_of(tensor)[:1] + axes_of(tensor)[2:]:
            fix(axes, "is normalised over")
    for parameter in (weight, bias, *statistics):
        if isinstance(parameter, Tensor) and parameter.dim() == 1:
            equate(channels, axes_of(parameter)[0])
    out.axes = axes_of(tensor)
    out.ends = _parameters(weight, bias)
    if bias is None and hasattr(tensor, "parameter"):
        out.parameter = tensor.parameter  # zero where the parameter is


def _layer_norm(out, tensor, normalized_shape, weight, bias, *_):
    out = out[0]
    for parameter in (weight, bias):
        if parameter is not None:
            for ours, theirs in zip(axes_of(tensor)[-len(normalized_shape):], axes_of(parameter), strict=True):
                equate(ours, theirs)
    out.axes = axes_of(tensor)
    out.ends = _parameters(weight, bias)


def _attention(out, query, key, value, *_, **__):
    out = out[0]
    (batch, heads, _, width), (*_, tokens, _) = axes_of(query), axes_of(key)
    for tensor in (key, value):
        equate(heads, axes_of(tensor)[1])
    equate(width, axes_of(key)[3])
    equate(tokens, axes_of(value)[2])
    fix(width, HEAD_WIDTH)
    fix(tokens, "is summed over by attention")
    out.axes = [batch, heads, axes_of(query)[2], axes_of(value)[3]]


def _softmax(out, tensor, dim, *_):
    fix(axes_of(tensor)[dim], SOFTMAX)
    out.axes = axes_of(tensor)


def _reduce(out, tensor, dim=None, keepdim=False, **_):
    dims = range(tensor.dim()) if dim is None else ([dim] if isinstance(dim, int) else dim)
    dims = {number % tensor.dim() for number in dims} or set(range(tensor.dim()))
    axes = axes_of(tensor)
    for number in dims:
        fix(axes[number], "is averaged or summed over")
    kept = [[] if number in dims else dim_axes for number, dim_axes in enumerate(axes)
            if keepdim or number not in dims]
    for result in out if isinstance(out, tuple | list) else (out,):
        result.axes = kept


def _norm(out, tensor, order=2, dim=None, keepdim=False, **_):
    _reduce(out, tensor, dim, keepdim)


def _pool(out, tensor, *_, **__):
    for result in out if isinstance(out, tuple | list) else (out,):
        axes = axes_of(tensor)
        kept = 2 if tensor.dim() > 3 else tensor.dim() - 2
        for dim in axes[kept:]:
            fix(dim, "is pooled")
        result.axes = [*axes[:kept], *(fresh(size) for size in result.shape[kept:])]


def _embedding(out, weight, indices, *_):
    axes = axes_of(weight)
    fix(axes[0], "is a table that indices point into")
    out.axes = [*(fresh(size) for size in indices.shape), axes[1]]


def _im2col(out, tensor, kernel_size, *_):
    channels = axes_of(tensor)[-3]
    window = fresh(kernel_size[0] * kernel_size[1])
    fix(window, "is a window's")
    out.axes = [*axes_of(tensor)[:-3], channels + window, fresh(out.shape[-1])]


def _col2im(out, tensor, _, kernel_size, *__):
    size = kernel_size[0] * kernel_size[1]
    dims = regroup([axes_of(tensor)[-2]], (tensor.shape[-2] // size, size))
    fix(dims[1], "is a window's")
    out.axes = [*axes_of(tensor)[:-2], dims[0], *(fresh(size) for size in out.shape[-2:])]


def _upsample(out, tensor, *_, **__):
    out.axes = [*axes_of(tensor)[:2], *(fresh(size) for size in out.shape[2:])]


POINTWISE = frozenset((
    "clone", "_to_copy", "detach", "copy", "alias", "lift_fresh", "native_dropout", "contiguous", "bernoulli",
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "masked_fill", "hardswish", "hardsigmoid",
    "hardtanh", "prelu", "_prelu_kernel", "leaky_relu", "elu", "gelu", "silu", "mish", "softplus", "celu",
    "log_sigmoid_forward", "relu6", "threshold"))
BATCH_NORMS = frozenset((
    "native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "cudnn_batch_norm"))
RULES: dict[str, Callable] = {
    "cat": _cat, "stack": _stack, "mm": _mm, "bmm": _mm, "addmm": _addmm, "baddbmm": _addmm,
    "convolution": _convolution, "native_layer_norm": _layer_norm, "embedding": _embedding, "im2col": _im2col,
    "col2im": _col2im, "linalg_vector_norm": _norm, "norm": _norm,
    **dict.fromkeys(BATCH_NORMS, _batch_norm),
    **dict.fromkeys(("_scaled_dot_product_fused_attention_overrideable", "_scaled_dot_product_flash_attention",
                     "_scaled_dot_product_efficient_attention", "_scaled_dot_product_flash_attention_for_cpu"),
                    _attention),
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), _softmax),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "var_mean", "var"), _reduce),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "_adaptive_avg_pool2d", "adaptive_max_pool2d",
                     "max_pool2d_with_indices"), _pool),
    **dict.fromkeys(("upsample_bilinear2d", "upsample_nearest2d", "upsample_bicubic2d", "reflection_pad2d",
                     "replication_pad2d"), _upsample),
}
