"""Lists of containers and blobs, as XML (Microsoft docs, List Containers and List Blobs)."""

from email.utils import formatdate
from xml.sax.saxutils import escape, quoteattr

from controller.simulator.services.blob_call import Call
from controller.simulator.services.http_values import Reply
from controller.simulator.world.blob_store import Blob
from controller.simulator.world.leases import INFINITE, LeaseState

MOST_ENTRIES = 5000
"""Entries on one page unless the request asks for fewer."""


def list_containers(call: Call) -> Reply:
    """Answer the containers of an account, by name."""
    entries = [
        (
            name,
            f"<Container><Name>{escape(name)}</Name><Properties>"
            f"<Last-Modified>{_date(container.modified_at)}</Last-Modified>"
            f"<Etag>{escape(container.etag)}</Etag><LeaseStatus>unlocked</LeaseStatus>"
            "<LeaseState>available</LeaseState>"
            "<HasImmutabilityPolicy>false</HasImmutabilityPolicy><HasLegalHold>false</HasLegalHold>"
            "</Properties></Container>",
        )
        for (account, name), container in sorted(call.store.containers.items())
        if account == call.account
    ]
    return _listed(call, "Containers", "", entries)


def list_blobs(call: Call) -> Reply:
    """Answer the blobs of a container, by name; with a delimiter, as folders."""
    delimiter = call.request.parameter("delimiter")
    prefix = call.request.parameter("prefix")
    entries: dict[str, str] = {}
    for name, blob in sorted(call.container.blobs.items()):
        if not name.startswith(prefix):
            continue
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
            folder = prefix + rest.partition(delimiter)[0] + delimiter
            entries[folder] = f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>"
        else:
            entries[name] = _blob(name, blob, call.now)
    container = f" ContainerName={quoteattr(call.container_name)}"
    return _listed(call, "Blobs", container, list(entries.items()))


def _blob(name: str, blob: Blob, now: float) -> str:
    state = blob.lease.state(now)
    locked = state in {LeaseState.LEASED, LeaseState.BREAKING}
    duration = ""
    if state is LeaseState.LEASED:
        kind = "infinite" if blob.lease.duration_s == INFINITE else "fixed"
        duration = f"<LeaseDuration>{kind}</LeaseDuration>"
    return (
        f"<Blob><Name>{escape(name)}</Name><Properties>"
        f"<Creation-Time>{_date(blob.created_at)}</Creation-Time>"
        f"<Last-Modified>{_date(blob.modified_at)}</Last-Modified><Etag>{escape(blob.etag)}</Etag>"
        f"<Content-Length>{len(blob.body)}</Content-Length>"
        f"<Content-Type>{escape(blob.content_type)}</Content-Type><BlobType>BlockBlob</BlobType>"
        f"<AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred>"
        f"<LeaseStatus>{'locked' if locked else 'unlocked'}</LeaseStatus>"
        f"<LeaseState>{state.value}</LeaseState>{duration}"
        "<ServerEncrypted>true</ServerEncrypted></Properties></Blob>"
    )


def _listed(call: Call, kind: str, attributes: str, entries: list[tuple[str, str]]) -> Reply:
    prefix, marker = call.request.parameter("prefix"), call.request.parameter("marker")
    size = MOST_ENTRIES
    if call.request.parameter("maxresults").isdecimal():
        size = max(1, min(int(call.request.parameter("maxresults")), MOST_ENTRIES))
    fitting = [entry for entry in entries if entry[0].startswith(prefix) and entry[0] >= marker]
    following = fitting[size][0] if len(fitting) > size else ""
    text = (
        '\ufeff<?xml version="1.0" encoding="utf-8"?>'
        f'<EnumerationResults ServiceEndpoint="/{escape(call.account)}/"{attributes}>'
        f"<Prefix>{escape(prefix)}</Prefix><Marker>{escape(marker)}</Marker>"
        f"<MaxResults>{size}</MaxResults>"
        f"<{kind}>{''.join(text for _, text in fitting[:size])}</{kind}>"
        f"<NextMarker>{escape(following)}</NextMarker></EnumerationResults>"
    )
    return Reply(status=200, headers={"content-type": "application/xml"}, body=text.encode())


def _date(at: float) -> str:
    return formatdate(at, usegmt=True)
