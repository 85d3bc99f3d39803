// Map and mask back onto the camera's own grid: edge_ad.runtime.maps.map_to_camera, mask_to_camera.
#include "points_common.cuh"

__device__ __forceinline__ void linear(int i, int side, int size, int& low, int& high, float& share) {
  const float at = static_cast<float>((i + 0.5) * (static_cast<double>(size) / side) - 0.5);
  const int below = static_cast<int>(floorf(at));
  share = at - static_cast<float>(below);
  low = below, high = below + 1;
  if (below < 0) low = 0, high = min(1, size - 1), share = 0.0f;
  if (below >= size - 1) low = high = size - 1, share = 0.0f;
}

// Any sample pixel of a row (or column) range that falls on camera pixel i, where several share it (side < size).
__device__ __forceinline__ int first_sample(int i, int side, int size) {
  // least r >= 0 with (2 r + 1) side >= 2 i size
  const long long need = 2ll * i * size - side;
  return need <= 0 ? 0 : static_cast<int>((need + 2ll * side - 1) / (2ll * side));
}

// map, mask : (size, size). Window (y0, x0), side as SampleTransform. out_map, out_mask : (height, width), joined into by
// maximum and by or (0 before the first sample of a frame); either pair may be null.
// Grid: ceil(height * width / 256) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
to_camera(const float* __restrict__ map, const unsigned char* __restrict__ mask, int size, int y0, int x0, int side,
          int height, int width, float* __restrict__ out_map, unsigned char* __restrict__ out_mask) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= height * width) return;
  const int row = pixel / width - y0, column = pixel % width - x0;
  if (row < 0 || row >= side || column < 0 || column >= side) return;
  if (map) {
    int r0, r1, c0, c1;
    float fy, fx;
    linear(row, side, size, r0, r1, fy);
    linear(column, side, size, c0, c1, fx);
    const float upper = map[r0 * size + c0] * (1.0f - fx) + map[r0 * size + c1] * fx;
    const float lower = map[r1 * size + c0] * (1.0f - fx) + map[r1 * size + c1] * fx;
    out_map[pixel] = fmaxf(out_map[pixel], upper * (1.0f - fy) + lower * fy);
  }
  if (!mask || out_mask[pixel]) return;
  const int r = min(static_cast<int>((2ll * row + 1) * size / (2ll * side)), size - 1);
  const int c = min(static_cast<int>((2ll * column + 1) * size / (2ll * side)), size - 1);
  bool on = mask[r * size + c];
  if (side < size) {
    const int r_end = min(first_sample(row + 1, side, size), size), c_end = min(first_sample(column + 1, side, size), size);
    for (int v = first_sample(row, side, size); v < r_end && !on; ++v)
      for (int u = first_sample(column, side, size); u < c_end && !on; ++u) on = mask[v * size + u];
  }
  if (on) out_mask[pixel] = 1;
}
