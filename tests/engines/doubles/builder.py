"""ONNX to plan: the network, its parser, the builder's options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.engines.doubles.shared import (
    BuilderFlag,
    IHostMemory,
    ILogger,
    ITensor,
    NetworkDefinitionCreationFlag,
    Severity,
    World,
    open_session,
)


class INetworkDefinition:
    __slots__ = ("_path", "_session", "_world")

    def __init__(self, world: World) -> None:
        self._world, self._path, self._session = world, Path(), None

    @property
    def num_inputs(self) -> int:
        return len(self._session.get_inputs())

    @property
    def num_outputs(self) -> int:
        return len(self._session.get_outputs())

    def get_input(self, index: int) -> ITensor:
        return ITensor(self._session.get_inputs()[index])

    def get_output(self, index: int) -> ITensor:
        return ITensor(self._session.get_outputs()[index])


class ParserError:
    __slots__ = ("_error",)

    def __init__(self, error: tuple[str, str, str]) -> None:
        self._error = error

    def node_name(self) -> str:
        return self._error[0]

    def node_operator(self) -> str:
        return self._error[1]

    def desc(self) -> str:
        return self._error[2]


class OnnxParser:
    __slots__ = ("_network",)

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network

    def parse_from_file(self, model: str) -> bool:
        self._network._path = Path(model)
        if "parse_from_file" in self._network._world.fails:
            return False
        self._network._session = open_session(Path(model))
        return True

    @property
    def num_errors(self) -> int:
        return len(self._network._world.errors)

    def get_error(self, index: int) -> ParserError:
        return ParserError(self._network._world.errors[index])


class IOptimizationProfile:
    __slots__ = ("_shapes", "_world")

    def __init__(self, world: World) -> None:
        self._world, self._shapes = world, {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002  TensorRT's own names
        if "set_shape" not in self._world.fails:
            self._shapes[input] = [tuple(min), tuple(opt), tuple(max)]

    def get_shape(self, input: str) -> list[tuple[int, ...]]:  # noqa: A002
        return self._shapes.get(input, [])

    def __bool__(self) -> bool:
        return all(a <= b <= c for shapes in self._shapes.values() for a, b, c in zip(*shapes))


class ITimingCache:
    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data)


class IBuilderConfig:
    __slots__ = ("_cache", "_flags", "_limits", "_profiles", "_world")

    def __init__(self, world: World) -> None:
        self._world, self._cache = world, None
        self._flags: set[Any] = {BuilderFlag.TF32}
        self._limits: dict[Any, int] = {}
        self._profiles: list[IOptimizationProfile] = []

    def set_flag(self, flag: Any) -> None:
        if "set_flag" not in self._world.fails:
            self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limits[pool] = pool_size << ("set_memory_pool_limit" in self._world.fails)

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._limits[pool]

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if not profile or "add_optimization_profile" in self._world.fails:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._data.startswith(b"other device") and not ignore_mismatch:
            return False
        self._world.timing.append(cache._data)
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return None if self._cache is None else ITimingCache(self._cache._data + b"timed ")


class Builder:
    __slots__ = ("_logger", "_world")
    world: World

    def __init__(self, logger: ILogger) -> None:
        self._logger, self._world = logger, type(self).world

    def create_network(self, flags: int = 0) -> INetworkDefinition | None:
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return None if "create_network" in self._world.fails else INetworkDefinition(self._world)

    def create_builder_config(self) -> IBuilderConfig | None:
        return None if "create_builder_config" in self._world.fails else IBuilderConfig(self._world)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile(self._world)

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        free = any(-1 in network.get_input(i).shape for i in range(network.num_inputs))
        if "build_serialized_network" in self._world.fails or (free and not config._profiles):
            self._logger.log(Severity.ERROR, "no kernel\nfits")
            return None
        return IHostMemory(str(network._path).encode())
