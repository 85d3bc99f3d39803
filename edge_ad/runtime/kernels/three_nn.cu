// The three nearest centres of every point and their weights: edge_ad.runtime.pointops.three_nearest.
//
// Points lie in buckets (order.cu); those of a bucket are compared only with the centres that its box cannot rule out, a
// sixth of all or less.
#include "points_common.cuh"

struct Nearest {
  float d0, d1, d2;
  int i0, i1, i2;
};

// To be called with rising g, so an equal distance never displaces an earlier centre. Distances that overflowed count too.
__device__ __forceinline__ void offer(Nearest& best, float d, int g) {
  if (!(d < best.d2 || best.i2 == NO_INDEX)) return;
  best.d2 = d, best.i2 = g;
  if (!(best.d2 < best.d1 || best.i1 == NO_INDEX)) return;
  const float t = best.d1;
  const int ti = best.i1;
  best.d1 = best.d2, best.i1 = best.i2, best.d2 = t, best.i2 = ti;
  if (!(best.d1 < best.d0 || best.i0 == NO_INDEX)) return;
  const float u = best.d0;
  const int ui = best.i0;
  best.d0 = best.d1, best.i0 = best.i1, best.d1 = u, best.i1 = ui;
}

__device__ __forceinline__ void finish(const Nearest& best, float eps, int point, int* index, float* weight) {
  const float w0 = __fdiv_rn(1.0f, __fadd_rn(best.d0, eps)), w1 = __fdiv_rn(1.0f, __fadd_rn(best.d1, eps)),
              w2 = __fdiv_rn(1.0f, __fadd_rn(best.d2, eps));
  const float sum = __fadd_rn(__fadd_rn(w0, w1), w2);
  index[3 * point] = best.i0, index[3 * point + 1] = best.i1, index[3 * point + 2] = best.i2;
  weight[3 * point] = __fdiv_rn(w0, sum);
  weight[3 * point + 1] = __fdiv_rn(w1, sum);
  weight[3 * point + 2] = __fdiv_rn(w2, sum);
}

// Upper bound of distance2 from (x, y, z) to every point of a box, by the same monotone operations.
__device__ __forceinline__ float box_reach2(const float4& low, const float4& high, float x, float y, float z) {
  return distance2(fmaxf(fabsf(__fsub_rn(low.x, x)), fabsf(__fsub_rn(high.x, x))),
                   fmaxf(fabsf(__fsub_rn(low.y, y)), fabsf(__fsub_rn(high.y, y))),
                   fmaxf(fabsf(__fsub_rn(low.z, z)), fabsf(__fsub_rn(high.z, z))));
}

// Smallest value of a warp, a non-negative float; the first lane that holds it is told so.
__device__ __forceinline__ float least_of_warp(float v, bool& holder) {
  const unsigned least = __reduce_min_sync(FULL_WARP, __float_as_uint(v));
  const unsigned lanes = __ballot_sync(FULL_WARP, __float_as_uint(v) == least);
  holder = (threadIdx.x & 31) == static_cast<unsigned>(__ffs(static_cast<int>(lanes)) - 1);
  return __uint_as_float(least);
}

// slots, boxes : all points in buckets. centers : (groups, 3), groups >= 3. index, weight : (n, 3), rows by the points'
// own indices, nearest first, ties to the lowest index; weights 1 / (d2 + eps) over their sum. Three centres reach a
// whole box within some distance; a centre whose distance to the box is above the least such distance is nobody's third.
// Grid: a warp a bucket, ceil(buckets / 8) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
three_nearest_tiles(const float4* __restrict__ slots, const float4* __restrict__ boxes, int buckets, int room,
                    const float* __restrict__ centers, int groups, float eps, int* __restrict__ index,
                    float* __restrict__ weight) {
  const int lane = threadIdx.x & 31, bucket = (blockIdx.x * blockDim.x + threadIdx.x) >> 5;
  if (bucket >= buckets) return;
  const float4 low = boxes[2 * bucket], high = boxes[2 * bucket + 1];
  if (__float_as_int(low.w) <= 0) return;
  float r0 = INFINITE, r1 = INFINITE, r2 = INFINITE;  // the lane's three smallest reaches
  for (int g = lane; g < groups; g += 32) {
    float r = box_reach2(low, high, centers[3 * g], centers[3 * g + 1], centers[3 * g + 2]);
    const float s0 = fmaxf(r0, r), s1 = fmaxf(r1, s0);
    r0 = fminf(r0, r), r1 = fminf(r1, s0), r2 = fminf(r2, s1);
  }
  float limit = INFINITE;
  for (int k = 0; k < 3; ++k) {
    bool holder;
    limit = least_of_warp(r0, holder);
    if (holder) r0 = r1, r1 = r2, r2 = INFINITE;
  }
  for (int start = 0; start < room; start += 64) {
    const long long base = static_cast<long long>(bucket) * room + start;
    const bool second = start + 32 < room;
    const float4 p = slots[base + lane], q = second ? slots[base + 32 + lane] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const int pi = __float_as_int(p.w), qi = second ? __float_as_int(q.w) : -1;
    if (!__any_sync(FULL_WARP, pi >= 0 || qi >= 0)) continue;
    Nearest a = {INFINITE, INFINITE, INFINITE, NO_INDEX, NO_INDEX, NO_INDEX}, b = a;
    for (int g = 0; g < groups; g += 32) {
      float x = 0.0f, y = 0.0f, z = 0.0f;
      bool near = false;
      if (g + lane < groups) {
        const float* c = centers + 3 * (g + lane);
        x = c[0], y = c[1], z = c[2];
        near = box_distance2(low, high, x, y, z) <= limit;
      }
      unsigned wanted = __ballot_sync(FULL_WARP, near);
      while (wanted) {
        const int l = __ffs(static_cast<int>(wanted)) - 1;
        wanted &= wanted - 1;
        const float cx = __shfl_sync(FULL_WARP, x, l), cy = __shfl_sync(FULL_WARP, y, l),
                    cz = __shfl_sync(FULL_WARP, z, l);
        offer(a, distance2(p, cx, cy, cz), g + l);
        offer(b, distance2(q, cx, cy, cz), g + l);
      }
    }
    if (pi >= 0) finish(a, eps, pi, index, weight);
    if (qi >= 0) finish(b, eps, qi, index, weight);
  }
}
