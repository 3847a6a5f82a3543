"""Source of ``mmcv._ext`` where mmcv has no compiled one; see ``mmcv_ops``.

Names, arguments and the habit of writing into given tensors are those of mmcv's extension. Half precision is computed
in float32, as torchvision's kernels lack it on some devices.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny


def __getattr__(name: str) -> Callable:
    """Provide every other operator, since mmcv asks for all on import; when called, it says what is lacking."""
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args, **kwargs):
        raise NotImplementedError(
            f'mmcv.ops needs the compiled operator `{name}`: this mmcv has none, and sw_mm brings no replacement for '
            "it. Install a compiled mmcv, `pip uninstall mmcv-lite` and `pip install 'mmcv>=2.0.0rc4,<2.2.0' "
            f'--no-build-isolation`, which builds it for torch {torch.__version__} and needs a C++ compiler, and nvcc '
            'for GPUs'
        )

    return missing


def get_compiler_version() -> str:
    return 'not compiled (sw_mm.compat.mmcv_ops)'


def get_compiling_cuda_version() -> str:
    return 'not compiled (sw_mm.compat.mmcv_ops)'


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the boxes (N, 4) that survive, best first; widths and heights are ``x2 - x1 + offset``."""
    boxes = _wide(boxes)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # torchvision compares in float64, where 0.4 is less than an overlap of 2 in 5 in float32. mmcv does not.
    iou_threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., 2017) on the CPU: write (x1, y1, x2, y2, score) rows to ``dets``, return their indices.

    Method 0 drops overlapping boxes, 1 lowers their scores linearly, 2 by a Gaussian. Boxes stay in mmcv's order, which
    shows where scores tie.
    """
    box, score = _wide(boxes.detach()).numpy(), _wide(scores.detach()).numpy().copy()
    areas = (box[:, 2] - box[:, 0] + offset) * (box[:, 3] - box[:, 1] + offset)
    order = np.arange(len(box))
    i = 0
    while i < len(order):
        best = i + score[order[i:]].argmax()
        order[[i, best]] = order[[best, i]]
        top, rest = order[i], order[i + 1 :]
        sides = np.minimum(box[top, 2:], box[rest, 2:]) - np.maximum(box[top, :2], box[rest, :2]) + offset
        inter = sides.clip(min=0).prod(axis=1)
        union = areas[top] + areas[rest] - inter
        iou = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)  # two empty boxes do not overlap
        overlaps = iou >= iou_threshold
        decay = (np.where(overlaps, 0, 1), np.where(overlaps, 1 - iou, 1), np.exp(-(iou**2) / sigma))[method]
        score[rest] *= decay
        # Each box dropped gives its place to the last one that stays.
        alive = ~(score[rest] < min_score)
        count = alive.sum()
        rest[:count][~alive[:count]] = rest[count:][alive[count:]][::-1]
        order = order[: i + 1 + count]
        i += 1
    kept = torch.from_numpy(order)
    dets[: len(kept), :4] = boxes[kept]
    dets[: len(kept), 4] = torch.from_numpy(score[order])
    return kept


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool (N, C, H, W) in the regions (R, 5) to (R, C, aligned_height, aligned_width)."""
    if pool_mode == 0:
        __getattr__("roi_align_forward with pool_mode='max'")()
    input, rois = _wide(input), _wide(rois)
    size = (aligned_height, aligned_width)
    output.copy_(
        torchvision.ops.roi_align(input, rois.to(input.dtype), size, spatial_scale, sampling_ratio, bool(aligned))
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    grad, rois = _wide(grad_output), _wide(rois)
    size = (aligned_height, aligned_width)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad, rois.to(grad.dtype), spatial_scale, *size, *grad_input.shape, sampling_ratio, bool(aligned)
        )
    )


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss (Lin et al., 2017) of logits (N, C) and class indices (N,); index C is the background."""
    p, positive, scale = _focal_terms(input, target, weight, alpha)
    hit = (1 - p).pow(gamma) * p.clamp(min=TINY).log()
    miss = p.pow(gamma) * (1 - p).clamp(min=TINY).log()
    output.copy_(-scale * torch.where(positive, hit, miss))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    p, positive, scale = _focal_terms(input, target, weight, alpha)
    hit = (1 - p).pow(gamma) * (1 - p - gamma * p * p.clamp(min=TINY).log())
    miss = p.pow(gamma) * (gamma * (1 - p) * (1 - p).clamp(min=TINY).log() - p)
    grad_input.copy_(-scale * torch.where(positive, hit, miss))


def _focal_terms(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    p = _wide(input).sigmoid()
    positive = target[:, None] == torch.arange(input.size(1), device=target.device)
    scale = torch.where(positive, alpha, 1 - alpha).to(p.dtype)
    if weight.numel():
        # mmcv's kernel reads the background's weight past the end of the table; here it is 1.
        scale = scale * F.pad(weight, (0, 1), value=1)[target, None]
    return p, positive, scale


def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, *buffers, **geometry) -> None:
    """Deformable convolution (Dai et al., 2017): the modulated one with a mask of ones, and no bias."""
    output.copy_(_deform_conv(input, weight, offset, None, None, _geometry(**geometry)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    *buffers,
    **geometry,
) -> None:
    grads = _deform_conv_grads(grad_output, input, weight, offset, None, None, _geometry(**geometry))
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor, offset: Tensor, grad_output: Tensor, grad_weight: Tensor, *buffers, scale: float, **geometry
) -> None:
    # The gradient of the weight does not depend on the weight.
    grads = _deform_conv_grads(grad_output, input, grad_weight, offset, None, None, _geometry(**geometry))
    grad_weight.add_(grads[1], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    *,
    with_bias: bool,
    **geometry,
) -> None:
    """Modulated deformable convolution (Zhu et al., 2019)."""
    if offset.shape[2:] != output.shape[2:]:  # DyHead does this; mmcv's kernels do not look
        __getattr__('modulated_deform_conv_forward with offsets for another size')()
    bias = bias if with_bias else None
    output.copy_(_deform_conv(input, weight, offset, mask, bias, _modulated_geometry(**geometry)))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    with_bias: bool,
    **geometry,
) -> None:
    bias = bias if with_bias else None
    grads = _deform_conv_grads(grad_output, input, weight, offset, mask, bias, _modulated_geometry(**geometry))
    targets = (grad_input, grad_weight, grad_offset, grad_mask) + ((grad_bias,) if with_bias else ())
    for target, grad in zip(targets, grads, strict=False):
        target.copy_(grad)


def _geometry(kW, kH, dW, dH, padW, padH, dilationW, dilationH, group, deformable_group, im2col_step) -> tuple:  # noqa: N803
    return dH, dW, padH, padW, dilationH, dilationW, group, deformable_group


def _modulated_geometry(
    kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group
) -> tuple:
    return stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group


def _deform_conv(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, geometry: tuple
) -> Tensor:
    tensors = _deform_conv_tensors(input, weight, offset, mask, bias)
    return torch.ops.torchvision.deform_conv2d(*tensors, *geometry, mask is not None)


def _deform_conv_grads(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: tuple,
) -> tuple[Tensor, ...]:
    """Return the gradients of input, weight, offset, mask and bias."""
    tensors = _deform_conv_tensors(input, weight, offset, mask, bias)
    return torch.ops.torchvision._deform_conv2d_backward(_wide(grad), *tensors, *geometry, mask is not None)


def _deform_conv_tensors(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None
) -> list[Tensor]:
    mask = input.new_zeros(input.size(0), 1) if mask is None else mask
    bias = input.new_zeros(weight.size(0)) if bias is None else bias
    return [_wide(x) for x in (input, weight, offset, mask, bias)]


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al., 2021), in the form that mmcv itself uses on the CPU."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_locations: Tensor,
    grad_attention_weights: Tensor,
    im2col_step: int,
) -> None:
    inputs = [x.detach().requires_grad_() for x in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = ms_deform_attn_forward(inputs[0], spatial_shapes, level_start_index, *inputs[1:], im2col_step)
    grads = torch.autograd.grad(output, inputs, grad_output)
    for target, grad in zip((grad_value, grad_sampling_locations, grad_attention_weights), grads, strict=True):
        target.copy_(grad)


def psamask_forward(input: Tensor, output: Tensor, psa_type: int, **sizes: int) -> None:
    """Attention masks of PSANet (Zhao et al., 2018): (N, h_mask * w_mask, H, W) -> (N, H * W, H, W).

    Channel (dy, dx) of pixel (y, x) belongs to the pair with pixel (y + dy - half_h_mask, x + dx - half_w_mask), which
    indexes dim 1 of the output if ``psa_type`` is 0 (collect), and its last two if it is 1 (distribute).
    """
    source, valid = _psa_pairs(input.device, **sizes)
    pairs = input.flatten(2)  # (N, channel, pixel)
    pairs = pairs.gather(1, source.expand(len(pairs), -1, -1)) * valid  # (N, partner, pixel)
    output.copy_((pairs if psa_type == 0 else pairs.mT).reshape(output.shape))


def psamask_backward(grad_output: Tensor, grad_input: Tensor, psa_type: int, **sizes: int) -> None:
    source, valid = _psa_pairs(grad_output.device, **sizes)
    pairs = grad_output.flatten(2)
    pairs = (pairs if psa_type == 0 else pairs.mT) * valid
    grad_input.zero_().flatten(2).scatter_add_(1, source.expand(len(pairs), -1, -1), pairs)


def _psa_pairs(
    device: torch.device,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> tuple[Tensor, Tensor]:
    """Return the channel of each pair of pixels, and whether the mask reaches that far: both (partner, pixel)."""
    y, x = torch.meshgrid(torch.arange(h_feature), torch.arange(w_feature), indexing='ij')
    y, x = y.flatten(), x.flatten()
    dy = y[:, None] - y + half_h_mask
    dx = x[:, None] - x + half_w_mask
    valid = (dy >= 0) & (dy < h_mask) & (dx >= 0) & (dx < w_mask)
    return torch.where(valid, dy * w_mask + dx, 0).to(device), valid.to(device)
