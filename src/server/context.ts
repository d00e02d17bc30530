/**
 * What travels with a request through the app.
 * @module
 */
import type { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { RequestRecord } from "./log.ts";

/** What handlers find in a request's context. */
export interface AppEnv {
  Variables: {
    /** What the log will say of it. */
    record: RequestRecord;
    /** Aborted when the client has gone, time is up, or the server stops. */
    work: AbortController;
    /** Ends the request when its handler does not: an answer that is sent by and by. */
    later: () => (error?: unknown) => void;
  };
}

/** The app. */
export type App = OpenAPIHono<AppEnv>;
/** The context of a request. */
export type AppContext = Context<AppEnv>;

/** What keeps a request's work going in edge runtimes; undefined elsewhere. */
export function executionOf(context: AppContext): AppContext["executionCtx"] | undefined {
  try {
    return context.executionCtx;
  } catch {
    // Hono's word for: there is none.
    return undefined;
  }
}
