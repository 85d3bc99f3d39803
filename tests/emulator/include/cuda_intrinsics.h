// CUDA's vocabulary on the CPU: qualifiers, vector types, rounding intrinsics, half. Build with -ffp-contract=off.
#pragma once
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
#define EMU_VECTORS(T, name)                                                        \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                              \
    struct name##3 { T x, y, z; };                                                  \
    struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; }; \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                      \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }              \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTORS(float, float)
EMU_VECTORS(double, double)
EMU_VECTORS(int, int)
EMU_VECTORS(short, short)
EMU_VECTORS(unsigned short, ushort)
EMU_VECTORS(signed char, char)
EMU_VECTORS(unsigned char, uchar)
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
inline float __frsqrt_rn(float a) { return float(1.0 / sqrt(double(a))); }
inline float __expf(float a) { return expf(a); }
inline float __logf(float a) { return logf(a); }
inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1.0f) : 0.0f; }
inline float __double2float_rn(double a) { return float(a); }

template <class T, class U> T emu_cast(U a) {
    static_assert(sizeof(T) == sizeof(U), "same size");
    T out;
    memcpy(&out, &a, sizeof(T));
    return out;
}
inline int __float_as_int(float a) { return emu_cast<int>(a); }
inline unsigned __float_as_uint(float a) { return emu_cast<unsigned>(a); }
inline float __int_as_float(int a) { return emu_cast<float>(a); }
inline float __uint_as_float(unsigned a) { return emu_cast<float>(a); }
inline long long __double_as_longlong(double a) { return emu_cast<long long>(a); }
inline double __longlong_as_double(long long a) { return emu_cast<double>(a); }

// Conversions saturate and take NaN to 0, as the hardware's do; a C++ cast would be undefined there.
inline int emu_to_int(double a) { return a != a ? 0 : a >= 2147483647.0 ? INT_MAX : a <= -2147483648.0 ? INT_MIN : int(a); }
inline unsigned emu_to_unsigned(double a) { return !(a > 0) ? 0u : a >= 4294967295.0 ? UINT_MAX : unsigned(a); }
inline int __float2int_rn(float a) { return emu_to_int(nearbyint(double(a))); }
inline int __float2int_rz(float a) { return emu_to_int(trunc(double(a))); }
inline int __float2int_rd(float a) { return emu_to_int(floor(double(a))); }
inline int __float2int_ru(float a) { return emu_to_int(ceil(double(a))); }
inline unsigned __float2uint_rn(float a) { return emu_to_unsigned(nearbyint(double(a))); }
inline unsigned __float2uint_rz(float a) { return emu_to_unsigned(trunc(double(a))); }
inline int __double2int_rn(double a) { return emu_to_int(nearbyint(a)); }
inline int __double2int_rd(double a) { return emu_to_int(floor(a)); }
inline float __int2float_rn(int a) { return float(a); }
inline float __uint2float_rn(unsigned a) { return float(a); }

inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __ffsll(long long a) { return __builtin_ffsll(a); }
inline int __clz(int a) { return a ? __builtin_clz(unsigned(a)) : 32; }
inline int __clzll(long long a) { return a ? __builtin_clzll((unsigned long long)a) : 64; }
inline unsigned __brev(unsigned a) {
    unsigned out = 0;
    for (int i = 0; i < 32; ++i) out |= (a >> i & 1u) << (31 - i);
    return out;
}
inline int __mul24(int a, int b) { return a * b; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcs(T* p, T v) { *p = v; }

inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline long long min(long long a, long long b) { return b < a ? b : a; }
inline long long max(long long a, long long b) { return a < b ? b : a; }
inline unsigned long long min(unsigned long long a, unsigned long long b) { return b < a ? b : a; }
inline unsigned long long max(unsigned long long a, unsigned long long b) { return a < b ? b : a; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

struct alignas(2) __half {
    _Float16 v;
    __half() = default;
    __half(float a) : v(_Float16(a)) {}
    operator float() const { return float(v); }
};
struct alignas(4) __half2 { __half x, y; };
using half = __half;
using half2 = __half2;
inline __half __float2half(float a) { return __half(a); }
inline __half __float2half_rn(float a) { return __half(a); }
inline float __half2float(__half a) { return float(a.v); }
inline __half2 __floats2half2_rn(float a, float b) { return {__half(a), __half(b)}; }
inline __half2 __float22half2_rn(float2 a) { return {__half(a.x), __half(a.y)}; }
inline float2 __half22float2(__half2 a) { return {float(a.x), float(a.y)}; }
inline __half2 __halves2half2(__half a, __half b) { return {a, b}; }
inline float __low2float(__half2 a) { return float(a.x); }
inline float __high2float(__half2 a) { return float(a.y); }
