"""The directed product graph: two places for every product, one as source and one as target of a relation."""
