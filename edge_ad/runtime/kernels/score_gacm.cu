// Psi_3d (METHOD.md eq. 1-4, 13): distance between a pixel's point feature and what GACM makes of its colour feature.
//
// One warp a pixel. Bilinear rows of the colour table give F_sem, F_geo, R x and W_g F_geo (their linear layers ran on the
// tokens); then gate, LayerNorm, GELU, residual; three-nearest rows of the point table give the measured feature; and the
// norm of the difference of the two unit vectors. No row of either table leaves the chip.
//
// Pixels first .. first + count of the *total valid ones (METHOD.md: only these are scored): the number stays on the device,
// so that launches do not depend on the frame. Shared memory: 2 * dim floats a warp.
#include "score_common.cuh"

template <typename T>
__device__ __forceinline__ void gacm(const T* __restrict__ rgb_table, int rgb_width, const T* __restrict__ point_table,
                                     int point_width, const int* __restrict__ pixel, const int* __restrict__ low,
                                     const float* __restrict__ share, int size, int grid,
                                     const int* __restrict__ neighbour, const float* __restrict__ weight, int dim_rgb,
                                     int dim, const float* __restrict__ gamma, const float* __restrict__ beta,
                                     float epsilon, const int* __restrict__ total, int first, int count,
                                     float* __restrict__ distance,
                                     float* shared) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int i = blockIdx.x * (blockDim.x >> 5) + warp;
  if (i >= count || first + i >= *total) return;  // whole warps leave: i is the same in all lanes
  float* fused = shared + static_cast<long long>(warp) * 2 * dim;
  float* measured = fused + dim;
  const Taps<4> colour = bilinear_taps(pixel[first + i], low, share, size, grid, rgb_width);
  const Taps<3> near = nearest_taps(first + i, neighbour, weight, point_width);
  const int sem = dim_rgb, geo = sem + dim, residual = geo + dim, gate = residual + dim;

  float sum = 0.0f;
  for (int c = lane; c < dim; c += 32) {
    const float g = sigmoid(interpolate(rgb_table, colour, gate + c));
    const float value = interpolate(rgb_table, colour, geo + c) * g + interpolate(rgb_table, colour, sem + c) * (1.0f - g);
    fused[c] = value;
    sum += value;
  }
  const float mean = warp_sum(sum) / static_cast<float>(dim);
  float squares = 0.0f;  // two passes: E[x^2] - E[x]^2 would cancel
  for (int c = lane; c < dim; c += 32) {
    const float d = fused[c] - mean;
    squares += d * d;
  }
  const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(dim) + epsilon);
  float norm_mapped = 0.0f, norm_measured = 0.0f;
  for (int c = lane; c < dim; c += 32) {
    const float mapped = interpolate(rgb_table, colour, residual + c) + gelu((fused[c] - mean) * scale * gamma[c] + beta[c]);
    const float feature = interpolate(point_table, near, c);
    fused[c] = mapped;
    measured[c] = feature;
    norm_mapped += mapped * mapped;
    norm_measured += feature * feature;
  }
  const float unit_mapped = inverse_norm(warp_sum(norm_mapped)), unit_measured = inverse_norm(warp_sum(norm_measured));
  float squared = 0.0f;
  for (int c = lane; c < dim; c += 32) {
    const float d = measured[c] * unit_measured - fused[c] * unit_mapped;
    squared += d * d;
  }
  squared = warp_sum(squared);
  if (lane == 0) distance[first + i] = sqrtf(squared);
}

extern "C" __global__ void __launch_bounds__(128)
score_gacm(const unsigned char* __restrict__ rgb_table, int rgb_width, const unsigned char* __restrict__ point_table,
           int point_width, int half, const int* __restrict__ pixel, const int* __restrict__ low,
           const float* __restrict__ share, int size, int grid, const int* __restrict__ neighbour,
           const float* __restrict__ weight, int dim_rgb, int dim, const float* __restrict__ gamma,
           const float* __restrict__ beta, float epsilon, const int* __restrict__ total, int first, int count,
           float* __restrict__ distance) {
  DYNAMIC_SHARED(float, shared);
  if (half)
    gacm(as<half_bits>(rgb_table), rgb_width, as<half_bits>(point_table), point_width, pixel, low, share, size, grid,
         neighbour, weight, dim_rgb, dim, gamma, beta, epsilon, total, first, count, distance, shared);
  else
    gacm(as<float>(rgb_table), rgb_width, as<float>(point_table), point_width, pixel, low, share, size, grid, neighbour,
         weight, dim_rgb, dim, gamma, beta, epsilon, total, first, count, distance, shared);
}
