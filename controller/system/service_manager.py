"""The commands with which an operator handles the services, for messages and advice.

Linux: systemd. Windows: PowerShell, with the services of `deploy/windows`; their names have no
hyphen, because WinSW allows letters and digits only.
"""

import sys
from dataclasses import dataclass
from shlex import quote

LOCAL_SERVICE = "*S-1-5-19"
"""The account of the services of `deploy/windows`, in every language of Windows.
https://learn.microsoft.com/en-us/windows-server/identity/ad-ds/manage/understand-security-identifiers"""


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """The commands of one operating system."""

    start: str
    """Starts the agent."""
    enable: str
    """Starts the agent, now and with the machine."""
    enable_probe: str
    """Starts the probe responder, now and with the machine."""
    restart_probe: str
    """Starts the probe responder again, so that it reads the configuration."""
    disable: str
    """Stops the agent for good."""
    status: str
    """Shows whether the agent runs."""
    log: str
    """Shows the log of the agent."""
    as_superuser: str
    """How a command is run that needs all rights."""

    def allow_writing(self, directory: str) -> str:
        """Return the advice by which the service may write to a directory."""
        if self is WINDOWS:
            grant = f"icacls {quote(directory)} /grant {LOCAL_SERVICE}:(OI)(CI)M"
            return f"or let the account of the service write there: {grant}"
        where = quote(directory)
        return (
            f"or let the unit write there: create the directory, let a group write to it, and "
            f"with systemctl edit lb-drain add [Service], ReadWritePaths={where} and "
            "SupplementaryGroups=GROUP"
        )

    def allow_running(self, program: str) -> str:
        """Return the advice by which the service may run a program."""
        if self is WINDOWS:
            grant = f"icacls {quote(program)} /grant {LOCAL_SERVICE}:RX"
            return f"{grant}  # or correct command in [[hooks]]"
        return (
            f"chmod a+rx {quote(program)}  # or correct command in [[hooks]]: a program outside "
            "of home and temporary directories"
        )


SYSTEMD = ServiceManager(
    start="systemctl start lb-drain",
    enable="systemctl enable --now lb-drain",
    enable_probe="systemctl enable --now lb-drain-probe",
    restart_probe="systemctl restart lb-drain-probe",
    disable="systemctl disable --now lb-drain",
    status="systemctl status lb-drain",
    log="journalctl --unit lb-drain",
    as_superuser="as root",
)
WINDOWS = ServiceManager(
    start="Start-Service lbdrain",
    enable="Start-Service lbdrain",
    enable_probe="Start-Service lbdrainprobe",
    restart_probe="Restart-Service lbdrainprobe",
    disable="Set-Service lbdrain -StartupType Disabled; Stop-Service lbdrain",
    status="Get-Service lbdrain",
    log="Get-WinEvent -ProviderName lb-drain -MaxEvents 100",
    as_superuser="as an administrator",
)
MANAGER = WINDOWS if sys.platform == "win32" else SYSTEMD
"""The commands of the system on which this program runs."""
