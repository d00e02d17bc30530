/** Whether there is service, whatever becomes of models meanwhile. @module */
import { describe, expect, test } from "bun:test";
import { parseOptions } from "../../src/api/options.ts";
import { serverSchema } from "../../src/server/options.ts";
import { Service } from "../../src/server/service.ts";
import { babbler } from "../generate/support.ts";
import { toyModel } from "./toy_server.ts";

function serving(): Service {
  const service = new Service(parseOptions(serverSchema, {}));
  service.add(toyModel(babbler()));
  service.ready();
  return service;
}

describe("a service", () => {
  test("that is about to stop is not ready again when models come late, or are dropped", async () => {
    const service = serving();
    expect(await service.drain(1)).toBe(true);
    service.ready();
    expect(service.state).toBe("draining");
    service.drop();
    expect(service.state).toBe("draining");
    expect(() => service.find(undefined)).toThrow("about to stop");
  });

  test("that has lost a model has it again when it is dropped and loaded anew", () => {
    const service = serving();
    const [lost] = service.models;
    service.lose(lost);
    expect([service.state, service.hasLost]).toEqual(["failed", true]);
    service.drop();
    expect([service.state, service.hasLost]).toEqual(["loading", false]);
    service.add(toyModel(babbler()));
    service.ready();
    // A request that still had the old one tells of it late.
    service.lose(lost);
    expect([service.state, service.hasLost]).toEqual(["ready", false]);
  });
});
