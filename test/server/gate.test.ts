/** The gate: who has a place, who waits, who is sent away. @module */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AbortError } from "../../src/errors.ts";
import { QueueFullError, QueueTimeoutError } from "../../src/server/errors.ts";
import { Gate, type GateOptions, type Leave } from "../../src/server/gate.ts";
import { pause } from "./toy_server.ts";

function gate(options: Partial<GateOptions> = {}): Gate {
  return new Gate({ parallel: 1, queue: 2, patience: 10_000, ...options });
}

/** Whether there is room for so many. */
function hasRoom(gate: Gate, count: number): boolean {
  try {
    gate.assertRoom(count);
    return true;
  } catch (error) {
    if (error instanceof QueueFullError) return false;
    throw error;
  }
}

describe("a gate", () => {
  test("lets in as many as there are places, and the others in the order in which they came", async () => {
    const one = gate({ parallel: 2, queue: 10 });
    const leaves = [await one.enter(), await one.enter()];
    const order: number[] = [];
    const later = [2, 3, 4].map((i) =>
      one.enter().then((leave) => {
        order.push(i);
        leaves.push(leave);
      })
    );
    await pause(1);
    expect([one.inside, one.waiting, order]).toEqual([2, 3, []]);
    leaves[1]();
    await later[0];
    expect([one.inside, one.waiting, order]).toEqual([2, 2, [2]]);
    leaves[0]();
    await later[1];
    leaves[2]();
    await later[2];
    expect([one.inside, one.waiting, order]).toEqual([2, 0, [2, 3, 4]]);
    for (const leave of leaves) leave();
    expect([one.inside, one.waiting]).toEqual([0, 0]);
  });

  test("takes a place back once, however often it is given back", async () => {
    const one = gate();
    const leave = await one.enter();
    const next = one.enter();
    leave();
    leave();
    await next;
    expect(one.inside).toBe(1);
    const third = one.enter();
    leave();
    await pause(1);
    expect([one.inside, one.waiting]).toEqual([1, 1]);
    (await next)();
    (await third)();
    expect(one.inside).toBe(0);
  });

  test("has those wait for as long as it takes who are that patient", async () => {
    const one = gate({ patience: 5 });
    const leave = await one.enter();
    const [patient, other] = [one.enter(undefined, Infinity), one.enter()];
    await expect(other).rejects.toBeInstanceOf(QueueTimeoutError);
    leave();
    (await patient)();
    expect([one.inside, one.waiting]).toEqual([0, 0]);
  });

  test("sends those away for whom there is no room in line", async () => {
    const one = gate({ parallel: 1, queue: 2 });
    // Nobody is there: what is asked for at once may be more.
    expect([hasRoom(one, 3), hasRoom(one, 30)]).toEqual([true, true]);
    const leave = await one.enter();
    expect([hasRoom(one, 2), hasRoom(one, 3)]).toEqual([true, false]);
    const waits = [one.enter(), one.enter()];
    expect(hasRoom(one, 1)).toBe(false);
    leave();
    for (const wait of waits) (await wait)();
    const without = gate({ queue: 0 });
    const only = await without.enter();
    expect(hasRoom(without, 1)).toBe(false);
    only();
    expect(hasRoom(without, 1)).toBe(true);
  });

  test("ends the wait of those who waited too long, and of those who leave", async () => {
    const one = gate({ patience: 20 });
    const leave = await one.enter();
    const gone = new AbortController();
    const waits = await Promise.allSettled([
      one.enter(),
      one.enter(gone.signal),
      pause(5).then(() => gone.abort()),
    ]);
    const [late, left] = waits.map((wait) => (wait as PromiseRejectedResult).reason);
    expect(late).toBeInstanceOf(QueueTimeoutError);
    expect(late.about.retryAfter).toBeGreaterThanOrEqual(1);
    expect(left).toBeInstanceOf(AbortError);
    expect([one.inside, one.waiting]).toEqual([1, 0]);
    await one.enter(gone.signal).then(
      () => expect("came in").toBe("left before"),
      (error) => expect(error).toBeInstanceOf(AbortError),
    );
    leave();
    expect(one.inside).toBe(0);
    // What is over when they were let in ends nothing any more.
    const again = new AbortController();
    const stays = await one.enter(again.signal);
    again.abort();
    await pause(25);
    expect(one.inside).toBe(1);
    stays();
  });

  test("tells those who come last how long it may take, by how long places were held", async () => {
    const one = gate({ parallel: 1, queue: 100 });
    const leave = await one.enter();
    const first = one.wait;
    const waits = Array.from({ length: 9 }, () => one.enter());
    expect(one.wait).toBeGreaterThan(first);
    expect(gate({ parallel: 4 }).wait).toBe(1);
    // Where five leave in the time of one, a fifth of the wait.
    const five = gate({ parallel: 5, queue: 100 });
    const more = Array.from({ length: 14 }, () => five.enter());
    expect([one.wait, five.wait]).toEqual([10, 2]);
    for (const place of more) (await place)();
    leave();
    for (const wait of waits) (await wait)();
    // Ten places were held for no time.
    expect(one.wait).toBe(1);
  });

  test("keeps its promises whatever comes, in any order", async () => {
    const step = fc.oneof(
      fc.constant("enter" as const),
      fc.record({ leave: fc.nat(20) }),
      fc.record({ abort: fc.nat(20) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 4 }), fc.array(step), async (parallel, steps) => {
        const one = gate({ parallel, queue: 100 });
        const line: { number: number; stop: AbortController }[] = [];
        const inside: { number: number; leave: Leave }[] = [];
        let came = 0;
        let last = -1;
        const settled = async () => {
          for (let i = 0; i < 5; i++) await Promise.resolve();
        };
        for (const what of steps) {
          if (what === "enter") {
            const entry = { number: came++, stop: new AbortController() };
            line.push(entry);
            one.enter(entry.stop.signal).then((leave) => {
              line.splice(line.indexOf(entry), 1);
              // First come, first served.
              expect(entry.number).toBeGreaterThan(last);
              last = entry.number;
              inside.push({ number: entry.number, leave });
            }, () => line.splice(line.indexOf(entry), 1));
          } else if ("leave" in what) {
            if (inside.length > 0) inside.splice(what.leave % inside.length, 1)[0].leave();
          } else if (line.length > 0) {
            line[what.abort % line.length].stop.abort();
          }
          await settled();
          expect([one.inside, one.waiting]).toEqual([inside.length, line.length]);
          expect(inside.length).toBeLessThanOrEqual(parallel);
          // Nobody waits before an open door.
          if (line.length > 0) expect(inside.length).toBe(parallel);
        }
        for (const { stop } of [...line]) stop.abort();
        for (const { leave } of [...inside]) leave();
        await settled();
        expect([one.inside, one.waiting]).toEqual([0, 0]);
      }),
      { numRuns: 200 },
    );
  });
});
