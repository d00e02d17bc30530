/** What every server has beside completions: models, tokens, state, pages. @module */
import { modelListSchema, modelSchema } from "../../../src/server/schemas/models.ts";
import { pageFiles } from "../../../src/server/page/mod.ts";
import { samplesOf } from "../prometheus.ts";
import { model, modelList } from "./shapes.ts";
import { ask, type Check, equal, ok, post, read, type Server } from "./support.ts";

/** Asks for a path, which must be answered with 200. */
async function get({ fetch }: Pick<Server, "fetch">, path: string) {
  const answer = await read(await fetch(path));
  equal(answer.status, 200, path);
  return answer;
}

const models: Check = {
  name: "/v1/models has all models, the first one first, with what is known of them",
  run: async (server) => {
    const { json } = await get(server, "/v1/models");
    modelListSchema.parse(json);
    const { data } = modelList.parse(json);
    equal(data.map(({ id }) => id), [server.plain.id, server.chat.id]);
    for (const [i, known] of [server.plain, server.chat].entries()) {
      const path = `/v1/models/${encodeURIComponent(known.id)}`;
      const { json: one } = await get(server, path);
      modelSchema.parse(one);
      equal(model.parse(one), data[i]);
      const { context, vocabulary, canChat, weightBytes } = one.espalier;
      const { info } = known.model;
      equal([context, vocabulary, canChat], [info.context, info.vocabulary, known.model.canChat]);
      ok(weightBytes > 0, "weights have bytes");
    }
    equal([data[0].espalier.canChat, data[1].espalier.canChat], [false, true]);
  },
};

const tokens: Check = {
  name: "/tokenize and /detokenize are the model's tokenizer, and undo each other",
  run: async (server) => {
    const { model, id } = server.plain;
    for (const text of ["The population of", "", "naïve 日本 \u{1f600}", "a\n\n  b\t"]) {
      const told = await ask(server, "/tokenize", { prompt: text });
      equal(told, {
        tokens: [...model.tokens(text, { addSpecialTokens: true })],
        count: told.tokens.length,
        max_model_len: model.info.context,
      });
      const bare = await ask(server, "/tokenize", {
        model: id,
        prompt: text,
        add_special_tokens: false,
      });
      equal(bare.tokens, [...model.tokens(text)]);
      equal(await ask(server, "/detokenize", { model: id, tokens: bare.tokens }), { prompt: text });
    }
    const outside = await post(server, "/detokenize", { tokens: [1, model.info.vocabulary] });
    equal([outside.status, outside.json.error.param], [400, "tokens"]);
  },
};

const state: Check = {
  name: "/health and /ready say that the server is ready",
  run: async (server) => {
    equal((await get(server, "/health")).json, { status: "ready" });
    equal((await get(server, "/ready")).json, { status: "ready" });
  },
};

const metrics: Check = {
  name: "/metrics is Prometheus' text, and counts what is asked",
  run: async (server) => {
    const look = async () => {
      const { headers, text } = await get(server, "/metrics");
      ok(headers.get("content-type")?.startsWith("text/plain; version=0.0.4") === true, "its type");
      return samplesOf(text);
    };
    const prompt = "The population of the town is said to have been";
    const body = { prompt, temperature: 0, max_tokens: 7 };
    const hits = `espalier_prefix_hits_total{model="${server.plain.id}"}`;
    const none = (await look()).get(hits) ?? 0;
    // So that the cache has it when it counts.
    const { usage: first } = await ask(server, "/v1/completions", body);
    const before = await look();
    const cached = first.prompt_tokens_details.cached_tokens;
    equal(
      (before.get(hits) ?? 0) - none,
      cached > 0 ? 1 : 0,
      "who has nothing of it in the cache is no hit",
    );
    const { usage } = await ask(server, "/v1/completions", body);
    await post(server, "/v1/completions", { prompt: 5 });
    await post(server, "/nowhere/at/all", {});
    const after = await look();
    const more = (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0);
    const { id } = server.plain;
    equal(
      [
        more('espalier_requests_total{route="/v1/completions",status="200"}'),
        more('espalier_requests_total{route="/v1/completions",status="400"}'),
        more('espalier_requests_total{route="other",status="404"}'),
        more('espalier_request_seconds_count{route="/v1/completions"}'),
        more(`espalier_generated_tokens_total{model="${id}"}`),
        more(`espalier_prompt_tokens_total{model="${id}"}`),
        more(`espalier_cached_tokens_total{model="${id}"}`),
        more(hits),
        more(`espalier_answers_total{model="${id}",reason="length"}`),
        more(`espalier_time_to_first_token_seconds_count{model="${id}"}`),
        more("espalier_queue_seconds_count"),
      ],
      [
        1,
        1,
        1,
        2,
        7,
        usage.prompt_tokens,
        usage.prompt_tokens_details.cached_tokens,
        1,
        1,
        1,
        1,
      ],
    );
    ok(usage.prompt_tokens_details.cached_tokens > 0, "tokens are in the cache");
    equal(after.get("espalier_ready"), 1);
    for (const gauge of ["queue_depth", "generating", "sequences_open"]) {
      equal(after.get(`espalier_${gauge}`), 0, gauge);
    }
  },
};

const pages: Check = {
  name: "pages come with a policy, and are not sent again to who has them",
  run: async (server) => {
    for (const [path, { type, body, hash }] of Object.entries(pageFiles)) {
      const { headers, text } = await get(server, path);
      ok(text === body, `the text of ${path}`);
      equal([headers.get("content-type"), headers.get("etag")], [type, `"${hash}"`]);
      ok(
        headers.get("content-security-policy")?.includes("default-src 'none'") === true,
        "a policy",
      );
      // A proxy that compresses makes it W/, as which it then comes back; caches send several.
      for (const tags of [`"${hash}"`, `W/"${hash}"`, `"x", W/"${hash}"`, "*"]) {
        const again = await server.fetch(path, { headers: { "if-none-match": tags } });
        equal([again.status, await again.text()], [304, ""], `${path}, ${tags}`);
      }
      const other = await read(await server.fetch(path, { headers: { "if-none-match": '"x"' } }));
      equal(other.status, 200);
    }
  },
};

const headers: Check = {
  name: "every answer has an id of its own, and headers that keep pages safe",
  run: async (server) => {
    const ids = new Set<string | null>();
    const paths = ["/", "/health", "/v1/models", "/nowhere", "/metrics"];
    for (const path of [...paths, ...paths]) {
      const { headers } = await read(await server.fetch(path));
      ids.add(headers.get("x-request-id"));
      equal(
        ["x-content-type-options", "x-frame-options", "referrer-policy"].map((name) =>
          headers.get(name)
        ),
        ["nosniff", "DENY", "no-referrer"],
        path,
      );
      equal(headers.get("access-control-allow-origin"), null, "no other origins");
    }
    equal([ids.size, ids.has(null)], [10, false]);
    const { headers, json } = await post(server, "/v1/completions", { prompt: "x", max_tokens: 1 });
    equal(json.id, `cmpl-${headers.get("x-request-id")}`);
  },
};

const heads: Check = {
  name: "HEAD tells what GET gives, and how long it is",
  run: async (server) => {
    for (const path of ["/", "/health", "/v1/models", "/openapi.json"]) {
      const got = await server.fetch(path);
      const { byteLength } = await got.arrayBuffer();
      const { status, headers, text } = await read(await server.fetch(path, { method: "HEAD" }));
      const told = [status, headers.get("content-type"), Number(headers.get("content-length"))];
      equal([...told, text], [200, got.headers.get("content-type"), byteLength, ""], path);
    }
  },
};

/** The checks. */
export const routeChecks: readonly Check[] = [
  models,
  tokens,
  state,
  metrics,
  pages,
  headers,
  heads,
];
