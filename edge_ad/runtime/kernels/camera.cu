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

// Whether the mask marks a camera pixel of the window: the sample pixel that it lies in, or any that falls on it.
__device__ __forceinline__ bool marked(const unsigned char* mask, int row, int column, int side, int size) {
  const int r = min(static_cast<int>((2ll * row + 1) * size / (2ll * side)), size - 1);
  const int c = min(static_cast<int>((2ll * column + 1) * size / (2ll * side)), size - 1);
  if (mask[r * size + c]) return true;
  if (side >= size) return false;
  const int r_end = min(first_sample(row + 1, side, size), size), c_end = min(first_sample(column + 1, side, size), size);
  for (int v = first_sample(row, side, size); v < r_end; ++v)
    for (int u = first_sample(column, side, size); u < c_end; ++u)
      if (mask[v * size + u]) return true;
  return false;
}

// map, mask, lost : (size, size) of a part. verdict : by part_verdict; a part that cannot be judged is left out. Window
// (y0, x0), side as SampleTransform. out_map, out_mask, out_lost : (height, width), joined into by maximum and by or (0
// before the first part of a frame). Grid: ceil(height * width / 256) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
to_camera(const float* __restrict__ map, const unsigned char* __restrict__ mask, const unsigned char* __restrict__ lost,
          const int* __restrict__ verdict, int size, int y0, int x0, int side, int height, int width,
          float* __restrict__ out_map, unsigned char* __restrict__ out_mask, unsigned char* __restrict__ out_lost) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= height * width || !verdict[0]) return;
  const int row = pixel / width - y0, column = pixel % width - x0;
  if (row < 0 || row >= side || column < 0 || column >= side) return;
  int r0, r1, c0, c1;
  float fy, fx;
  linear(row, side, size, r0, r1, fy);
  linear(column, side, size, c0, c1, fx);
  const float upper = map[r0 * size + c0] * (1.0f - fx) + map[r0 * size + c1] * fx;
  const float lower = map[r1 * size + c0] * (1.0f - fx) + map[r1 * size + c1] * fx;
  out_map[pixel] = fmaxf(out_map[pixel], upper * (1.0f - fy) + lower * fy);
  if (marked(mask, row, column, side, size)) out_mask[pixel] = 1;
  if (marked(lost, row, column, side, size)) out_lost[pixel] = 1;
}
