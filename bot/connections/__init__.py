"""
What the configuration names, opened: telemetry and change sources to read from, far ends that actions may change.

Reading and acting hold different credentials and are two rooms: `reading` takes what `credential` names, `acting` what
`action_credential` names, and neither sees the other's.
"""

from bot.connections.acting import connect_actions
from bot.connections.credentials import MissingCredentialError, UnusableSettingError, http_client
from bot.connections.reading import Connections, connect

__all__ = [
    "Connections",
    "MissingCredentialError",
    "UnusableSettingError",
    "connect",
    "connect_actions",
    "http_client",
]
