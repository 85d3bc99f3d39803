"""Work that is the same for every frame: queued call by call at first, then as recorded CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_ad.errors import EdgeAdError
from edge_ad.runtime.device.api import Driver, Graph, Stream

log = logging.getLogger(__name__)


class Graphs:
    """Recorded work by slot and name. why_not : why nothing is recorded, else empty."""

    def __init__(self, driver: Driver, wanted: bool) -> None:
        self._driver, self._record = driver, wanted
        self._graphs: dict[tuple[int, str, bool], Graph] = {}
        self._warm: set[tuple[str, bool]] = set()
        self.why_not = "" if wanted else "switched off"

    def run(self, slot: int, name: str, auto: bool, stream: Stream, work: Callable[[], None]) -> None:
        """Queue ``work``. It may depend on nothing but the slot's number and ``auto``."""
        key = (slot, name, auto)
        graph = self._graphs.get(key)
        if graph is None and self._record and (name, auto) in self._warm:
            try:
                graph = self._graphs[key] = self._driver.record_graph(stream, work)
            except EdgeAdError as e:  # slower, not wrong: said once, and in `edge-ad profile`
                self._record, self.why_not = False, str(e)
                log.warning("no CUDA graphs: %s", e)
        if graph is not None:
            graph.launch(stream)
        else:
            work()
            self._warm.add((name, auto))

    def free(self) -> None:
        """Give all graphs back; none is queued."""
        for graph in self._graphs.values():
            graph.free()
        self._graphs.clear()
