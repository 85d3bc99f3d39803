// Pad, crop and resize both modalities and normalise the colour, in one pass: edge_ad.runtime.preprocess (_cut).
//
// Colour is Pillow's antialiased bicubic, digit for digit: rows first, rounded to 8 bits, then columns, in Pillow's own
// fixed point (22 bits), whose coefficients the host prepares (edge_ad.runtime.kernels.launch.bicubic_table). A block makes
// a tile of TILE_X x rows pixels; the source rows it needs lie in shared memory after the first pass. Cloud and flags are
// taken at the nearest pixel centre, never interpolated.
#include "points_common.cuh"

#define TILE_X 32
#define PRECISION 22

__device__ __forceinline__ int clip8(int sum) { return min(max(sum >> PRECISION, 0), 255); }

// colour : (height, width, 3) uint8 RGB. xyz : (height, width, 3). flags : (height, width), 1 foreground, 2 lost.
// (y0, x0), side, size : the window, see SampleTransform; beyond the image its border pixels are repeated (colour) or
// nothing is there (cloud). bounds : (size, 2) first source pixel of an output pixel and how many; taps : (size, room)
// their weights. statistics : 6 floats, mean and standard deviation of the channels. rgb : (3, size, size), cloud :
// (size, size, 3), valid, lost : (size, size) bytes, written.
// Block: 32 rows threads; grid: (ceil(size / 32), ceil(size / rows)); shared: 96 bytes a source row of a tile
// (edge_ad.runtime.kernels.launch.preprocess_launch).
extern "C" __global__ void __launch_bounds__(512)
preprocess(const unsigned char* __restrict__ colour, const float* __restrict__ xyz,
           const unsigned char* __restrict__ flags, int height, int width, int y0, int x0, int side, int size,
           const int* __restrict__ bounds, const int* __restrict__ taps, int room,
           const float* __restrict__ statistics, float* __restrict__ rgb, float* __restrict__ cloud,
           unsigned char* __restrict__ valid, unsigned char* __restrict__ lost) {
  DYNAMIC_SHARED(unsigned char, strip);  // (source rows, TILE_X, 3)
  const int lane = threadIdx.x & 31, line = threadIdx.x >> 5, lines = blockDim.x >> 5;
  const int top = blockIdx.y * lines, bottom = min(top + lines, size) - 1;
  const int first = bounds[2 * top], rows = bounds[2 * bottom] + bounds[2 * bottom + 1] - first;
  const int column = blockIdx.x * TILE_X + lane;
  if (column < size) {
    const int begin = bounds[2 * column], many = bounds[2 * column + 1];
    const int* weight = taps + column * room;
    for (int r = line; r < rows; r += lines) {
      const int source = min(max(y0 + first + r, 0), height - 1);
      int sum[3] = {1 << (PRECISION - 1), 1 << (PRECISION - 1), 1 << (PRECISION - 1)};
      for (int t = 0; t < many; ++t) {
        const int from = min(max(x0 + begin + t, 0), width - 1);
        const unsigned char* p = colour + 3 * (static_cast<long long>(source) * width + from);
        for (int c = 0; c < 3; ++c) sum[c] += p[c] * weight[t];
      }
      for (int c = 0; c < 3; ++c) strip[3 * (r * TILE_X + lane) + c] = static_cast<unsigned char>(clip8(sum[c]));
    }
  }
  __syncthreads();
  const int row = top + line;
  if (column >= size || row >= size) return;
  int sum[3] = {1 << (PRECISION - 1), 1 << (PRECISION - 1), 1 << (PRECISION - 1)};
  for (int t = 0; t < bounds[2 * row + 1]; ++t) {
    const int w = taps[row * room + t], at = 3 * ((bounds[2 * row] - first + t) * TILE_X + lane);
    for (int c = 0; c < 3; ++c) sum[c] += strip[at + c] * w;
  }
  const int out = row * size + column;
  for (int c = 0; c < 3; ++c) {
    const float scaled = __fdiv_rn(static_cast<float>(clip8(sum[c])), 255.0f);
    rgb[c * size * size + out] = __fdiv_rn(__fsub_rn(scaled, statistics[c]), statistics[3 + c]);
  }
  const int sy = y0 + (2 * row + 1) * side / (2 * size), sx = x0 + (2 * column + 1) * side / (2 * size);
  const bool inside = sy >= 0 && sy < height && sx >= 0 && sx < width;
  const int pixel = inside ? sy * width + sx : 0;
  const unsigned char flag = inside ? flags[pixel] : 0;
  const bool here = flag & 1;
  valid[out] = here;
  lost[out] = (flag & 2) != 0;
  for (int c = 0; c < 3; ++c) cloud[3 * out + c] = here ? xyz[3 * pixel + c] : 0.0f;
}
