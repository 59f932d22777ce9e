"""Files of transport networks."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_NO_LINK = 20.0  # files without adjacency, or within it, mark a missing link by a travel cost above this


@dataclass(frozen=True)
class Network:
    """Stations, candidate links and the wish to travel, as vectors; S stations, L links, K origin-destination pairs.

    Attributes:
        n_stations: S.
        tail: (L,) int64, station that a link leaves.
        head: (L,) int64, station that it reaches.
        travel: (L,) d, cost of travelling along it.
        building: (L,) c, cost of a unit of capacity.
        origin: (K,) int64, of a pair.
        destination: (K,) int64.
        demand: (K,) w, trips.
        outside: (K,) u, cost of the existing alternative.
        revenue: (K,) m, of a trip.
        places: (S, 2) longitude and latitude, or None.
    """

    n_stations: int
    tail: Tensor
    head: Tensor
    travel: Tensor
    building: Tensor
    origin: Tensor
    destination: Tensor
    demand: Tensor
    outside: Tensor
    revenue: Tensor
    places: Tensor | None = None


def read_network(path: Path) -> Network:
    """Read square matrices d, u, c, m and demand; adjacency, lon and lat where the file has them.

    Pairs without demand, and links that cannot be built, are left out.

    Raises:
        ValueError: A matrix is missing or has another shape; the message names the file.
    """
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    names = ("d", "u", "c", "m", "demand")
    if missing := [name for name in names if name not in record]:
        raise ValueError(f"{path}: found no {', '.join(missing)}; expected the square matrices {', '.join(names)}")
    n = len(record["d"])
    if wrong := [name for name in names if len(record[name]) != n or any(len(row) != n for row in record[name])]:
        raise ValueError(f"{path}: {', '.join(wrong)} of another size than d; expected {n} rows and columns")
    matrix = {name: torch.tensor(record[name], dtype=torch.float64) for name in names}
    other = ~torch.eye(n, dtype=torch.bool)
    linked = torch.tensor(record["adjacency"]) > 0 if "adjacency" in record else matrix["d"] < _NO_LINK
    tail, head = (linked & other).nonzero(as_tuple=True)
    origin, destination = ((matrix["demand"] > 0) & other).nonzero(as_tuple=True)
    return Network(
        n,
        tail,
        head,
        matrix["d"][tail, head],
        matrix["c"][tail, head],
        origin,
        destination,
        *(matrix[name][origin, destination] for name in ("demand", "u", "m")),
        torch.tensor([record["lon"], record["lat"]], dtype=torch.float64).T if "lon" in record else None,
    )
