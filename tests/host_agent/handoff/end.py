"""One end of a connection as a process: ``listen`` echoes and tells who came, ``dial`` says a word and tells what came back.

Arguments: what to do, ADDRESS:PORT, and the files of the certificate, the key and the CA.
"""

from __future__ import annotations

import asyncio
import sys

from host_agent.config import Address, Peer
from host_agent.handoff.network import Connection, ConnectionLost, Doors, Unreachable, dial
from host_agent.handoff.security import TLS, Security

PATIENCE = 30.0


async def listen(address: Address, security: Security) -> None:
    """Until one that was let in has gone."""
    served = asyncio.Event()

    async def serve(connection: Connection) -> None:
        await connection.write(await connection.read(PATIENCE), PATIENCE)
        print(f"served {connection.peer}", flush=True)
        await connection.read(PATIENCE)
        served.set()

    doors = Doors(asyncio.get_running_loop(), serve)
    await doors.open([address], security)
    print("ready", flush=True)
    await served.wait()
    await doors.close()


async def call(address: Address, security: Security) -> None:
    """Once."""
    try:
        connection = await dial(Peer("b", address), security, PATIENCE)
        await connection.write(b"a word", PATIENCE)
        print((await connection.read(PATIENCE)).decode(), flush=True)
        connection.close()
    except (ConnectionLost, Unreachable) as error:
        print(error, flush=True)


if __name__ == "__main__":
    what, place, certificate, key, ca = sys.argv[1:]
    host, _, port = place.rpartition(":")
    asyncio.run({"listen": listen, "dial": call}[what](Address(host, int(port)), Security(TLS, certificate, key, ca)))
