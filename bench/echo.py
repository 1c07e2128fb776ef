"""The floor of the control socket: asyncio streams that answer every line with the same bytes.

``python -m bench.echo SOCKET REPLY_FILE``; writes a line to the descriptor BENCH_READY_FD once it listens. Standard library only.
"""

import asyncio
import os
import sys


async def serve(path: str, reply: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(reply)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, path)
    os.write(int(os.environ["BENCH_READY_FD"]), b"ready\n")
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with open(sys.argv[2], "rb") as file:  # noqa: PTH123 -- the floor imports as little as it can
        content = file.read()
    asyncio.run(serve(sys.argv[1], content))
