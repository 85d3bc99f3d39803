// Depth to an organised cloud and the test of every pixel in the same pass; depth onto the colour camera's grid.
// References: edge_ad.runtime.geometry (depth_to_xyz, frame_xyz, Plane.height), edge_ad.runtime.registration.
#include "points_common.cuh"

#define FOREGROUND 1  // inside the region, within the depth limit, above the plane where one is given
#define LOST 2        // without depth where depth is expected
#define HAS_DEPTH 4
#define USABLE 8      // as FOREGROUND, without the plane
#define MAX_SPLAT 16  // as edge_ad.runtime.registration

// What a pixel is tested by. Null pointers: no region of interest, no expected depth.
struct PixelTest {
  const unsigned char* roi;
  const unsigned char* expected;
  const float* plane;  // normal and offset, or null
  float plane_distance, max_depth;
};

__device__ __forceinline__ bool finite(float v) { return fabsf(v) < INFINITE; }

__device__ __forceinline__ unsigned char judge(const PixelTest& test, int pixel, float x, float y, float z) {
  const bool inside = !test.roi || test.roi[pixel];
  if (!(z > 0.0f)) return test.expected && test.expected[pixel] && inside ? LOST : 0;
  if (!inside || (test.max_depth > 0.0f && z > test.max_depth)) return HAS_DEPTH;
  if (test.plane) {
    const float height = __fadd_rn(
        __fadd_rn(__fadd_rn(__fmul_rn(x, test.plane[0]), __fmul_rn(y, test.plane[1])), __fmul_rn(z, test.plane[2])),
        test.plane[3]);
    if (!(height > test.plane_distance)) return HAS_DEPTH | USABLE;
  }
  return HAS_DEPTH | USABLE | FOREGROUND;
}

// Adds to `seen` how many pixels of the block have depth and how many are usable. Every thread of the block calls.
__device__ __forceinline__ void count_seen(unsigned char flags, int* seen) {
  const int known = __syncthreads_count(flags & HAS_DEPTH), usable = __syncthreads_count(flags & USABLE);
  if (threadIdx.x == 0 && known) atomicAdd(seen, known);
  if (threadIdx.x == 0 && usable) atomicAdd(seen + 1, usable);
}

// Where a depth value comes from: the camera's 16 bit units or floats, or what register_depth wrote, the complement of
// units or of float bits, 0: not seen.
#define UNITS 0
#define FLOATS 1
#define REGISTERED_UNITS 2
#define REGISTERED_FLOATS 3

__device__ __forceinline__ float raw_depth(const unsigned char* depth, int kind, int pixel) {
  if (kind == UNITS) return static_cast<float>(reinterpret_cast<const unsigned short*>(depth)[pixel]);
  if (kind == FLOATS) return reinterpret_cast<const float*>(depth)[pixel];
  const unsigned bits = ~reinterpret_cast<const unsigned*>(depth)[pixel];
  return bits == 0xffffffffu ? 0.0f : kind == REGISTERED_UNITS ? static_cast<float>(bits) : __uint_as_float(bits);
}

// depth : (height, width) of `kind`, `scale` metres a unit. ray_x, ray_y : x / z of a column, y / z of a row; with
// per_pixel (a lens with distortion) of every pixel. xyz : (height, width, 3) metres, 0 without depth, written. flags :
// (height, width), written. plane : normal and offset (4 floats) or null. seen : 2, added to: pixels with depth, usable
// pixels. Grid: ceil(height * width / 256) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
depth_to_cloud(const unsigned char* __restrict__ depth, int kind, float scale, const float* __restrict__ ray_x,
               const float* __restrict__ ray_y, int per_pixel, int height, int width,
               const unsigned char* __restrict__ roi, const unsigned char* __restrict__ expected,
               const float* __restrict__ plane, float plane_distance, float max_depth, float* __restrict__ xyz,
               unsigned char* __restrict__ flags, int* __restrict__ seen) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned char mine = 0;
  if (pixel < height * width) {
    const PixelTest test = {roi, expected, plane, plane_distance, max_depth};
    float z = __fmul_rn(raw_depth(depth, kind, pixel), scale);
    if (!finite(z) || z < 0.0f) z = 0.0f;
    const float x = __fmul_rn(ray_x[per_pixel ? pixel : pixel % width], z);
    const float y = __fmul_rn(ray_y[per_pixel ? pixel : pixel / width], z);
    xyz[3 * pixel] = x, xyz[3 * pixel + 1] = y, xyz[3 * pixel + 2] = z;
    flags[pixel] = mine = judge(test, pixel, x, y, z);
  }
  count_seen(mine, seen);
}

// A cloud as the camera gave it: points with a value that is not finite or z <= 0 become 0, in place; flags and seen as
// above. Run again on its own result it tests the pixels by another plane.
extern "C" __global__ void __launch_bounds__(256)
check_cloud(float* __restrict__ xyz, int pixels, const unsigned char* __restrict__ roi,
            const unsigned char* __restrict__ expected, const float* __restrict__ plane, float plane_distance,
            float max_depth, unsigned char* __restrict__ flags, int* __restrict__ seen) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned char mine = 0;
  if (pixel < pixels) {
    const PixelTest test = {roi, expected, plane, plane_distance, max_depth};
    float x = xyz[3 * pixel], y = xyz[3 * pixel + 1], z = xyz[3 * pixel + 2];
    if (!(finite(x) && finite(y) && finite(z) && z > 0.0f)) {
      x = y = z = 0.0f;
      xyz[3 * pixel] = xyz[3 * pixel + 1] = xyz[3 * pixel + 2] = 0.0f;
    }
    flags[pixel] = mine = judge(test, pixel, x, y, z);
  }
  count_seen(mine, seen);
}

// The points of some pixels, for what the host does with few of them. pixel : (n,). out : (n, 3), written.
// Grid: ceil(n / 256) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
gather_points(const float* __restrict__ xyz, const int* __restrict__ pixel, int n, float* __restrict__ out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  for (int c = 0; c < 3; ++c) out[3 * i + c] = xyz[3 * pixel[i] + c];
}

// Pixel of the colour image that a corner falls into; false outside. floor(u + 1/2) without rounding the sum.
__device__ __forceinline__ bool corner_pixel(float u, int size, int& at) {
  if (!(u >= -0.5f && u < static_cast<float>(size) - 0.5f)) return false;
  const float below = floorf(u);
  at = static_cast<int>(below) + (__fsub_rn(u, below) >= 0.5f ? 1 : 0);
  return at >= 0 && at < size;
}

// camera : 19 floats: translation, fx fy ppx ppy, OpenCV's 12 distortion coefficients (all 0: none).
__device__ __forceinline__ bool to_colour(const float* ray, int pixel, int pixels, float z, const float* camera, bool bare,
                                          int width, int height, int& column, int& row, float& depth) {
  const float* k = camera + 7;
  depth = __fadd_rn(__fmul_rn(ray[2 * pixels + pixel], z), camera[2]);
  if (!(depth > 0.0f && depth < 1e6f)) return false;
  float x = __fdiv_rn(__fadd_rn(__fmul_rn(ray[pixel], z), camera[0]), depth);
  float y = __fdiv_rn(__fadd_rn(__fmul_rn(ray[pixels + pixel], z), camera[1]), depth);
  if (!bare) {
    const float r2 = x * x + y * y;
    const float radial =
        (1.0f + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1.0f + r2 * (k[5] + r2 * (k[6] + r2 * k[7])));
    const float moved = x * radial + 2.0f * k[2] * x * y + k[3] * (r2 + 2.0f * x * x) + k[8] * r2 + k[9] * r2 * r2;
    y = y * radial + k[2] * (r2 + 2.0f * y * y) + 2.0f * k[3] * x * y + k[10] * r2 + k[11] * r2 * r2;
    x = moved;
  }
  return corner_pixel(__fadd_rn(__fmul_rn(x, camera[3]), camera[5]), width, column) &&
         corner_pixel(__fadd_rn(__fmul_rn(y, camera[4]), camera[6]), height, row);
}

// Carries every depth pixel's square to the colour grid, the nearest wins. depth : (pixels,) of `kind` UNITS or FLOATS.
// rays0, rays1 : (3, pixels) rays through its upper left and lower right corner in the colour camera's axes. top : the
// largest value of units, 65535. out : (height, width), 0 before, holds complements, so that the nearest is the greatest
// (float bits order as the floats do); widest : 1, 0 before: the widest side met beyond 16 pixels, where a square is left
// out. Grid: ceil(pixels / 256) blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
register_depth(const unsigned char* __restrict__ depth, int kind, float scale, int top, const float* __restrict__ rays0,
               const float* __restrict__ rays1, int pixels, const float* __restrict__ camera, int height, int width,
               unsigned* __restrict__ out, int* __restrict__ widest) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const float raw = raw_depth(depth, kind, pixel);
  if (!(raw > 0.0f)) return;
  const float z = __fmul_rn(raw, scale);
  bool bare = true;
  for (int c = 7; c < 19; ++c) bare = bare && camera[c] == 0.0f;
  int x0, y0, x1, y1;
  float near, far;
  if (!to_colour(rays0, pixel, pixels, z, camera, bare, width, height, x0, y0, near)) return;
  if (!to_colour(rays1, pixel, pixels, z, camera, bare, width, height, x1, y1, far)) return;
  const float units = __fdiv_rn(__fadd_rn(0.5f * near, 0.5f * far), scale);
  const int side = max(x1 - x0, y1 - y0) + 1;
  if (side > MAX_SPLAT) {
    atomicMax(widest, side);
    return;
  }
  const unsigned value = kind == UNITS ? static_cast<unsigned>(fminf(__fadd_rn(units, 0.5f), static_cast<float>(top)))
                                       : __float_as_uint(units);
  if (value == 0u) return;
  for (int row = y0; row <= y1; ++row)
    for (int column = x0; column <= x1; ++column) atomicMax(out + row * width + column, ~value);
}
