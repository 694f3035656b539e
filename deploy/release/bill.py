"""The software bill of materials of an environment, in CycloneDX 1.6."""

import json
import re
import uuid
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy.release.source import ReleaseError, Source

PRODUCT = "lb-drain-controller"


def name_of(text: str) -> str:
    """Return the normalised name of a package, from its name or a requirement."""
    found = re.match(r"[A-Za-z0-9._-]+", text)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def locked_hashes(lock: str) -> dict[str, tuple[str, ...]]:
    """Return the sha256 of each file of each package in a lock file."""
    hashes: dict[str, tuple[str, ...]] = {}
    for entry in re.split(r"\n(?=\S)", re.sub(r"(?m)^#.*\n", "", lock)):
        hashes[name_of(entry)] = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))
    return hashes


def bill_of(packages: Path, source: Source, lock: str) -> str:
    """Return the bill of an environment as JSON, the same text each time.

    Raises:
        ReleaseError: it is not valid CycloneDX.
    """
    found = {name_of(each.name): each for each in distributions(path=[str(packages)])}
    hashes = locked_hashes(lock)
    references = {name: _reference(name, each) for name, each in found.items()}
    product = {**_component(PRODUCT, found[PRODUCT], ()), "type": "application"}
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{PRODUCT}@{source.commit}')}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(source.epoch, UTC).isoformat(),
            "component": product,
        },
        "components": [
            _component(name, found[name], hashes.get(name, ()))
            for name in sorted(found.keys() - {PRODUCT})
        ],
        "dependencies": [
            {
                "ref": references[name],
                "dependsOn": sorted(
                    references[needed] for needed in _needed(found[name]) & found.keys()
                ),
            }
            for name in sorted(found)
        ],
    }
    text = json.dumps(bill, indent=2) + "\n"
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise ReleaseError(f"the bill of materials is not valid: {problem}")
    return text


def _needed(found: Distribution) -> set[str]:
    return {name_of(line) for line in found.requires or () if "extra ==" not in line}


def _reference(name: str, found: Distribution) -> str:
    return f"pkg:pypi/{name}@{found.version}"


def _component(name: str, found: Distribution, hashes: tuple[str, ...]) -> dict[str, Any]:
    reference = _reference(name, found)
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": found.version,
        "purl": reference,
    }
    # Older packages have the text of their license in this field, or its name.
    metadata: Any = found.metadata
    old = str(metadata.get("License") or "").strip()
    if expression := metadata.get("License-Expression"):
        component["licenses"] = [{"expression": expression}]
    elif old and len(old) < 100:
        component["licenses"] = [{"license": {"name": old}}]
    if hashes:
        component["externalReferences"] = [
            {
                "type": "distribution",
                "url": f"https://pypi.org/project/{name}/{found.version}/",
                "hashes": [{"alg": "SHA-256", "content": each} for each in sorted(hashes)],
            }
        ]
    return component
