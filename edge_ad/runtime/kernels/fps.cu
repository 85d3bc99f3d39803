// Farthest point sampling, exact: the indices of edge_ad.runtime.pointops.farthest_point_sample, ties included.
//
// One block of 32 warps. Warp w owns the buckets b with b % 32 = w, lane l of it bucket 32 l + w: its box, its farthest
// point and that point's distance stay in the lane's registers (its place in shared memory). A new centre touches only the buckets whose box lies
// nearer to it than their farthest point lies to the chosen ones; neighbouring buckets belong to different warps, so the
// few that are touched are worked on side by side. One barrier a sample.
#include "points_common.cuh"

// buckets <= 1024. room : slots a bucket. nearest : one float a slot, by order.cu; overwritten.
// points : (n, 3), of which point 0 is the first centre. chosen : (groups,), centers : (groups, 3), written.
// Without any point all indices are 0 and the centres zero. Grid: 1 block of 1024 threads.
extern "C" __global__ void __launch_bounds__(1024)
farthest_points(const float4* __restrict__ slots, float* __restrict__ nearest, const float4* __restrict__ boxes,
                int buckets, int room, const float* __restrict__ points, const int* __restrict__ count, int groups,
                int* __restrict__ chosen, float* __restrict__ centers) {
  // Two sets, used in turn: a warp may write the next sample's while another still reads this one's.
  __shared__ float warp_d[2][32], warp_x[2][32], warp_y[2][32], warp_z[2][32];
  __shared__ int warp_i[2][32];
  __shared__ float far_x[1024], far_y[1024], far_z[1024];  // a bucket's farthest point
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  if (*count <= 0) {
    for (int j = threadIdx.x; j < groups; j += blockDim.x) {
      chosen[j] = 0;
      centers[3 * j] = centers[3 * j + 1] = centers[3 * j + 2] = 0.0f;
    }
    return;
  }
  const int own = 32 * lane + warp;
  float4 low = make_float4(INFINITE, INFINITE, INFINITE, 0.0f), high = make_float4(-INFINITE, -INFINITE, -INFINITE, 0.0f);
  bool fresh = false;  // a bucket with points that no centre has touched yet
  if (own < buckets) {
    low = boxes[2 * own], high = boxes[2 * own + 1];
    fresh = __float_as_int(low.w) > 0;
  }
  far_x[own] = far_y[own] = far_z[own] = 0.0f;
  __syncwarp();
  float far_d = -1.0f;
  int far_i = NO_INDEX;
  float x = points[0], y = points[1], z = points[2];
  int index = 0;
  for (int j = 0;; ++j) {
    if (threadIdx.x == 0) {
      chosen[j] = index;
      centers[3 * j] = x, centers[3 * j + 1] = y, centers[3 * j + 2] = z;
    }
    if (j + 1 == groups) break;
    unsigned touched = __ballot_sync(FULL_WARP, fresh || box_distance2(low, high, x, y, z) < far_d);
    fresh = false;
    while (touched) {
      const int owner = __ffs(static_cast<int>(touched)) - 1, bucket = 32 * owner + warp;
      touched &= touched - 1;
      const long long base = static_cast<long long>(bucket) * room;
      float d = -2.0f, px = 0.0f, py = 0.0f, pz = 0.0f;
      int i = NO_INDEX;
#pragma unroll 2
      for (int s = lane; s < room; s += 32) {
        const float4 p = slots[base + s];
        const float was = nearest[base + s];
        const float now = fminf(was, distance2(p, x, y, z));
        if (now < was) nearest[base + s] = now;
        const int pi = __float_as_int(p.w);
        if (now > d || (now == d && pi < i)) d = now, i = pi, px = p.x, py = p.y, pz = p.z;
      }
      const int best = farthest_lane(d, i);
      if (lane == best) far_x[bucket] = px, far_y[bucket] = py, far_z[bucket] = pz;
      d = __shfl_sync(FULL_WARP, d, best), i = __shfl_sync(FULL_WARP, i, best);
      if (lane == owner) far_d = d, far_i = i;
    }
    __syncwarp();
    const int set = j & 1, best = farthest_lane(far_d, far_i);
    if (lane == best) {
      warp_d[set][warp] = far_d, warp_i[set][warp] = far_i;
      warp_x[set][warp] = far_x[own], warp_y[set][warp] = far_y[own], warp_z[set][warp] = far_z[own];
    }
    __syncthreads();
    const int winner = farthest_lane(warp_d[set][lane], warp_i[set][lane]);
    index = warp_i[set][winner];
    x = warp_x[set][winner], y = warp_y[set][winner], z = warp_z[set][winner];
  }
}
