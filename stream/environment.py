"""Settings in the environment: their names, what they say, and of those that are not heard, what they were meant to be."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

PREFIX = "BELATED_"
BETWEEN = "__"  # a section and its key


def variable(key: str) -> str:
    """The environment variable of a key.

    >>> variable("kafka.password")
    'BELATED_KAFKA__PASSWORD'
    """
    return PREFIX + key.upper().replace(".", BETWEEN)


def heard(model: type[BaseSettings]) -> dict[str, Any]:
    """What the environment says of a configuration, by section and key.

    Raises:
        ValueError: a variable that would not be heard, or a list or table that is not JSON.
    """
    keys = {name: getattr(field.annotation, "model_fields", ()) for name, field in model.model_fields.items()}
    if wrong := list(misspelt(os.environ, keys)):
        raise ValueError("; ".join(wrong))
    source = EnvSettingsSource(model)
    try:
        return source()
    except SettingsError:
        example = f"{variable('kafka.servers')}='[\"host:9092\"]'"
        names = ", ".join(_unread(source))
        raise ValueError(f"{names}: not JSON; lists and tables are JSON there, as in {example}") from None


def _unread(source: EnvSettingsSource) -> Iterator[str]:
    """The variables that a source cannot read."""
    for name, value in sorted(source.env_vars.items()):
        source.env_vars = {name: value}
        try:
            source()
        except SettingsError:
            yield name.upper()


def over(above: Any, below: Any) -> Any:
    """Two tables in one; where both say something the first holds.

    >>> over({"http": {"port": 1}}, {"http": {"port": 2, "host": "::"}, "log": {}})
    {'http': {'port': 1, 'host': '::'}, 'log': {}}
    """
    if not (isinstance(above, dict) and isinstance(below, dict)):
        return above
    return below | {name: over(value, below.get(name)) for name, value in above.items()}


def whose(place: Sequence[str], file: Path | None, told: dict[str, Any], above: dict[str, Any]) -> list[str]:
    """Who said what does not fit: a variable or the file; of keys that do not go together, all who said one.

    Args:
        place: the section and key. told: what file and environment say. above: what of it the environment says.

    >>> whose(["http", "port"], Path("b.toml"), {"http": {"port": 0}}, {})
    ['b.toml', 'http.port']
    >>> whose(["learner"], Path("b.toml"), {"learner": {"wait": "9d", "window": "1d"}}, {"learner": {"wait": "9d"}})
    ['BELATED_LEARNER__WAIT, b.toml', 'learner']
    """
    section, written = place[0] if place else "", [str(file or ""), ".".join(place)]
    said = above.get(section, {})
    if not isinstance(said, dict):
        return [variable(section)]
    if len(place) > 1:
        return [variable(".".join(place[:2]))] if place[1] in said else written
    names = [variable(f"{section}.{key}") for key in said]
    if names and file and told[section].keys() - said.keys():
        names.append(str(file))
    return [", ".join(names), section] if names else written


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
