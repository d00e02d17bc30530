import { expect, test } from "bun:test";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { letEventsIn } from "../../src/platform/events.ts";
import { startThread } from "../../src/platform/threads.ts";

/** Milliseconds of computing between two pauses. */
const COMPUTES = 5;
/** Requests, one after the other. */
const REQUESTS = 5;

test("requests come in between pieces of work, a few pieces after they were sent", async () => {
  const server = createServer((_, response) => response.end("yes"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  let answers = 0;
  const client = await startThread(
    `self.onmessage = async ({ data }) => {
      for (let i = 0; i < ${REQUESTS}; i++) {
        await (await fetch(data)).text();
        self.postMessage("answered");
      }
    };`,
    { onMessage: () => answers++, onError: (reason) => void expect(reason).toBe("nothing") },
  );
  try {
    client.post(`http://127.0.0.1:${port}/`);
    let pieces = 0;
    // The thread starts meanwhile.
    for (; answers < 1; pieces++) await work();
    const before = pieces;
    for (; answers < REQUESTS && pieces < 10_000; pieces++) await work();
    // A request needs to be accepted, read and answered; Deno by itself looks every sixty turns.
    expect((pieces - before) / (REQUESTS - 1)).toBeLessThan(20);
  } finally {
    client.terminate();
    await new Promise((resolve) => server.close(resolve));
  }
}, 60_000);

test("nobody goes on before those who have waited longer", async () => {
  // So long that Deno looks at its sockets when the first one comes, which takes many turns.
  compute(2 * COMPUTES);
  const order: number[] = [];
  const come = async (number: number) => {
    await letEventsIn();
    order.push(number);
  };
  const all: Promise<void>[] = [];
  for (let number = 0; number < 200; number++) {
    all.push(come(number));
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  await Promise.all(all);
  expect(order).toEqual(order.toSorted((a, b) => a - b));
});

async function work(): Promise<void> {
  compute(COMPUTES);
  await letEventsIn();
}

function compute(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}
