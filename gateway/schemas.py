"""JSON Schemas of the YAML files, so that editors complete and check them."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, create_model

from gateway import config, custody, directory, policy, trials


def models() -> dict[str, type[BaseModel]]:
    """File name of the schema → what the YAML file is."""

    def table(name: str, row: type[BaseModel]) -> type[BaseModel]:
        return create_model(name.title(), __base__=config.Settings, **{name: (tuple[row, ...], ...)})  # type: ignore[call-overload, valid-type, no-any-return]

    return {
        "gateway": config.Gateway,
        "policy": policy.PolicyFile,
        "profile": policy.Profile,
        "citations": policy.Citations,
        "trials": trials.TrialFiles,
        "retention": custody.Retention,
        "agencies": table("agencies", directory.Agency),
        "mailboxes": table("mailboxes", directory.MailboxRow),
        "exceptions": table("exceptions", directory.FreeMailboxException),
        "meetings": table("meetings", directory.Meeting),
        "publications": table("publications", directory.Publication),
        "holidays": table("holidays", directory.Holiday),
    }


def texts() -> dict[str, str]:
    """File name → JSON text, the same for the same program."""
    return {
        f"{name}.schema.json": json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **_schema(name, model)},
            ensure_ascii=False,
            indent=1,
            sort_keys=True,
        )
        + "\n"
        for name, model in models().items()
    }


def _schema(name: str, model: type[BaseModel]) -> dict[str, object]:
    schema = model.model_json_schema(by_alias=True)
    if name == "policy":  # a mode alone, one mapping, or a list of them
        switch = {"$ref": "#/$defs/Switch"}
        modes = {"enum": ["off", "observe", "warn", "enforce"]}
        schema["properties"]["rules"]["additionalProperties"] = {
            "anyOf": [modes, switch, {"items": switch, "type": "array"}]
        }
        names = [rule.id for rule in policy.CATALOGUE.values()]
        schema["properties"]["rules"]["propertyNames"] = {"enum": names}
    return schema


def write(folder: Path) -> list[Path]:
    """Write all schemas into a configuration directory."""
    written = []
    for name, text in texts().items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
