"""What the methods are called, for those who only ask for that: torch, which the methods need, takes a second to import.

`methods.METHODS` and `graph.methods.GRAPH_METHODS` have these names in this order; a test holds them to it.
"""

ORACLES = ("oracle",)
"""Methods that know final labels beforehand, for comparison in backtests."""
LIVE = (
    "settled", "vanilla", "naive", "pu", "fnw", "fnc", "dfm", "fsiw", "esdfm", "defer", "defuse", "bidefuse", "ulc", "gdfm",
    "pq", "pq_signals", "hybrid",
)  # fmt: skip
"""Methods that a running system can use."""
NAMES = (*ORACLES, *LIVE)
DEFAULT = "hybrid"
USUAL = ("settled", "vanilla", "fnw", "esdfm", "pq_signals", "hybrid")
"""Those that are compared where none is named."""

GRAPH_NAMES = ("dual", "daemon", "daemon_paper", "blade", "blade_uniform")
"""How a product graph can be learned."""
GRAPH_DEFAULT = "dual"
