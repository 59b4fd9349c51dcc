"""A server with OpenAI's interface: `pip install 'vlmc[serve]'`; nothing else of the runtime imports it."""

from vlmc.runtime.serving.application import Application
from vlmc.runtime.serving.limits import Limits
from vlmc.runtime.serving.running import Server, address, bind
from vlmc.runtime.serving.served import Served, opened
from vlmc.runtime.serving.start import serve

__all__ = ["Application", "Limits", "Served", "Server", "address", "bind", "opened", "serve"]
