"""An agent with the official SDK: each line of standard input is something to do, each line of output what came of it."""

import asyncio
import json
import sys

from mcp import Client


def plain(value):
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def say(number, **what):
    print(json.dumps({"number": number, **what}), flush=True)


async def do(url, number, task):
    async with Client(url, mode=task["mode"]) as client:
        match task["do"]:
            case "list":
                tools, resources = await client.list_tools(), await client.list_resources()
                say(
                    number,
                    tools=[plain(tool) for tool in tools.tools],
                    resources=[plain(resource) for resource in resources.resources],
                    instructions=client.instructions,
                )
            case "read":
                content = (await client.read_resource(task["uri"])).contents[0]
                say(number, uri=str(content.uri), mime=content.mime_type, json=json.loads(content.text))
            case "call":

                async def progress(done, total, message):
                    say(number, progress=message)

                result = await client.call_tool(
                    task["tool"],
                    task["arguments"],
                    read_timeout_seconds=task.get("timeout"),
                    progress_callback=progress if task.get("progress") else None,
                )
                text = result.content[0].text
                say(number, is_error=result.is_error, answer=result.structured_content, text=text)


def causes(error):
    """What went wrong, without the groups that a transport wraps it into."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(causes(one) for one in error.exceptions)
    return str(error)


async def attempt(url, number, task):
    try:
        await do(url, number, task)
    except Exception as error:
        say(number, failed=causes(error))


async def main(url):
    async with asyncio.TaskGroup() as tasks:
        number = 0
        while line := await asyncio.to_thread(sys.stdin.readline):
            number += 1
            tasks.create_task(attempt(url, number, json.loads(line)))


asyncio.run(main(sys.argv[1]))
