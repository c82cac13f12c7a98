"""The loops of `kernels` on a GPU, by CuPy where it is installed.

One block of threads has one row that is written, and goes through the pairs of that row in their
order: no two threads ever add to the same number, so sums come out the same every time. They are
compiled for single precision; torch does the rest.

Source: refinement.md sections 9.3 and 9.4.
"""

import importlib
from functools import cache
from typing import Any

import torch
from torch import Tensor

THREADS = 128

SOURCE = r"""
extern "C" {

__global__ void multiply(const float2* y, const float* e, const float2* slices,
                         const long long* particle, const long long* row,
                         float* real, float* imaginary, float* power, long long q)
{
    __shared__ float part[128];
    long long pair = blockIdx.x;
    const float2* x = y + particle[pair] * q;
    const float* f = e + particle[pair] * q;
    const float2* v = slices + row[pair] * q;
    float total = 0.0f;
    for (long long j = threadIdx.x; j < q; j += blockDim.x) {
        float2 a = x[j], b = v[j];
        real[pair * q + j] = a.x * b.x + a.y * b.y;
        imaginary[pair * q + j] = a.x * b.y - a.y * b.x;
        total += f[j] * (b.x * b.x + b.y * b.y);
    }
    part[threadIdx.x] = total;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) power[pair] = part[0];
}

__global__ void insert(const float2* plain, const float* weight, const float* real,
                       const float* imaginary, const float* amount, const long long* particle,
                       const long long* order, const long long* ends, const long long* rows,
                       float2* data, float* sums, long long q)
{
    long long first = blockIdx.x == 0 ? 0 : ends[blockIdx.x - 1], end = ends[blockIdx.x];
    long long out = rows[blockIdx.x] * q;
    for (long long j = threadIdx.x; j < q; j += blockDim.x) {
        float2 total = data[out + j];
        float sum = sums[out + j];
        for (long long n = first; n < end; n++) {
            long long pair = order[n], from = particle[pair] * q + j;
            float2 x = plain[from];
            float re = real[pair * q + j], im = imaginary[pair * q + j];
            total.x += x.x * re - x.y * im;
            total.y += x.x * im + x.y * re;
            sum += amount[pair] * weight[from];
        }
        data[out + j] = total;
        sums[out + j] = sum;
    }
}

__global__ void compare(const float2* masked, const float2* slices, const float* counts,
                        const float* real, const float* imaginary, const float* amount,
                        const long long* klass, const long long* row, const long long* ends,
                        const long long* particles, float* sums, long long q)
{
    long long first = blockIdx.x == 0 ? 0 : ends[blockIdx.x - 1], end = ends[blockIdx.x];
    const float2* image = masked + particles[blockIdx.x] * q;
    float* out = sums + particles[blockIdx.x] * 4 * q;
    for (long long j = threadIdx.x; j < q; j += blockDim.x) {
        float2 x = image[j];
        float overlap = 0.0f, square = 0.0f, overlap_counted = 0.0f, square_counted = 0.0f;
        for (long long pair = first; pair < end; pair++) {
            float2 v = slices[row[pair] * q + j];
            float re = real[pair * q + j], im = imaginary[pair * q + j];
            float c = counts[klass[pair] * q + j];
            float common = v.x * (x.x * re - x.y * im) + v.y * (x.x * im + x.y * re);
            float own = amount[pair] * (v.x * v.x + v.y * v.y);
            overlap += common;
            square += own;
            overlap_counted += common * c;
            square_counted += own * c;
        }
        out[j] += overlap;
        out[q + j] += square;
        out[2 * q + j] += overlap_counted;
        out[3 * q + j] += square_counted;
    }
}

}
"""


@cache
def _cupy() -> Any:
    """Return CuPy, None where it is not installed."""
    try:
        return importlib.import_module("cupy")
    except ImportError:
        return None


@cache
def _compiled(name: str) -> Any:
    return _cupy().RawKernel(SOURCE, name)


def usable(like: Tensor) -> bool:
    """Tell whether tensors like this one can be given to these kernels."""
    is_single = like.dtype in (torch.float32, torch.complex64)
    return like.device.type == "cuda" and is_single and _cupy() is not None


def multiply(*tensors: Tensor) -> None:
    """Do as `kernels.multiply`."""
    y, particle = tensors[0], tensors[3]
    _launch("multiply", len(particle), tensors, y.shape[1])


def insert(
    plain: Tensor, weight: Tensor, turned: Any, row: Tensor, data_sums: Tensor, weight_sums: Tensor
) -> None:
    """Do as `kernels.insert`."""
    order = torch.argsort(row, stable=True)
    rows, counts = torch.unique_consecutive(row[order], return_counts=True)
    parts = (turned.real, turned.imaginary, turned.amount, turned.particle)
    segments = (order, torch.cumsum(counts, 0), rows)
    tensors = (plain, weight, *parts, *segments, data_sums, weight_sums)
    _launch("insert", len(rows), tensors, plain.shape[1])


def compare(
    masked: Tensor,
    slices: Tensor,
    counts: Tensor,
    turned: Any,
    klass: Tensor,
    row: Tensor,
    sums: Tensor,
) -> None:
    """Do as `kernels.compare`; pairs ascend by particle."""
    particles, members = torch.unique_consecutive(turned.particle, return_counts=True)
    parts = (turned.real, turned.imaginary, turned.amount, klass, row)
    tensors = (masked, slices, counts, *parts, torch.cumsum(members, 0), particles, sums)
    _launch("compare", len(particles), tensors, masked.shape[1])


def _launch(name: str, blocks: int, tensors: tuple[Tensor, ...], q: int) -> None:
    if blocks == 0:
        return
    device = tensors[0].device
    if not all(one.is_contiguous() and one.device == device for one in tensors):
        raise ValueError(f"{name}: all arrays have to be contiguous, and on one device")
    cupy = _cupy()
    stream = torch.cuda.current_stream(device).cuda_stream
    with cupy.cuda.Device(device.index or 0), cupy.cuda.ExternalStream(stream):
        pointers = [one.data_ptr() for one in tensors]
        _compiled(name)((blocks,), (THREADS,), (*pointers, q))
