/** What every server does, in the runtime of the tests. @module */
import { afterAll, beforeAll, describe, test } from "bun:test";
import type { Model } from "../../src/generate/model.ts";
import { listen, type Listening } from "../../src/platform/listen.ts";
import { createApp } from "../../src/server/app.ts";
import { CompileWorkshop } from "../compile/support.ts";
import { checks, type Known, type Server } from "./behaviour.ts";
import { loadBoth, makeFolders } from "./models.ts";

const workshop = new CompileWorkshop();
let models: Model[];
/** The same models apart: what they give is right. */
let here: Model[];
let listening: Listening;
let handle: (request: Request) => Response | Promise<Response>;

beforeAll(async () => {
  const folders = await makeFolders(workshop);
  models = await loadBoth(folders);
  here = await loadBoth(folders);
  handle = createApp(models).fetch;
  listening = listen(handle, { hostname: "127.0.0.1", port: 0, patience: 30 });
});
afterAll(async () => {
  await listening?.stop();
  for (const model of [...models ?? [], ...here ?? []]) await model.close();
  workshop.remove();
});

/** A server that is asked in some way. */
function served(fetch: Server["fetch"]): Server {
  const [plain, chat] = here.map((model, i): Known => ({ id: models[i].info.name, model }));
  return { fetch, plain, chat };
}

describe("the app itself", () => {
  for (const { name, run } of checks) {
    test(
      name,
      () =>
        run(
          served(async (path, init) =>
            await handle(new Request(`http://server.test${path}`, init))
          ),
        ),
    );
  }
});

describe("a server that listens", () => {
  for (const { name, run } of checks) {
    test(
      name,
      () => run(served((path, init) => fetch(`http://127.0.0.1:${listening.port}${path}`, init))),
    );
  }
});
