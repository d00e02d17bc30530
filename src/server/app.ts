/**
 * The server's app: a function from requests to responses, the same in every runtime.
 * @module
 */
import { OpenAPIHono } from "@hono/zod-openapi";
import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { HTTPException } from "hono/http-exception";
import { secureHeaders } from "hono/secure-headers";
import type { z } from "zod";
import { parseOptions } from "../api/options.ts";
import { checkObject } from "../checks.ts";
import { UsageError } from "../errors.ts";
import type { Model } from "../generate/model.ts";
import { VERSION } from "../version.ts";
import { readBody } from "./body.ts";
import { type App, type AppContext, type AppEnv, executionOf } from "./context.ts";
import { ApiError, apiErrorOf, badRequest } from "./errors.ts";
import { requireHost } from "./hosts.ts";
import { requireKey } from "./keys.ts";
import { type Log, RequestRecord } from "./log.ts";
import { serverSchema } from "./options.ts";
import { addChat } from "./routes/chat.ts";
import { addCompletions } from "./routes/completions.ts";
import { addModels } from "./routes/models.ts";
import { addPages } from "./routes/pages.ts";
import { addState } from "./routes/state.ts";
import { addTokens } from "./routes/tokens.ts";
import { Service } from "./service.ts";

/** Options of {@linkcode createApp}. */
export interface AppOptions extends z.input<typeof serverSchema> {
  /** Takes a line for each request, and for what fails in the server. */
  readonly log?: Log;
}

/** Routes that need a key where there are keys. */
const GUARDED = ["/v1/*", "/tokenize", "/detokenize"];
/** Routes that are asked all the time: the log tells of them only when they fail. */
const UNLOGGED = ["/health", "/ready", "/metrics"];

/**
 * Makes the app.
 *
 * @param model A loaded model, or several. They stay the caller's, who closes them.
 * @param options Limits, keys, log.
 * @returns A Hono app: `app.fetch` goes into `Deno.serve`, `Bun.serve` or the default export of a Worker, which
 *   needs the flags `nodejs_compat` and, to notice clients that go, `enable_request_signal`.
 * @throws {UsageError} When an option is wrong, or there is no model.
 *
 * @example
 * ```ts
 * await using model = await load("SmolLM2-135M-pruned");
 * Deno.serve(createApp(model, { parallel: 4 }).fetch);
 * ```
 */
export function createApp(model: Model | readonly Model[], options: AppOptions = {}): App {
  checkObject(options, "options", "{ parallel: 4 }");
  const { log, ...rest } = options;
  const service = new Service(parseOptions(serverSchema, rest));
  const models = [model].flat() as Model[];
  // Who writes JavaScript may hand over anything.
  if (models.length === 0 || !models.every((one) => typeof one?.through === "function")) {
    throw new UsageError("createApp takes a loaded model, or some: createApp(await load(…))");
  }
  for (const one of models) service.add(one);
  service.ready();
  return appOf(service, log);
}

/**
 * Makes the app of a service, for those who load, drain and stop it by themselves.
 *
 * @param awaken What comes before a request that needs a model, once its key is known: for those who load
 *   the model then.
 */
export function appOf(
  service: Service,
  log: Log = () => {},
  awaken?: MiddlewareHandler<AppEnv>,
): App {
  const { settings } = service;
  const app: App = new OpenAPIHono<AppEnv>({
    // Wrong fields become errors like all others.
    defaultHook: (result) => {
      if (!result.success) throw invalid(result.error.issues[0]);
    },
  });

  /** Method and path of each. */
  const routes = new Set<string>();
  app.use(sayLength);
  app.use(watch(service, log, routes));
  app.use(secureHeaders({
    xFrameOptions: "DENY",
    referrerPolicy: "no-referrer",
    // For whoever puts TLS before the server to say.
    strictTransportSecurity: false,
  }));
  if (settings.allowHost.length > 0) app.use(requireHost(settings.allowHost));
  if (settings.cors.length > 0) {
    app.use(cors({
      origin: settings.cors.includes("*") ? "*" : settings.cors,
      exposeHeaders: ["x-request-id", "retry-after"],
      maxAge: 600,
    }));
  }
  for (const path of GUARDED) app.use(path, requireKey(settings.keys));
  if (awaken) { for (const path of [...GUARDED, "/ready"]) app.use(path, awaken); }
  const body = readBody(settings.bodyLimit, 1000 * settings.readTimeout);
  // Where there is no such path, that is what is wrong with a request, and not its body.
  const bodyOfRoute: MiddlewareHandler<AppEnv> = (context, next) =>
    routes.has(`POST ${context.req.path}`) ? body(context, next) : next();
  for (const path of GUARDED) app.on("POST", path, bodyOfRoute);

  addChat(app, service);
  addCompletions(app, service);
  addModels(app, service);
  addTokens(app, service);
  addState(app, service);
  addPages(app);
  const hasKeys = settings.keys.length > 0;
  if (hasKeys) {
    app.openAPIRegistry.registerComponent("securitySchemes", "key", {
      type: "http",
      scheme: "bearer",
    });
  }
  app.doc31("/openapi.json", {
    openapi: "3.1.0",
    info: {
      title: "Espalier",
      version: VERSION,
      description: "A pruned language model behind OpenAI's interface.",
    },
    // Routes that ask for none say so.
    security: hasKeys ? [{ key: [] }] : [],
  });

  for (const { method, path } of app.routes) {
    // The others are what goes before them.
    if (method !== "ALL" && !path.includes("*")) routes.add(`${method} ${path}`);
  }

  const tell = (error: Error, context: AppContext) => {
    const told = error instanceof HTTPException ? ofHono(error) : apiErrorOf(error);
    context.get("record").failed(told.message, told.cause);
    const { retryAfter } = told.about;
    if (retryAfter !== undefined) context.header("Retry-After", String(retryAfter));
    if (told.status === 401) context.header("WWW-Authenticate", "Bearer");
    return context.json(told.body, told.status as 400);
  };
  // Told, not thrown: an error from here would keep the middleware before it from ending its work.
  app.notFound((context) => {
    const { method, path } = context.req;
    const shown = path.slice(0, 200);
    const allowed = methodsOf(path, routes);
    if (allowed.length === 0) {
      const message = `there is no ${method} ${shown}`;
      return tell(new ApiError(404, message, { code: "unknown_url" }), context);
    }
    context.header("Allow", allowed.join(", "));
    const message = `${method} is no method of ${shown}: send ${allowed.join(" or ")}`;
    return tell(new ApiError(405, message, { code: "method_not_supported" }), context);
  });
  app.onError(tell);
  return app;
}

/** What goes around every request: its id, what stops it, its line in the log, its metrics. */
function watch(service: Service, log: Log, routes: ReadonlySet<string>) {
  const { metrics, settings } = service;
  return async (context: AppContext, next: () => Promise<void>) => {
    const { method, path, raw } = context.req;
    const record = new RequestRecord(crypto.randomUUID(), method, path, settings.logPrompts);
    const work = new AbortController();
    const onGone = () => work.abort();
    raw.signal?.addEventListener("abort", onGone);
    if (raw.signal?.aborted) onGone();
    const end = service.begin(work);
    let answered = () => {};
    // A request ends in order where its client has gone, too: edge runtimes drop what is then still to be
    // done, and its place would be taken for ever.
    executionOf(context)?.waitUntil(new Promise<void>((resolve) => answered = resolve));
    context.set("record", record);
    context.set("work", work);
    context.header("X-Request-Id", record.id);

    let isOver = false;
    const over = (status: number) => {
      if (isOver) return;
      isOver = true;
      raw.signal?.removeEventListener("abort", onGone);
      end();
      answered();
      const route = routeOf(context, routes);
      metrics.requests.inc({ route, status: String(status) });
      metrics.requestSeconds.observe({ route }, record.seconds);
      if (record.failure) log(record.failure);
      if (status >= 400 || !UNLOGGED.includes(path)) log(record.entry(status));
    };
    let isLater = false;
    context.set("later", () => {
      isLater = true;
      return (error) => {
        const told = error === undefined ? undefined : apiErrorOf(error);
        if (told) record.failed(told.message, told.cause);
        over(told?.status ?? 200);
      };
    });
    await next();
    if (!isLater || context.res.status !== 200) over(context.res.status);
  };
}

/**
 * Tells a HEAD how long the answer to a GET is. Its body is dropped later on, and runtimes then say that it has
 * none.
 */
async function sayLength(context: AppContext, next: () => Promise<void>): Promise<void> {
  await next();
  const { req, res } = context;
  if (req.method !== "HEAD" || res.body === null) return;
  const { byteLength } = await res.clone().arrayBuffer();
  res.headers.set("Content-Length", String(byteLength));
}

/** Methods that a path takes; none where there is no such path. */
function methodsOf(path: string, routes: ReadonlySet<string>): string[] {
  const steps = path.split("/");
  return [...routes].flatMap((route) => {
    const [method, pattern] = route.split(" ");
    const wanted = pattern.split("/");
    const fits = wanted.length === steps.length &&
      wanted.every((step, i) => step === steps[i] || (step.startsWith(":") && steps[i] !== ""));
    return !fits ? [] : method === "GET" ? ["GET", "HEAD"] : [method];
  });
}

/** A name for the route that took a request: one of a few, whatever a client asks for. */
function routeOf({ req: { method, path } }: AppContext, routes: ReadonlySet<string>): string {
  if (path.startsWith("/v1/models/")) return "/v1/models/{id}";
  return routes.has(`${method === "HEAD" ? "GET" : method} ${path}`) ? path : "other";
}

/** What is wrong with a field, as OpenAI's server says it. */
function invalid(issue: z.core.$ZodIssue): ApiError {
  const param = issue.path.map((step, i) =>
    typeof step === "number" ? `[${step}]` : i === 0 ? String(step) : `.${String(step)}`
  ).join("").slice(0, 200);
  // What is wrong with a name of a field is told one level below.
  const { message } = issue.code === "invalid_key" ? issue.issues[0] : issue;
  return badRequest(`${param || "the body"}: ${message}`, param || undefined);
}

/** Errors of Hono's own: a body that is no JSON. */
function ofHono(error: HTTPException): ApiError {
  return error.status === 400
    ? badRequest("the body could not be read as JSON", undefined, "invalid_json")
    : new ApiError(error.status as 400, error.message);
}
