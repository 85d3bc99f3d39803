// Runs CUDA kernels on the CPU: one thread of the system, one fiber a CUDA thread, one block after another.
//
// What it is for: the arithmetic and the synchronisation of a kernel, by the source that nvcc compiles. What it has:
// block barriers, warp collectives with partial masks, atomics, static and dynamic shared memory (filled with 0xFF before
// every block, so what is read before it is written is NaN or -1), and schedules: between two barriers the threads run
// in ascending, descending or random order, so a missing barrier shows. What it has not: blocks that wait for each other,
// __activemask, textures, time. Kernels are launched by tests/emulator/emulate.py.
#pragma once
#include "cuda_intrinsics.h"
#include "fibers.h"

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

// Only in functions that are neither templates nor inline: their copies would need sections of their own.
#define __shared__ static __attribute__((section("emu_shared")))
#define DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(emu::S.dynamic)

namespace emu {

constexpr size_t STACK = 128 << 10;
constexpr unsigned GUARD = 64;  // bytes before and after every buffer
enum State : uint8_t { READY, AT_BARRIER, AT_WARP, DONE };
enum Schedule { FORWARD = 0, REVERSE = 1, RANDOM = 2 };
enum Collective { SYNC, SHUFFLE, VOTE, MATCH, REDUCE };
enum Reduction { NONE, COUNT, AND, OR };
enum Operation { ADD, MIN_SIGNED, MAX_SIGNED, MIN_UNSIGNED, MAX_UNSIGNED, BIT_OR, BIT_AND };

struct Thread {
    Context context;
    uint3 tid;
    int lane, warp;
    State state;
    uint32_t mask;     // of the collective it waits in
    int kind;          // of that collective
    int line;          // of the barrier it waits at
    int predicate;     // given to __syncthreads_count and the like
    uint64_t in, out;  // value given to a collective; for a vote or a match its result
    int epoch;         // barriers passed (race builds)
    uint32_t clock;    // warp barriers passed, and what is known of the other lanes' (race builds)
    uint32_t known[32];
};

struct Warp {
    uint32_t ready = 0, done = 0, exists = 0;
    uint64_t snapshot[32];
};

struct Machine {
    std::vector<Thread> threads;
    Warp warps[32];
    uint32_t ready_warps = 0;
    Thread* current = nullptr;
    Context launcher;
    int n = 0, alive = 0, waiting = 0, barrier_result = 0;
    dim3 grid, block;
    uint3 bid;
    char* dynamic = nullptr;
    int schedule = FORWARD;
    uint64_t random = 1;
    void (*body)(void*) = nullptr;
    void* arguments = nullptr;
    std::string error;
};
extern Machine S __attribute__((visibility("hidden")));

// machine.cpp
[[noreturn]] void fail(const char* format, ...);
std::string name_of(const Thread& t);
int barrier(int line, Reduction kind, int predicate);
uint64_t collective(uint32_t mask, Collective kind, uint64_t value, int source);
void maybe_yield();
void record_atomic(const void* p, size_t bytes);  // for race builds

template <class T> uint64_t bits(T value) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "at most 8 bytes");
    uint64_t raw = 0;
    memcpy(&raw, &value, sizeof(T));
    return raw;
}

template <class T> T unbits(uint64_t raw) {
    T value;
    memcpy(&value, &raw, sizeof(T));
    return value;
}

struct Config {
    uint32_t grid[3], block[3];
    uint64_t shared;
    int32_t schedule;
    uint64_t seed;
};

// One argument: a value, or a buffer that is copied to memory with guards around it and back again.
struct Argument {
    void* data;
    uint64_t bytes;
    int32_t buffer;
};

// One launch: `body` is called by every thread with `bound`, whose `values` point at the arguments.
struct Bound {
    void (*kernel)();
    void** values;
};

int launch(void (*body)(void*), void (*kernel)(), size_t count, const Config* c, const Argument* given, char* text,
           size_t room);

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** values, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A>*>(values[I])...);
}

template <class... A> int launch(void (*kernel)(A...), const Config* c, const Argument* given, char* text, size_t room) {
    auto body = [](void* p) {
        const Bound* b = static_cast<const Bound*>(p);
        call(reinterpret_cast<void (*)(A...)>(b->kernel), b->values, std::index_sequence_for<A...>{});
    };
    return launch(body, reinterpret_cast<void (*)()>(kernel), sizeof...(A), c, given, text, room);
}

// "f4", "i4", "u1", "V12" for a value; "f4*" and "const f4*" for a buffer.
template <class T> std::string code() {
    using U = std::remove_cv_t<T>;
    const std::string size = std::to_string(sizeof(U));
    if (std::is_same<U, __half>::value || std::is_floating_point<U>::value) return "f" + size;
    if (std::is_same<U, bool>::value) return "b1";
    if (std::is_integral<U>::value) return (std::is_signed<U>::value ? "i" : "u") + size;
    return "V" + size;
}

template <class T> std::string parameter() {
    if constexpr (std::is_pointer<T>::value) {
        using U = std::remove_pointer_t<T>;
        return std::string(std::is_const<U>::value ? "const " : "") + code<U>() + "*";
    } else {
        return code<T>();
    }
}

template <class... A> std::string signature(void (*)(A...)) {
    std::string all;
    ((all += (all.empty() ? "" : ",") + parameter<A>()), ...);
    return all;
}

}  // namespace emu

#define EMULATED_KERNEL(name)                                                                                    \
    extern "C" int emu_launch_##name(const emu::Config* c, const emu::Argument* a, char* text, size_t room) {     \
        return emu::launch(name, c, a, text, room);                                                              \
    }                                                                                                            \
    extern "C" const char* emu_signature_##name() {                                                              \
        static const std::string text = emu::signature(name);                                                    \
        return text.c_str();                                                                                     \
    }

#define threadIdx (emu::S.current->tid)
#define blockIdx (emu::S.bid)
#define blockDim (emu::S.block)
#define gridDim (emu::S.grid)
constexpr int warpSize = 32;

#define __syncthreads() ((void)emu::barrier(__LINE__, emu::NONE, 0))
#define __syncthreads_count(p) (emu::barrier(__LINE__, emu::COUNT, (p) != 0))
#define __syncthreads_and(p) (emu::barrier(__LINE__, emu::AND, (p) != 0))
#define __syncthreads_or(p) (emu::barrier(__LINE__, emu::OR, (p) != 0))
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
[[noreturn]] inline void __trap() { emu::fail("%s: __trap", emu::name_of(*emu::S.current).c_str()); }

inline void __syncwarp(unsigned mask = ~0u) { emu::collective(mask, emu::SYNC, 0, 0); }
inline unsigned __ballot_sync(unsigned mask, int p) { return unsigned(emu::collective(mask, emu::VOTE, p != 0, 0)); }
inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, !p) == 0; }
template <class T> unsigned __match_any_sync(unsigned mask, T v) {
    return unsigned(emu::collective(mask, emu::MATCH, emu::bits(v), 0));
}
template <class T> T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
    const int lane = emu::S.current->lane;
    return emu::unbits<T>(emu::collective(mask, emu::SHUFFLE, emu::bits(v), (lane & -width) | (source & (width - 1))));
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    const int lane = emu::S.current->lane, from = lane - int(by);
    return emu::unbits<T>(emu::collective(mask, emu::SHUFFLE, emu::bits(v), from < (lane & -width) ? lane : from));
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    const int lane = emu::S.current->lane, from = lane + int(by);
    const bool inside = from < (lane & -width) + width;
    return emu::unbits<T>(emu::collective(mask, emu::SHUFFLE, emu::bits(v), inside ? from : lane));
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32) {
    const int lane = emu::S.current->lane, from = lane ^ with;
    const bool inside = (from & -width) <= (lane & -width);
    return emu::unbits<T>(emu::collective(mask, emu::SHUFFLE, emu::bits(v), inside ? from : lane));
}
template <class T> T __reduce_add_sync(unsigned mask, T v) {
    return T(uint32_t(emu::collective(mask, emu::REDUCE, uint32_t(v), emu::ADD)));
}
template <class T> T __reduce_min_sync(unsigned mask, T v) {
    const int operation = std::is_signed<T>::value ? emu::MIN_SIGNED : emu::MIN_UNSIGNED;
    return T(uint32_t(emu::collective(mask, emu::REDUCE, uint32_t(v), operation)));
}
template <class T> T __reduce_max_sync(unsigned mask, T v) {
    const int operation = std::is_signed<T>::value ? emu::MAX_SIGNED : emu::MAX_UNSIGNED;
    return T(uint32_t(emu::collective(mask, emu::REDUCE, uint32_t(v), operation)));
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned v) {
    return uint32_t(emu::collective(mask, emu::REDUCE, v, emu::BIT_OR));
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned v) {
    return uint32_t(emu::collective(mask, emu::REDUCE, v, emu::BIT_AND));
}

// --- atomics: the types that the hardware has, and no others ------------------------------------------------------
namespace emu {
template <class T> using Same = std::common_type_t<T>;  // keeps it out of deduction
template <class T, bool F> constexpr void check() {
    constexpr bool integer = std::is_integral<T>::value && (sizeof(T) == 4 || sizeof(T) == 8);
    static_assert(integer || (F && std::is_floating_point<T>::value), "no such atomic in CUDA");
}
template <class T, class F> __attribute__((no_sanitize("thread"), noinline)) T atomic(T* p, F change) {
    maybe_yield();
    record_atomic(p, sizeof(T));
    const T old = *p;
    *p = change(old);
    return old;
}
}  // namespace emu
template <class T> T atomicAdd(T* p, emu::Same<T> v) {
    emu::check<T, true>();
    return emu::atomic(p, [=](T o) { return T(o + v); });
}
template <class T> T atomicSub(T* p, emu::Same<T> v) {
    emu::check<T, false>();
    return emu::atomic(p, [=](T o) { return T(o - v); });
}
template <class T> T atomicMax(T* p, emu::Same<T> v) {
    emu::check<T, false>();
    return emu::atomic(p, [=](T o) { return v > o ? v : o; });
}
template <class T> T atomicMin(T* p, emu::Same<T> v) {
    emu::check<T, false>();
    return emu::atomic(p, [=](T o) { return v < o ? v : o; });
}
template <class T> T atomicExch(T* p, emu::Same<T> v) {
    emu::check<T, true>();
    return emu::atomic(p, [=](T) { return v; });
}
template <class T> T atomicCAS(T* p, emu::Same<T> is, emu::Same<T> v) {
    emu::check<T, false>();
    return emu::atomic(p, [=](T o) { return o == is ? v : o; });
}
template <class T> T atomicOr(T* p, emu::Same<T> v) {
    emu::check<T, false>();
    return emu::atomic(p, [=](T o) { return T(o | v); });
}
template <class T> T atomicAnd(T* p, emu::Same<T> v) {
    emu::check<T, false>();
    return emu::atomic(p, [=](T o) { return T(o & v); });
}
template <class T> T atomicXor(T* p, emu::Same<T> v) {
    emu::check<T, false>();
    return emu::atomic(p, [=](T o) { return T(o ^ v); });
}
inline unsigned atomicInc(unsigned* p, unsigned top) {
    return emu::atomic(p, [=](unsigned o) { return o >= top ? 0u : o + 1; });
}
