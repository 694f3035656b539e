"""Types of command options that accept what the configuration accepts. For argparse."""

import argparse
import os
from collections.abc import Callable

from pydantic import BaseModel, ValidationError

from controller.config.schema import STORAGE_CONNECTION_STRING


def checked(model: type[BaseModel], key: str) -> Callable[[str], str]:
    """Return an argparse type that validates its text as the key `key` of the table `model`."""

    def check(text: str) -> str:
        context = {"loopback_http_storage": bool(os.environ.get(STORAGE_CONNECTION_STRING))}
        try:
            return str(getattr(model.model_validate({key: text}, context=context), key))
        except ValidationError as error:
            # The message does not repeat the text, which can contain a secret.
            problem = error.errors()[0].get("ctx", {}).get("error")
            raise argparse.ArgumentTypeError(str(problem)) from None

    return check
