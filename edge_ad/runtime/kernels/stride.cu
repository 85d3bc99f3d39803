// Score stride: edge_ad.runtime.stride. Some valid pixels are scored, the others take a mean of those around them.
#include "points_common.cuh"

// The square lattice of every stride-th row and column. low, share : (size,) of one axis, the lower of the two lattice
// positions around a pixel and the share of the upper one (edge_ad.runtime.kernels.launch.lattice_axis).
struct Lattice {
  const int* low;
  const float* share;
  int size, offset, stride, across;
};

__device__ __forceinline__ bool on_lattice(const Lattice& l, int row, int column) {
  return row >= l.offset && column >= l.offset && (row - l.offset) % l.stride == 0 && (column - l.offset) % l.stride == 0;
}

// Bilinear sum over the lattice pixels around (row, column) that are valid, first down, then across, as the sparse
// matrices do it; of their values, or (values null) of ones. place : (size, size) row of a pixel's value.
__device__ __forceinline__ float around(const Lattice& l, const unsigned char* valid, const int* place, const float* values,
                                        int row, int column) {
  float sides[2];
  for (int u = 0; u < 2; ++u) {
    const int x = l.offset + l.stride * min(l.low[column] + u, l.across - 1);
    float ends[2];
    for (int v = 0; v < 2; ++v) {
      const int pixel = (l.offset + l.stride * min(l.low[row] + v, l.across - 1)) * l.size + x;
      ends[v] = !valid[pixel] ? 0.0f : values ? values[place[pixel]] : 1.0f;
    }
    sides[u] = __fadd_rn(__fmul_rn(__fsub_rn(1.0f, l.share[row]), ends[0]), __fmul_rn(l.share[row], ends[1]));
  }
  return __fadd_rn(__fmul_rn(__fsub_rn(1.0f, l.share[column]), sides[0]), __fmul_rn(l.share[column], sides[1]));
}

// valid : (size, size). scored : (size, size), written: valid pixels on the lattice, and those with none of it around them.
// Grid: ceil(size * size / 256) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
stride_mark(const unsigned char* __restrict__ valid, const int* __restrict__ low, const float* __restrict__ share, int size,
            int offset, int stride, int across, unsigned char* __restrict__ scored) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= size * size) return;
  const Lattice l = {low, share, size, offset, stride, across};
  const int row = pixel / size, column = pixel % size;
  scored[pixel] =
      valid[pixel] && (on_lattice(l, row, column) || !(around(l, valid, nullptr, nullptr, row, column) > 0.0f));
}

// The near centres of the scored pixels. pixel : (*count,) of them. rank : (size, size), a pixel's row in `near` and
// `weight` (n, 3). some_near, some_weight : (*count, 3), written. Grid: ceil(size * size / 256) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
stride_gather(const int* __restrict__ pixel, const int* __restrict__ count, const int* __restrict__ rank,
              const int* __restrict__ near, const float* __restrict__ weight, int* __restrict__ some_near,
              float* __restrict__ some_weight) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= *count) return;
  const int from = rank[pixel[i]];
  for (int k = 0; k < 3; ++k) some_near[3 * i + k] = near[3 * from + k], some_weight[3 * i + k] = weight[3 * from + k];
}

// values : of the scored pixels. place : (size, size), a pixel's row in `values`, -1 where it was not scored. pixel :
// (*count,) of the valid ones. out : (*count,), written. Grid as above.
extern "C" __global__ void __launch_bounds__(256)
stride_spread(const float* __restrict__ values, const int* __restrict__ place, const unsigned char* __restrict__ valid,
              const int* __restrict__ pixel, const int* __restrict__ count, const int* __restrict__ low,
              const float* __restrict__ share, int size, int offset, int stride, int across, float* __restrict__ out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= *count) return;
  const int at = pixel[i];
  if (place[at] >= 0) {
    out[i] = values[place[at]];
    return;
  }
  const Lattice l = {low, share, size, offset, stride, across};
  const int row = at / size, column = at % size;
  out[i] = __fdiv_rn(around(l, valid, place, values, row, column), around(l, valid, nullptr, nullptr, row, column));
}
