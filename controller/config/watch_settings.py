"""The settings of `lb-drain update-watch`: the part of the file that it reads."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from controller.config.base import Section
from controller.config.notifications import Notification
from controller.config.schema import Links, Settings
from controller.config.update_watch import UpdateWatch


class WatchSettings(Section):
    """The part of the file that `lb-drain update-watch` reads.

    It watches a Hub, often from a machine outside any availability set: the file needs no table of
    the agent, and those that it has are not validated.
    """

    links: Links = Links()
    """Documents of the operator."""
    notifications: Annotated[tuple[Notification, ...], Field(strict=False, max_length=20)] = ()
    """Notification channels; none by default."""
    update_watch: UpdateWatch
    """The Hub."""

    @model_validator(mode="before")
    @classmethod
    def _without_tables_of_the_agent(cls, document: Mapping[str, object]) -> dict[str, object]:
        others = Settings.model_fields.keys() - cls.model_fields.keys()
        return {key: value for key, value in document.items() if key not in others}
