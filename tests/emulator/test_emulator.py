"""The block emulator: what sound kernels compute, and which faults it tells."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np
import pytest

from tests.emulator.emulate import MODE, SCHEDULES, Emulated, EmulationError, emulate, kernel_names, needs_compiler

pytestmark = needs_compiler
HERE = Path(__file__).parent
ORDERS = [("forward", 0), ("reverse", 0), ("random", 1), ("random", 2)]


@pytest.fixture(scope="module")
def sound() -> Emulated:
    return emulate(HERE / "sound.cu")


@pytest.fixture(scope="module")
def faulty() -> Emulated:
    return emulate(HERE / "faulty.cu")


def test_indices_of_three_dimensions(sound: Emulated) -> None:
    out = np.zeros(12 * 24, np.int32)
    sound.indices[(2, 3, 2), (4, 2, 3)](out)
    np.testing.assert_array_equal(out, np.repeat(np.arange(12) * 1000, 24) + np.tile(np.arange(24), 12))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", [32, 96, 1024])
def test_sums_by_shuffles_and_shared_memory(sound: Emulated, order: tuple[str, int], block: int) -> None:
    values = np.arange(5000, dtype=np.float32) % 7
    out = np.full(3, np.nan, np.float32)
    sound.use(*order).block_sum[3, block](values, out, len(values))
    assert out.sum() == values.sum()


@pytest.mark.parametrize("order", ORDERS)
def test_partial_masks(sound: Emulated, order: tuple[str, int]) -> None:
    out = np.zeros((8, 32), np.int32)
    sound.use(*order).partial_masks[1, 32](out)
    lane = np.arange(32)
    low = lane < 10
    np.testing.assert_array_equal(out[0], np.where(low, (lane + 2) % 10, 10 + (lane - 10 + 5) % 22))
    votes = out[1].view(np.uint32)
    assert set(votes[:10]) == {sum(1 << i for i in range(0, 10, 3))}
    assert set(votes[10:]) == {sum(1 << i for i in range(12, 32, 3))}
    np.testing.assert_array_equal(out[2], low)
    np.testing.assert_array_equal(out[3], low)
    same = [sum(1 << j for j in lane if (j < 10) == (i < 10) and j % 4 == i % 4) for i in lane]
    np.testing.assert_array_equal(out[4].view(np.uint32), same)
    np.testing.assert_array_equal(out[5], np.where(low, 45, sum(range(10, 32))))
    np.testing.assert_array_equal(out[6], np.where(lane % 8 < 3, lane, lane - 3))
    np.testing.assert_array_equal(out[7], np.where(lane % 8 > 4, lane, lane + 3))


@pytest.mark.parametrize("order", ORDERS)
def test_threads_that_left_count_as_arrived(sound: Emulated, order: tuple[str, int]) -> None:
    out = np.zeros(64, np.int32)
    sound.use(*order).early_exit[1, 64](out)
    np.testing.assert_array_equal(out, 16)


@pytest.mark.parametrize("order", ORDERS)
def test_atomics(sound: Emulated, order: tuple[str, int]) -> None:
    values = np.random.default_rng(0).integers(0, 1000, 300).astype(np.int32)
    total, top, high, low = (np.zeros(1, t) for t in (np.int32, np.uint32, np.uint64, np.uint64))
    low[0] = np.iinfo(np.uint64).max
    added, slots, used = np.zeros(1, np.float32), np.full(300, -1, np.int32), np.zeros(1, np.int32)
    sound.use(*order).atomics[4, 96](values, 300, total, top, high, low, added, slots, used)
    assert (total[0], top[0], added[0], used[0]) == (values.sum(), values.max(), 300, 300)
    keys = values.astype(np.uint64) << np.uint64(32) | np.arange(300, dtype=np.uint64)
    assert (high[0], low[0]) == (keys.max(), keys.min())
    assert sorted(slots) == list(range(300))
    if order[0] == "reverse":
        assert slots[0] != 0
    if order[0] == "forward":
        assert slots.tolist() == list(range(300))


def test_dynamic_shared_memory_and_repeated_random_orders(sound: Emulated) -> None:
    values = np.arange(128, dtype=np.int32)
    out = np.zeros(128, np.int32)
    sound.use("random", 7).dynamic_shared[2, 64, 256](values, out)
    np.testing.assert_array_equal(out, values.reshape(2, 64)[:, ::-1].ravel())


def test_multiply_add_is_fused_only_where_it_is_written(sound: Emulated) -> None:
    rng = np.random.default_rng(1)
    a, b, c = rng.normal(size=(3, 256)).astype(np.float32)
    rounded, fused = np.zeros(256, np.float32), np.zeros(256, np.float32)
    sound.unfused[1, 256](a, b, c, rounded, fused)
    np.testing.assert_array_equal(rounded, a * b + c)
    exact = a.astype(np.float64) * b + c
    np.testing.assert_array_equal(fused, exact.astype(np.float32))
    assert (rounded != fused).any()


class Window(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int), ("scale", ctypes.c_float))


def test_structures_vectors_and_half(sound: Emulated) -> None:
    values = np.linspace(-3, 3, 32).astype(np.float16)
    out, four = np.zeros(32, np.float16), np.zeros((1, 4), np.float32)
    sound.structures[1, 32](values, out, Window(5, 6, 0.5), four)
    np.testing.assert_array_equal(out, (values.astype(np.float32) * np.float32(0.5) + 5).astype(np.float16))
    assert four.tolist() == [[5, 6, 0.5, 4]]


def test_a_missing_barrier_shows_in_every_order(faulty: Emulated) -> None:
    values = np.arange(256, dtype=np.float32)
    for order in ORDERS:
        out = np.zeros(256, np.float32)
        faulty.use(*order).rotate[1, 256](values, out, 1)
        np.testing.assert_array_equal(out, np.roll(values, -1))
        faulty.rotate[1, 256](values, out, 0)
        assert not np.array_equal(out, np.roll(values, -1)), order


@pytest.mark.skipif(MODE in os.environ, reason="one build a process is enough")
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_races_are_told_with_their_lines(schedule: str) -> None:
    """Also where every order of threads happens to give the right result."""
    watched = emulate(HERE / "faulty.cu", mode="race").use(schedule, 3)
    values, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    watched.rotate[1, 64](values, out, 1)
    with pytest.raises(EmulationError, match=r"race in shared memory: thread .* (loads|stores) at .*, thread \d+ of"):
        watched.rotate[1, 64](values, out, 0)
    with pytest.raises(EmulationError, match="race in shared memory"):
        watched.lucky_order[1, 64](out)
    watched.neighbours[1, 32](out, 1)  # __syncwarp orders
    with pytest.raises(EmulationError, match="race in shared memory"):
        watched.neighbours[1, 32](out, 0)  # a shuffle does not
    total = np.zeros(1, np.int32)
    watched.count_blocks[5, 32](total, 1)
    assert total[0] == 5
    with pytest.raises(EmulationError, match=r"race in byte 0 of buffer 0: .* of block [01] had used it"):
        watched.count_blocks[2, 32](total, 0)


def test_shared_memory_that_was_never_written_is_not_a_number(faulty: Emulated) -> None:
    for _ in range(2):  # nor does it hold what the block before it left
        out = np.zeros(32, np.float32)
        faulty.use("forward").unset_shared[1, 32](out)
        assert (out[:16] == 1).all() and np.isnan(out[16:]).all()


FAULTS = [
    ("divergent_barrier", (np.zeros(32, np.int32),), r"barrier of line \d+ and another at that of line \d+"),
    ("missing_lane", (np.zeros(32, np.int32),), r"waits for ever (in a warp operation|at the barrier)"),
    ("not_in_mask", (np.zeros(32, np.int32),), r"lane \d+ is not in its own mask 0000ffff"),
    ("mixed_operations", (np.zeros(32, np.int32),), "different warp operations"),
    ("write_at", (np.zeros(32, np.float32), 32), "a write outside buffer 0"),
    ("write_at", (np.zeros(32, np.float32), -1), "a write outside buffer 0"),
    ("shared_at", (np.zeros(32, np.float32), 1), "a write outside the dynamic shared memory"),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("kernel", "arguments", "message"), FAULTS)
def test_faults_are_told(faulty: Emulated, kernel: str, arguments: tuple, message: str, schedule: str) -> None:  # type: ignore[type-arg]
    if "outside" in message and _sanitized():
        pytest.skip("the sanitizer ends the process here: tests/emulator/test_sanitizers.py")
    with pytest.raises(EmulationError, match=message):
        getattr(faulty.use(schedule, 1), kernel)[1, 32, 128](*arguments)
    out = np.zeros(32, np.float32)  # and the next launch is sound
    faulty.rotate[1, 32](np.arange(32, dtype=np.float32), out, 1)
    np.testing.assert_array_equal(out, np.roll(np.arange(32), -1))


def _sanitized() -> bool:
    return os.environ.get(MODE) == "address"


def test_arguments_are_held_against_the_kernels_parameters(sound: Emulated) -> None:
    good = np.zeros(32, np.float32), np.zeros(1, np.float32)
    assert sound.block_sum.parameters == ("const f4*", "f4*", "i4")
    with pytest.raises(TypeError, match="takes 3 arguments"):
        sound.block_sum[1, 32](*good)
    with pytest.raises(TypeError, match="argument 0: an array of float64, expected const f4"):
        sound.block_sum[1, 32](good[0].astype(np.float64), good[1], 32)
    with pytest.raises(TypeError, match="a contiguous array"):
        sound.block_sum[1, 32](np.zeros(64, np.float32)[::2], good[1], 32)
    with pytest.raises(TypeError, match="expected a number that i4 holds"):
        sound.block_sum[1, 32](*good, 1.5)
    frozen = np.zeros(1, np.float32)
    frozen.setflags(write=False)
    with pytest.raises(TypeError, match="a read-only array for f4"):
        sound.block_sum[1, 32](good[0], frozen, 32)
    with pytest.raises(EmulationError, match="a block of 2048 threads"):
        sound.block_sum[1, 2048](*good, 32)
    with pytest.raises(AttributeError, match="no kernel nothing"):
        sound.nothing  # noqa: B018
    with pytest.raises(ValueError, match="schedule 'sideways'"):
        sound.use("sideways")


def test_arrays_that_share_memory_share_it_in_the_copy(sound: Emulated) -> None:
    both = np.arange(128, dtype=np.int32)
    sound.use("forward").dynamic_shared[1, 64, 256](both[:64], both[64:])
    np.testing.assert_array_equal(both[64:], np.arange(64)[::-1])
    sound.dynamic_shared[1, 64, 256](both[:64], both[:64])
    np.testing.assert_array_equal(both[:64], np.arange(64)[::-1])


def test_kernel_names() -> None:
    one = 'extern "C" __global__ void __launch_bounds__(256, 1)\none(int a) {}\n'
    text = one + 'extern "C" __global__ void two() {}\nvoid x();'
    assert kernel_names(text) == ["one", "two"]


def test_what_does_not_compile_says_why(tmp_path: Path) -> None:
    source = tmp_path / "broken.cu"
    source.write_text('extern "C" __global__ void broken(int* p) { p[0] = undeclared; }\n')
    with pytest.raises(RuntimeError, match="broken.cu does not compile for the emulator"):
        emulate(source)
