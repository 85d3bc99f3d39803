// Interpolated rows of a token table: the left operand of the matrix products that stay per pixel, or (activate = 0) the
// whole rows that the score plan takes.
//
// table, out : bytes of `half` storage. Interpolation and GELU of one column block in one pass, written once, padded with zeros to `stride` columns so that the
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
__device__ __forceinline__ void blank(unsigned char* __restrict__ out, int half, long long start, int stride) {
  for (int c = threadIdx.x & 31; c < stride; c += 32) {
    if (half) store(as<half_bits>(out), start + c, 0.0f);
    else store(as<float>(out), start + c, 0.0f);
  }
}

template <int COUNT>
__device__ __forceinline__ void row(const unsigned char* __restrict__ table, int half, const Taps<COUNT>& taps, int column,
                                    int hidden, int activate, unsigned char* __restrict__ out, long long start, int stride,
                                    int* __restrict__ overflow) {
  if (half) operand(as<half_bits>(table), taps, column, hidden, activate, as<half_bits>(out), start, stride, overflow);
  else operand(as<float>(table), taps, column, hidden, activate, as<float>(out), start, stride, overflow);
}

__device__ __forceinline__ int warp_of_grid() {
  return static_cast<int>(blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5));
}

extern "C" __global__ void __launch_bounds__(128)
score_operand_rgb(const unsigned char* __restrict__ table, int half, int width, int column, int hidden, int activate,
                  const int* __restrict__ pixel, const int* __restrict__ low, const float* __restrict__ share, int size,
                  int grid, const int* __restrict__ total, int first, int count, unsigned char* __restrict__ out,
                  int stride, int* __restrict__ overflow) {
  const int i = warp_of_grid();
  if (i >= count) return;
  const long long start = static_cast<long long>(i) * stride;
  if (first + i < *total)
    row(table, half, bilinear_taps(pixel[first + i], low, share, size, grid, width), column, hidden, activate, out, start,
        stride, overflow);
  else if (!activate)
    blank(out, half, start, stride);
}

extern "C" __global__ void __launch_bounds__(128)
score_operand_points(const unsigned char* __restrict__ table, int half, int width, int column, int hidden, int activate,
                     const int* __restrict__ neighbour, const float* __restrict__ weight, const int* __restrict__ total,
                     int first, int count, unsigned char* __restrict__ out, int stride, int* __restrict__ overflow) {
  const int i = warp_of_grid();
  if (i >= count) return;
  const long long start = static_cast<long long>(i) * stride;
  if (first + i < *total)
    row(table, half, nearest_taps(first + i, neighbour, weight, width), column, hidden, activate, out, start, stride,
        overflow);
  else if (!activate)
    blank(out, half, start, stride);
}
