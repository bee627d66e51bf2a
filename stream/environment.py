"""Names of settings in the environment, and of those that would not be heard, what they were meant to be."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

PREFIX = "BELATED_"
BETWEEN = "__"  # a section and its key


def variable(key: str) -> str:
    """The environment variable of a key.

    >>> variable("kafka.password")
    'BELATED_KAFKA__PASSWORD'
    """
    return PREFIX + key.upper().replace(".", BETWEEN)


def misspelt(environment: Mapping[str, str], keys: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """What is wrong with variables that name no section, or join it to its key by one underscore; ``keys`` by section.

    BELATED_HTTP_PORT=tcp://.. is of Kubernetes, where a service is called belated-http, and not meant for us.

    >>> list(misspelt({"BELATED_KAFAK__SERVERS": "[]", "BELATED_DATA": "data"}, {"kafka": ["servers"]}))
    ['BELATED_KAFAK__SERVERS: there is no such section; did you mean BELATED_KAFKA__SERVERS?']
    """
    for name, value in sorted(environment.items()):
        if not name.upper().startswith(PREFIX):
            continue
        section, between, key = name[len(PREFIX) :].lower().partition(BETWEEN)
        first, _, rest = section.partition("_")
        if between and section not in keys:
            near = get_close_matches(section, keys, n=1)
            told = f"did you mean {variable(f'{near[0]}.{key}')}?" if near else f"there are {', '.join(sorted(keys))}"
            yield f"{name}: there is no such section; {told}"
        elif not between and rest in keys.get(first, ()) and "://" not in value[:6]:
            yield f"{name}: two underscores are between a section and its key: {variable(f'{first}.{rest}')}"
