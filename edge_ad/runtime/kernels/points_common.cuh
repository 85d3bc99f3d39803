// What the point kernels share: the distance rule of METHOD.md section 2, boxes around buckets of points, reductions.
//
// Points lie in buckets (order.cu): `slots` float4 = (x, y, z, index as bits; -1: no point), a fixed number a bucket, and
// `boxes` float4[2] a bucket = (low corner, number of points as bits), (high corner, 0). Every operation on coordinates is
// rounded on its own. Rounded subtraction, multiplication and addition are monotone, so the distance to a box, computed
// in the same order of operations, is never above the computed distance to a point inside: pruning by it is exact.
#pragma once

#ifndef DYNAMIC_SHARED  // the block emulator brings its own
#define DYNAMIC_SHARED(T, name) extern __shared__ T name[]
#endif
#ifndef FULL_WARP
#define FULL_WARP 0xffffffffu
#endif

#define NO_INDEX 0x7fffffff
#define INFINITE __int_as_float(0x7f800000)

__device__ __forceinline__ float distance2(float dx, float dy, float dz) {
  return __fadd_rn(__fadd_rn(__fmul_rn(dx, dx), __fmul_rn(dy, dy)), __fmul_rn(dz, dz));
}

__device__ __forceinline__ float distance2(const float4& p, float x, float y, float z) {
  return distance2(__fsub_rn(p.x, x), __fsub_rn(p.y, y), __fsub_rn(p.z, z));
}

// Lower bound of distance2 from (x, y, z) to every point of a box; infinite for the box of no point.
__device__ __forceinline__ float box_distance2(const float4& low, const float4& high, float x, float y, float z) {
  const float dx = fmaxf(fmaxf(__fsub_rn(low.x, x), __fsub_rn(x, high.x)), 0.0f);
  const float dy = fmaxf(fmaxf(__fsub_rn(low.y, y), __fsub_rn(y, high.y)), 0.0f);
  const float dz = fmaxf(fmaxf(__fsub_rn(low.z, z), __fsub_rn(z, high.z)), 0.0f);
  return distance2(dx, dy, dz);
}

// Lane that holds the greatest d, among equals the one with the lowest index. All lanes must call. d >= 0, or -1 for none:
// such floats order as their bits do as signed integers.
__device__ __forceinline__ int farthest_lane(float d, int index) {
  const int top = __reduce_max_sync(FULL_WARP, __float_as_int(d));
  const int candidate = __float_as_int(d) == top ? index : NO_INDEX;
  const int lowest = __reduce_min_sync(FULL_WARP, candidate);
  return __ffs(static_cast<int>(__ballot_sync(FULL_WARP, candidate == lowest))) - 1;
}

// Smallest 64-bit key of a warp.
__device__ __forceinline__ unsigned long long smallest_key(unsigned long long key) {
  const unsigned high = static_cast<unsigned>(key >> 32);
  const unsigned top = __reduce_min_sync(FULL_WARP, high);
  const unsigned low = __reduce_min_sync(FULL_WARP, high == top ? static_cast<unsigned>(key) : 0xffffffffu);
  return static_cast<unsigned long long>(top) << 32 | low;
}

// A sum of floats kept in two (Knuth's two-sum): about 48 bits, without float64, of which small GPUs have little.
struct TwoSum {
  float high, low;
};

__device__ __forceinline__ void add(TwoSum& sum, float v) {
  const float total = __fadd_rn(sum.high, v), part = __fsub_rn(total, sum.high);
  sum.low = __fadd_rn(sum.low, __fadd_rn(__fsub_rn(sum.high, __fsub_rn(total, part)), __fsub_rn(v, part)));
  sum.high = total;
}

__device__ __forceinline__ TwoSum warp_sum(TwoSum sum) {
  for (int o = 16; o; o >>= 1) {
    const float high = __shfl_xor_sync(FULL_WARP, sum.high, o), low = __shfl_xor_sync(FULL_WARP, sum.low, o);
    add(sum, high);
    sum.low = __fadd_rn(sum.low, low);
  }
  return sum;
}
