// Exact k nearest points of every centre and the groups made of them: edge_ad.runtime.pointops.k_nearest, group_points.
//
// One warp a centre. The buckets nearest to it give k candidates and with them a limit; then every bucket whose box lies
// within the limit is read. Candidates are 64-bit keys, distance bits above the index, so ties go to the lowest index;
// they gather in shared memory, and when it is full they are sorted, k are kept and the limit shrinks. No matrix of
// distances exists.
#include "points_common.cuh"

#define ROOM 256  // candidates a warp holds; k + 32 at least
#define WARPS 8

struct Candidates {
  unsigned long long* keys;
  int held, k, lane;
  unsigned long long limit;  // keys at or above it are of no use
};

// Sorts the candidates (bitonic, padded to a power of two) and keeps the k smallest.
__device__ __forceinline__ void shrink(Candidates& c) {
  int n = 32;
  while (n < c.held) n *= 2;
  for (int i = c.held + c.lane; i < n; i += 32) c.keys[i] = ~0ull;
  __syncwarp();
  for (int size = 2; size <= n; size *= 2) {
    for (int step = size / 2; step; step /= 2) {
      for (int pair = c.lane; pair < n / 2; pair += 32) {
        const int i = 2 * pair - (pair & (step - 1)), j = i + step;
        const unsigned long long a = c.keys[i], b = c.keys[j];
        if ((a > b) == ((i & size) == 0)) c.keys[i] = b, c.keys[j] = a;
      }
      __syncwarp();
    }
  }
  if (c.held >= c.k) {
    c.held = c.k;
    c.limit = c.keys[c.k - 1];
  }
  __syncwarp();
}

__device__ __forceinline__ void take(Candidates& c, const float4* __restrict__ slots, int bucket, int room, float x,
                                     float y, float z) {
  const long long base = static_cast<long long>(bucket) * room;
  for (int s = 0; s < room; s += 32) {
    unsigned long long key = ~0ull;
    if (s + c.lane < room) {
      const float4 p = slots[base + s + c.lane];
      const int index = __float_as_int(p.w);
      if (index >= 0)
        key = static_cast<unsigned long long>(__float_as_uint(distance2(p, x, y, z))) << 32 | static_cast<unsigned>(index);
    }
    const unsigned good = __ballot_sync(FULL_WARP, key < c.limit);
    if (key < c.limit) c.keys[c.held + __popc(good & ((1u << c.lane) - 1u))] = key;
    c.held += __popc(good);
    if (c.held > ROOM - 32) shrink(c);
  }
}

__device__ __forceinline__ unsigned long long bucket_key(const float4* __restrict__ boxes, int bucket, int buckets,
                                                         float x, float y, float z) {
  if (bucket >= buckets) return ~0ull;
  const float4 low = boxes[2 * bucket];
  if (__float_as_int(low.w) <= 0) return ~0ull;
  const float d = box_distance2(low, boxes[2 * bucket + 1], x, y, z);
  return static_cast<unsigned long long>(__float_as_uint(d)) << 32 | static_cast<unsigned>(bucket);
}

// centers : (groups, 3). 1 <= k <= 128. index : (groups, k) nearest first, or null; grouped : (groups, k, 3), each point
// minus its centre, or null. With fewer than k points the nearest one fills up. Grid: ceil(groups / 8) blocks of 256.
extern "C" __global__ void __launch_bounds__(256, 1)
nearest_points(const float4* __restrict__ slots, const float4* __restrict__ boxes, int buckets, int room,
               const float* __restrict__ points, const float* __restrict__ centers, int groups, int k,
               int* __restrict__ index, float* __restrict__ grouped) {
  __shared__ unsigned long long keys[WARPS * ROOM];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int group = blockIdx.x * WARPS + warp;
  if (group >= groups) return;
  const float x = centers[3 * group], y = centers[3 * group + 1], z = centers[3 * group + 2];
  Candidates c = {keys + warp * ROOM, 0, k, lane, ~0ull};
  // Nearest buckets first, until k points have been seen.
  unsigned long long last = 0;
  bool first = true;
  for (int seen = 0; seen < k;) {
    unsigned long long mine = ~0ull;
    for (int b = lane; b < buckets; b += 32) {
      const unsigned long long key = bucket_key(boxes, b, buckets, x, y, z);
      if ((first || key > last) && key < mine) mine = key;
    }
    const unsigned long long next = smallest_key(mine);
    if (next == ~0ull) break;
    const int bucket = static_cast<int>(next & 0xffffffffu);
    take(c, slots, bucket, room, x, y, z);
    seen += __float_as_int(boxes[2 * bucket].w);
    last = next, first = false;
  }
  shrink(c);
  // Then all that may hold a nearer point. A box at the limit's own distance may hold one of a lower index.
  for (int b = 0; b < buckets; b += 32) {
    const unsigned long long key = bucket_key(boxes, b + lane, buckets, x, y, z);
    unsigned wanted = __ballot_sync(FULL_WARP, key != ~0ull && key > last && key >> 32 <= c.limit >> 32);
    while (wanted) {
      const int l = __ffs(static_cast<int>(wanted)) - 1;
      wanted &= wanted - 1;
      if (__shfl_sync(FULL_WARP, key, l) >> 32 <= c.limit >> 32) take(c, slots, b + l, room, x, y, z);
    }
  }
  shrink(c);
  for (int j = lane; j < k; j += 32) {
    const unsigned long long key = c.held ? c.keys[j < c.held ? j : 0] : ~0ull;
    const int i = key == ~0ull ? 0 : static_cast<int>(key & 0xffffffffu);
    const long long at = static_cast<long long>(group) * k + j;
    if (index) index[at] = i;
    if (grouped) {
      grouped[3 * at] = __fsub_rn(points[3 * i], x);
      grouped[3 * at + 1] = __fsub_rn(points[3 * i + 1], y);
      grouped[3 * at + 2] = __fsub_rn(points[3 * i + 2], z);
    }
  }
}
