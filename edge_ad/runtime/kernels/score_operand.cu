// Interpolated rows of a token table: the left operand of the matrix products that stay per pixel, or (activate = 0) the
// whole rows that the score plan takes.
//
// Interpolation and GELU of one column block in one pass, written once, padded with zeros to `stride` columns so that the
// product has no tail. One warp a pixel; row i of `out` is pixel first + i. `overflow` counts rows that left FP16's range.
#include "score_common.cuh"

template <int COUNT, typename T>
__device__ __forceinline__ void operand(const T* __restrict__ table, const Taps<COUNT>& taps, int column, int hidden,
                                        int activate, T* __restrict__ out, long long start, int stride,
                                        int* __restrict__ overflow) {
  bool outside = false;
  for (int c = threadIdx.x & 31; c < stride; c += 32) {
    float value = 0.0f;
    if (c < hidden) {
      value = interpolate(table, taps, column + c);
      if (activate) value = gelu(value);
    }
    outside |= store(out, start + c, value);
  }
  if (outside) atomicAdd(overflow, 1);
}

// The score plan computes every row of its chunk, so those beyond the last pixel must be numbers; the products skip them.
template <typename T>
__device__ __forceinline__ void blank(int activate, T* __restrict__ out, long long start, int stride) {
  if (activate) return;
  for (int c = threadIdx.x & 31; c < stride; c += 32) store(out, start + c, 0.0f);
}

__device__ __forceinline__ int warp_of_grid() {
  return static_cast<int>(blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5));
}

extern "C" __global__ void __launch_bounds__(128)
score_operand_rgb_f32(const float* __restrict__ table, int width, int column, int hidden, int activate,
                      const int* __restrict__ pixel, const int* __restrict__ low, const float* __restrict__ share, int size,
                      int grid, const int* __restrict__ total, int first, int count, float* __restrict__ out, int stride, int* __restrict__ overflow) {
  const int i = warp_of_grid();
  if (i >= count) return;
  if (first + i >= *total) return blank(activate, out, static_cast<long long>(i) * stride, stride);
  const Taps<4> taps = bilinear_taps(pixel[first + i], low, share, size, grid, width);
  operand(table, taps, column, hidden, activate, out, static_cast<long long>(i) * stride, stride, overflow);
}

extern "C" __global__ void __launch_bounds__(128)
score_operand_points_f32(const float* __restrict__ table, int width, int column, int hidden, int activate,
                         const int* __restrict__ neighbour, const float* __restrict__ weight, const int* __restrict__ total, int first, int count,
                         float* __restrict__ out, int stride, int* __restrict__ overflow) {
  const int i = warp_of_grid();
  if (i >= count) return;
  if (first + i >= *total) return blank(activate, out, static_cast<long long>(i) * stride, stride);
  const Taps<3> taps = nearest_taps(first + i, neighbour, weight, width);
  operand(table, taps, column, hidden, activate, out, static_cast<long long>(i) * stride, stride, overflow);
}

extern "C" __global__ void __launch_bounds__(128)
score_operand_rgb_f16(const half_bits* __restrict__ table, int width, int column, int hidden, int activate,
                      const int* __restrict__ pixel, const int* __restrict__ low, const float* __restrict__ share, int size,
                      int grid, const int* __restrict__ total, int first, int count, half_bits* __restrict__ out, int stride, int* __restrict__ overflow) {
  const int i = warp_of_grid();
  if (i >= count) return;
  if (first + i >= *total) return blank(activate, out, static_cast<long long>(i) * stride, stride);
  const Taps<4> taps = bilinear_taps(pixel[first + i], low, share, size, grid, width);
  operand(table, taps, column, hidden, activate, out, static_cast<long long>(i) * stride, stride, overflow);
}

extern "C" __global__ void __launch_bounds__(128)
score_operand_points_f16(const half_bits* __restrict__ table, int width, int column, int hidden, int activate,
                         const int* __restrict__ neighbour, const float* __restrict__ weight, const int* __restrict__ total, int first, int count,
                         half_bits* __restrict__ out, int stride, int* __restrict__ overflow) {
  const int i = warp_of_grid();
  if (i >= count) return;
  if (first + i >= *total) return blank(activate, out, static_cast<long long>(i) * stride, stride);
  const Taps<3> taps = nearest_taps(first + i, neighbour, weight, width);
  operand(table, taps, column, hidden, activate, out, static_cast<long long>(i) * stride, stride, overflow);
}
