"""`belated config`: a file of settings that explains itself, and what is in force and why."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from stream.config import SECRETS, Config, load, told
from stream.drafts import put
from stream.environment import variable
from stream.settings import Settings, lasts, spell
from stream.terminal import out

MAPPED = """
# [mapping.TOPIC]: records of that topic are JSON of your own; docs/mapping.md has the grammar.
# [mapping.shop-events]
# type_field = "event.name"
# event_id = "id"
# at = {path = "ts", unit = "s"}
# user_id = "user.id"
# item_id = "product.sku"
# [mapping.shop-events.kinds]
# view = {type = "impression", impression_id = "id", features = "context"}
# add_to_cart = {type = "signal", kind = "cart"}
# order = {type = "conversion", kind = "purchase", value = "total"}
"""


def init(
    file: Annotated[Path, typer.Argument(help="what to write; - for standard output")] = Path("belated.toml"),
) -> None:
    """Write a file of settings with every key, what it means, and its default.

    Example: belated config init belated.toml
    """
    if str(file) == "-":
        typer.echo(template(), nl=False)
        return
    if file.exists():
        raise FileExistsError(f"{file}: exists already and is left as it is; name another file")
    put(file, template())
    out.print(f"{file}: every key with its default; a line without its # changes one", markup=False)


def show(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="settings; without: the environment alone")
    ] = None,
) -> None:
    """What is in force, key by key, and where it comes from: the file, the environment, or the default.

    Example: belated config show -c belated.toml
    """
    found, (said, above) = load(config), told(config)
    for section, model in _sections():
        out.print(f"[{section}]", style="bold", markup=False)
        for name in _keys(model):
            value = getattr(getattr(found, section), name)
            place = (
                "environment"
                if name in above.get(section, {})
                else "file"
                if name in said.get(section, {})
                else "default"
            )
            line = f"  {name} = {_spelled(model.model_fields[name], value) or '(not set)'}"
            out.print(f"{line:<50}  {place}", markup=False, highlight=False, soft_wrap=True)
    for topic, mapping in sorted(found.mapping.items()):
        out.print(f"[mapping.{topic}]", style="bold", markup=False)
        unread = "" if topic in found.kafka.topics else "; [kafka] reads no topic of that name"
        kinds = ", ".join(dict.fromkeys(kind.type for kind in mapping.cases.values()))
        out.print(f"  records become {kinds}{unread}", markup=False, highlight=False)


def template() -> str:
    """The file that `belated config init` writes, made of the models."""
    lines = ["# Settings of belated. Each key is shown with its default; take the # away to change it."]
    lines.append(
        f"# The environment stands above this file: {variable('kafka.servers')}, ... Secrets belong there alone."
    )
    for section, model in _sections():
        lines += ["", f"[{section}]"]
        for name in _keys(model):
            field = model.model_fields[name]
            lines.append(f"# {(field.description or '').strip()}")
            if f"{section}.{name}" in SECRETS:
                lines.append(f"# {name}: not here, but in {variable(f'{section}.{name}')}")
            else:
                lines.append(f"# {name} = {_spelled(field, field.default)}".rstrip())
    return "\n".join(lines) + "\n" + MAPPED


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    for section, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield section, field.annotation


def _keys(model: type[BaseModel]) -> list[str]:
    return [name for name in model.model_fields if (model, name) != (Settings, "mapping")]


def _spelled(field: FieldInfo, value: Any) -> str:
    """A value as it would stand in the file; "" for none."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "********"
    if type(value) is int and lasts(field):
        value = spell(value)
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
