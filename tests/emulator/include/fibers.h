// One fiber a CUDA thread: a stack and a switch between stacks. x86-64 and AArch64 by hand (2 ns), ucontext elsewhere.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__) && !defined(__aarch64__)
#define EMU_UCONTEXT
#include <ucontext.h>
#endif

namespace emu {

struct Context {
#ifdef EMU_UCONTEXT
    ucontext_t registers;
#else
    void* sp = nullptr;
#endif
    char* stack = nullptr;  // lowest address; null for the thread that launches
    size_t size = 0;
    void* fake = nullptr;  // AddressSanitizer's own stack
};

#ifndef EMU_UCONTEXT
extern "C" void emu_switch(void** save, void* load);
#endif

inline void enter_context(Context& from, Context& to, bool for_good = false) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake, to.stack, to.size);
#endif
    (void)for_good;
#ifdef EMU_UCONTEXT
    swapcontext(&from.registers, &to.registers);
#else
    emu_switch(&from.sp, to.sp);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from.fake, nullptr, nullptr);
#endif
}

// To be called first on a new stack. Tells AddressSanitizer where we are, and learns the launching thread's stack.
inline void entered(Context& launcher) {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (!launcher.stack) launcher.stack = static_cast<char*>(const_cast<void*>(bottom)), launcher.size = size;
#else
    (void)launcher;
#endif
}

inline void make_stack(Context& c, size_t size) {
    void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) abort();
    c.stack = static_cast<char*>(p);
    c.size = size;
}

// After a launch that was broken off: what its threads left on their stacks is nobody's any more.
inline void forget(Context& c) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(c.stack, c.size);
#else
    (void)c;
#endif
}

inline void prepare(Context& c, void (*start)()) {
#ifdef EMU_UCONTEXT
    getcontext(&c.registers);
    c.registers.uc_stack.ss_sp = c.stack;
    c.registers.uc_stack.ss_size = c.size;
    c.registers.uc_link = nullptr;
    makecontext(&c.registers, start, 0);
#elif defined(__x86_64__)
    void** sp = reinterpret_cast<void**>(c.stack + c.size) - 3;  // keeps the stack 16-byte aligned at the entry
    *--sp = reinterpret_cast<void*>(start);
    for (int k = 0; k < 6; ++k) *--sp = nullptr;
    c.sp = sp;
#else
    char* sp = c.stack + c.size - 160;
    for (int k = 0; k < 20; ++k) reinterpret_cast<void**>(sp)[k] = nullptr;
    reinterpret_cast<void**>(sp)[11] = reinterpret_cast<void*>(start);  // x30
    c.sp = sp;
#endif
    c.fake = nullptr;
}

}  // namespace emu
