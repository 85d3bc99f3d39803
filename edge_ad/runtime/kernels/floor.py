"""What a launch must move and compute, and the least time that this takes on a device."""

from __future__ import annotations

from dataclasses import dataclass

TENSOR_TFLOPS = {"AGX Orin 64": 42.6, "Orin Nano Super": 16.7, "H100 SXM": 989.0}
"""Dense FP16 with FP32 sums, 10^12 operations a second, as published."""


@dataclass(frozen=True)
class Device:
    """One GPU: streaming multiprocessors, clock in GHz, memory in GB/s. 128 float32 lanes a multiprocessor; 64 bytes a
    clock between one multiprocessor and the second-level cache."""

    name: str
    multiprocessors: int
    clock_ghz: float
    memory_gbs: float


DEVICES = (
    Device("AGX Orin 64", 16, 1.3, 204.8),
    Device("Orin Nano Super", 8, 1.02, 102.0),
    Device("H100 SXM", 132, 1.83, 3350.0),
)


@dataclass(frozen=True)
class Cost:
    """What the launches of one kernel must move and compute.

    ``blocks``: 1 for a kernel that one multiprocessor runs alone, else 0. ``tensor``: operations on the tensor cores.
    ``fused``: multiply-adds may be fused, so that a lane does two operations a clock.
    """

    kernel: str
    bytes: int
    operations: int
    float64: int = 0
    blocks: int = 0
    tensor: int = 0
    fused: bool = False

    def floor_ms(self, device: Device) -> float:
        """The least time on a device: memory, lanes or tensor cores, whichever is slowest. Latencies come on top."""
        many = self.blocks or device.multiprocessors
        lanes = (256e9 if self.fused else 128e9) * device.clock_ghz * many
        # Orin and other small GPUs have 2 float64 lanes a multiprocessor, H100 has 64.
        wide = (64e9 if device.memory_gbs > 1000 else 2e9) * device.clock_ghz * many
        tensor = TENSOR_TFLOPS.get(device.name, float("inf")) * 1e12  # of other devices memory and lanes alone
        memory = device.memory_gbs * 1e9
        if self.blocks:
            memory = 64e9 * device.clock_ghz * self.blocks
        return 1e3 * max(self.bytes / memory, self.operations / lanes, self.float64 / wide, self.tensor / tensor)
