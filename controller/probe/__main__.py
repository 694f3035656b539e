"""Run the responder as `python -m controller.probe SETTINGS`, as `lb-drain probe` does."""

import sys

from controller.probe.responder import serve
from controller.probe.settings import ProbeSettings

serve(ProbeSettings.from_json(sys.argv[1]))
