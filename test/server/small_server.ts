/** A server with a toy model, as a program: prints its port. For tests that take something away from it. @module */
import process from "node:process";
import { listen } from "../../src/platform/listen.ts";
import { ToyServer } from "./toy_server.ts";

// As `serve` does. Without it Deno ends in a panic when there are no file descriptors left.
process.on("SIGTERM", () => process.exit(0));
const { handler } = new ToyServer();
console.log(listen(handler, { hostname: "127.0.0.1", port: 0, patience: 30 }).port);
