// What the scoring kernels share: storage in 16 or 32 bits, activations, sums over a warp, interpolation.
//
// Arithmetic is float32 everywhere. FP16 is a storage format only: values are widened when read and rounded to nearest
// even when written. The conversions are PTX instructions and not <cuda_fp16.h>, so that NVRTC needs no header on a board
// without a toolkit.
#pragma once

typedef unsigned short half_bits;

#define FULL_WARP 0xffffffffu

#ifndef DYNAMIC_SHARED  // the block emulator brings its own
#define DYNAMIC_SHARED(T, name) extern __shared__ T name[]
#endif

#ifdef EDGE_AD_EMULATED
__device__ inline float half_to_float(half_bits h) {
  const unsigned sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 1023u;
  unsigned bits;
  if (exponent == 31u) {
    bits = sign | 0x7f800000u | (mantissa << 13);
  } else if (exponent != 0u) {
    bits = sign | ((exponent + 112u) << 23) | (mantissa << 13);
  } else {
    const float tiny = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -tiny : tiny;
  }
  float out;
  __builtin_memcpy(&out, &bits, 4);
  return out;
}
__device__ inline half_bits float_to_half(float value) {
  unsigned bits;
  __builtin_memcpy(&bits, &value, 4);
  const unsigned sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<half_bits>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<half_bits>(sign | 0x7c00u);  // 65520 and above: infinity
  if (magnitude < 0x38800000u) {                                                 // below 2^-14: subnormal
    float shifted;
    __builtin_memcpy(&shifted, &magnitude, 4);
    shifted += 0.5f;  // the unit in the last place of [0.5, 1) is 2^-24, that of FP16's subnormals
    unsigned rounded;
    __builtin_memcpy(&rounded, &shifted, 4);
    return static_cast<half_bits>(sign | (rounded - 0x3f000000u));
  }
  const unsigned odd = (magnitude >> 13) & 1u;
  return static_cast<half_bits>(sign | ((magnitude + 0xfffu + odd - 0x38000000u) >> 13));
}
#else
__device__ __forceinline__ float half_to_float(half_bits h) {
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(h));
  return out;
}
__device__ __forceinline__ half_bits float_to_half(float value) {
  half_bits out;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(value));
  return out;
}
#endif

__device__ __forceinline__ float load(const float* p, long long i) { return p[i]; }
__device__ __forceinline__ float load(const half_bits* p, long long i) { return half_to_float(p[i]); }

// Stores a value; true when it left the range of the storage (the caller counts them: see `overflow`).
__device__ __forceinline__ bool store(float* p, long long i, float value) {
  p[i] = value;
  return false;
}
__device__ __forceinline__ bool store(half_bits* p, long long i, float value) {
  const half_bits bits = float_to_half(value);
  p[i] = bits;
  return (bits & 0x7c00u) == 0x7c00u;
}

// Tables and operands come as bytes with `half`, whether they are stored in FP16 or in float32: one kernel for both.
template <typename T>
__device__ __forceinline__ const T* as(const unsigned char* p) {
  return reinterpret_cast<const T*>(p);
}
template <typename T>
__device__ __forceinline__ T* as(unsigned char* p) {
  return reinterpret_cast<T*>(p);
}

__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ __forceinline__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(FULL_WARP, value, offset);
  return value;
}

// 1 / max(|x|, 1e-12), as the reference normalises.
__device__ __forceinline__ float inverse_norm(float squares) { return 1.0f / fmaxf(sqrtf(squares), 1e-12f); }

// Rows and weights of one pixel's interpolation; COUNT is 4 (bilinear) or 3 (nearest centres).
template <int COUNT>
struct Taps {
  long long row[COUNT];  // offset of the row's first element
  float weight[COUNT];
};

// Bilinear between pixel centres (align_corners = false). low, share: (size,) by the host, one axis serves both.
__device__ __forceinline__ Taps<4> bilinear_taps(int pixel, const int* __restrict__ low, const float* __restrict__ share,
                                                 int size, int grid, int width) {
  const int y = pixel / size, x = pixel - y * size;
  const int y0 = low[y], x0 = low[x];
  const int y1 = min(y0 + 1, grid - 1), x1 = min(x0 + 1, grid - 1);
  const float v = share[y], u = share[x];
  Taps<4> taps;
  taps.row[0] = static_cast<long long>(y0 * grid + x0) * width;
  taps.row[1] = static_cast<long long>(y0 * grid + x1) * width;
  taps.row[2] = static_cast<long long>(y1 * grid + x0) * width;
  taps.row[3] = static_cast<long long>(y1 * grid + x1) * width;
  taps.weight[0] = (1.0f - v) * (1.0f - u);
  taps.weight[1] = (1.0f - v) * u;
  taps.weight[2] = v * (1.0f - u);
  taps.weight[3] = v * u;
  return taps;
}

// Three nearest centres. neighbour, weight: (n, 3).
__device__ __forceinline__ Taps<3> nearest_taps(int i, const int* __restrict__ neighbour, const float* __restrict__ weight,
                                                int width) {
  Taps<3> taps;
  for (int k = 0; k < 3; ++k) {
    taps.row[k] = static_cast<long long>(neighbour[3 * static_cast<long long>(i) + k]) * width;
    taps.weight[k] = weight[3 * static_cast<long long>(i) + k];
  }
  return taps;
}

template <int COUNT, typename T>
__device__ __forceinline__ float interpolate(const T* __restrict__ table, const Taps<COUNT>& taps, int column) {
  float sum = taps.weight[0] * load(table, taps.row[0] + column);
  for (int k = 1; k < COUNT; ++k) sum += taps.weight[k] * load(table, taps.row[k] + column);
  return sum;
}
