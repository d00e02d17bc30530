/** What every server says of requests that are wrong. @module */
import { apiError } from "./shapes.ts";
import { type Answer, type Check, equal, jsonRequest, ok, post, read } from "./support.ts";

const CHAT = "/v1/chat/completions";
const TEXT = "/v1/completions";

/** What an error must say; what is left out is not looked at. */
interface Wanted {
  readonly status: number;
  readonly param?: string | null;
  readonly code?: string | null;
  readonly type?: string;
}

/** Checks that an answer is an error, and which. */
function isError({ status, headers, json, text }: Answer, wanted: Wanted, what: string): void {
  equal(status, wanted.status, `${what}: ${text.slice(0, 200)}`);
  ok(headers.get("content-type")?.startsWith("application/json") === true, `${what}: JSON`);
  const { error } = apiError.parse(json);
  for (const key of ["param", "code", "type"] as const) {
    if (wanted[key] !== undefined) equal(error[key], wanted[key], `${what}: ${key}`);
  }
}

const unsupported = { status: 400, code: "unsupported_parameter", type: "invalid_request_error" };
const wrong = { status: 400, code: null, type: "invalid_request_error" };

/** A request for a conversation, and its field that is refused. */
function refusedInChat(): [fields: object, param: string][] {
  const image = { type: "image_url", image_url: { url: "data:," } };
  const audio = { type: "input_audio", input_audio: { data: "", format: "wav" } };
  const said = (message: object) => ({ messages: [{ role: "user", content: "x" }, message] });
  return [
    [{ tools: [{ type: "function", function: { name: "f" } }] }, "tools"],
    [{ functions: [{ name: "f" }] }, "functions"],
    [{ tool_choice: "required" }, "tool_choice"],
    [{ function_call: { name: "f" } }, "function_call"],
    [{ audio: { voice: "alloy", format: "wav" } }, "audio"],
    [{ modalities: ["text", "audio"] }, "modalities"],
    [{ prediction: { type: "content", content: "x" } }, "prediction"],
    [{ web_search_options: {} }, "web_search_options"],
    [said({ role: "user", content: [image] }), "messages[1].content"],
    [said({ role: "user", content: [{ type: "text", text: "x" }, audio] }), "messages[1].content"],
    [said({ role: "tool", tool_call_id: "1", content: "x" }), "messages[1].role"],
    [said({ role: "assistant", content: null, tool_calls: [{ id: "1" }] }), "messages[1]"],
  ];
}

const refusals: Check = {
  name: "what would change the answer and cannot be served is refused, by its name",
  run: async (server) => {
    for (const [fields, param] of refusedInChat()) {
      for (const stream of [false, true]) {
        const body = {
          messages: [{ role: "user", content: "x" }],
          max_tokens: 1,
          stream,
          ...fields,
        };
        isError(await post(server, CHAT, body), { ...unsupported, param }, param);
      }
    }
    for (
      const fields of [
        { echo: true },
        { suffix: "end" },
        { best_of: 2 },
        { best_of: 3, n: 2 },
        { response_format: { type: "json_object" } },
        { response_format: "json" },
      ]
    ) {
      const [param] = Object.keys(fields);
      const body = { prompt: "x", max_tokens: 1, ...fields };
      isError(await post(server, TEXT, body), { ...unsupported, param }, param);
    }
  },
};

/** Wrong values of fields that both kinds of completions have. */
const WRONG: Record<string, readonly unknown[]> = {
  model: [1, {}],
  stream: ["yes", 1],
  stream_options: [true, { include_usage: 1 }],
  n: [0, -1, 1.5, "2", 33],
  temperature: [-0.1, 2.1, "hot", []],
  top_p: [-1, 1.1, "x"],
  top_k: [-1, 0.5],
  min_p: [2],
  repetition_penalty: [0, "x"],
  frequency_penalty: [-2.1, 3],
  presence_penalty: [-2.1, {}],
  logit_bias: [{ a: 1 }, { "1": 101 }, { "1": "x" }, { "999999": 1 }, []],
  seed: [0.5, "x", 1e300, -1e19],
  stop: ["", [""], 5, "a\ud83d", ["b", "\ude42"], Array(17).fill("x"), "x".repeat(1001)],
  user: [5],
  max_tokens: [0, -5, 1.5, "many"],
};
const WRONG_IN_CHAT: Record<string, readonly unknown[]> = {
  messages: [
    "hello",
    [],
    [{}],
    [{ role: "nobody", content: "x" }],
    [{ role: "user", content: 5 }],
    [{ role: "user", content: [] }],
    [{ role: "user" }],
    [{ role: "user", content: "x", name: 5 }],
    null,
    [null],
  ],
  max_completion_tokens: [0, "x"],
  logprobs: [1, "yes"],
  top_logprobs: [21, -1, 5],
  response_format: ["json", { type: "yaml" }, { type: "json_schema" }],
  chat_template_kwargs: [[], "x"],
};
const WRONG_IN_TEXT: Record<string, readonly unknown[]> = {
  prompt: [5, null, [], [[]], {}, ["x", 5], [1.5], [-1], [1e9], Array(33).fill("x")],
  logprobs: [6, -1, true],
};

const validation: Check = {
  name: "a wrong value of any field is an error that names the field",
  run: async (server) => {
    const cases: [path: string, field: string, body: object][] = [];
    const add = (path: string, base: object, table: Record<string, readonly unknown[]>) => {
      for (const [field, values] of Object.entries(table)) {
        for (const value of values) cases.push([path, field, { ...base, [field]: value }]);
      }
    };
    const said = { messages: [{ role: "user", content: "x" }], max_tokens: 1 };
    add(CHAT, said, { ...WRONG, ...WRONG_IN_CHAT });
    add(TEXT, { prompt: "x", max_tokens: 1 }, { ...WRONG, ...WRONG_IN_TEXT });
    add("/tokenize", { prompt: "x" }, {
      prompt: [5, null],
      add_special_tokens: ["x"],
      model: [5],
    });
    add("/detokenize", { tokens: [1] }, {
      tokens: [5, null, ["x"], [-1], [0.5], [1e6]],
      model: [5],
    });
    for (const [path, field, body] of cases) {
      const what = `${path} ${field} ${JSON.stringify(body).slice(0, 100)}`;
      const answer = await post(server, path, body);
      equal(answer.status, 400, `${what}: ${answer.text.slice(0, 100)}`);
      const { param, message } = apiError.parse(answer.json).error;
      equal([param?.split(/[.[]/)[0], message.includes(field)], [field, true], what);
      ok(!/: Invalid (input$|key)/.test(message), `it says what is needed: ${message}`);
    }
    isError(await post(server, CHAT, {}), { ...wrong, param: "messages" }, "no messages");
    isError(await post(server, TEXT, {}), { ...wrong, param: "prompt" }, "no prompt");
  },
};

const bodies: Check = {
  name: "a body that is no JSON object is an error",
  run: async (server) => {
    for (const path of [CHAT, TEXT, "/tokenize", "/detokenize"]) {
      for (const body of ["", "{", "nonsense", '{"prompt": "x"', "\u0000"]) {
        isError(await post(server, path, body), { status: 400, code: "invalid_json" }, body);
      }
      for (const body of ["[]", "null", "5", '"x"']) {
        isError(await post(server, path, body), { status: 400 }, body);
      }
      for (
        const type of [
          ...["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""],
          ...["application/json-seq", "text/plain; application/json"],
        ]
      ) {
        const init = { ...jsonRequest({ prompt: "x" }), headers: { "content-type": type } };
        isError(await read(await server.fetch(path, init)), wrong, `type ${type}`);
      }
      const init = { method: "POST" };
      isError(await read(await server.fetch(path, init)), { status: 400 }, "no body");
    }
    for (
      const type of [
        ...[
          "application/json; charset=utf-8",
          "application/json ; charset=utf-8",
          "application/json;",
        ],
        ...[
          "Application/JSON;charset=utf-8;",
          'application/json; a_b="c;d"',
          "application/vnd.api2+json",
        ],
      ]
    ) {
      const { status } = await post(server, "/tokenize", { prompt: "x" }, { "content-type": type });
      equal(status, 200, type);
    }
  },
};

const nesting: Check = {
  name: "a body of 100,000 brackets harms nobody",
  run: async (server) => {
    const deep = "[".repeat(100_000) + "]".repeat(100_000);
    for (const field of ["prompt", "unknown", "messages", "chat_template_kwargs", "logit_bias"]) {
      const said = field === "messages" ? "" : `"messages": [{"role": "user", "content": "x"}],`;
      for (const path of [CHAT, TEXT]) {
        const text = field === "prompt" ? "" : `"prompt": "x",`;
        const body = `{${said} ${text} "max_tokens": 1, "${field}": ${deep}}`;
        const { status } = await post(server, path, body);
        ok(status === 200 || status === 400, `${path} ${field}: ${status}`);
      }
    }
    isError(await post(server, TEXT, deep), { status: 400 }, "brackets alone");
    equal((await server.fetch("/health")).status, 200);
  },
};

const tooLarge: Check = {
  name: "a body above the limit is an error, whether it says its length or not",
  run: async (server) => {
    const body = JSON.stringify({ prompt: "x".repeat(1 << 20) });
    const wanted = { status: 413, code: "request_too_large" };
    isError(await post(server, TEXT, body), wanted, "with a length");
    const bytes = new TextEncoder().encode(body);
    let at = 0;
    const parts = new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull(controller) {
        if (at >= bytes.length) return controller.close();
        controller.enqueue(bytes.slice(at, at += 1 << 16));
      },
    });
    const init = { ...jsonRequest(""), body: parts, duplex: "half" };
    isError(await read(await server.fetch(TEXT, init)), wanted, "without");
  },
};

const models: Check = {
  name: "a model that is not there is not found; without a name the first is taken",
  run: async (server) => {
    const wanted = { status: 404, code: "model_not_found", param: "model" };
    const name = "nobody's \u0000 model";
    for (
      const [path, body] of [
        [CHAT, { messages: [{ role: "user", content: "x" }] }],
        [TEXT, { prompt: "x" }],
        ["/tokenize", { prompt: "x" }],
        ["/detokenize", { tokens: [5] }],
      ] as const
    ) {
      isError(await post(server, path, { ...body, model: name }), wanted, path);
    }
    isError(await read(await server.fetch("/v1/models/nobody")), wanted, "details");
    const { json } = await post(server, TEXT, { prompt: "x", max_tokens: 1 });
    equal(json.model, server.plain.id);
  },
};

const tooLong: Check = {
  name: "a prompt that leaves no room in the context is an error, however long",
  run: async (server) => {
    const { context } = server.plain.model.info;
    const wanted = { status: 400, code: "context_length_exceeded" };
    for (const stream of [false, true]) {
      for (const prompt of ["and ".repeat(context), Array(context).fill(5), "x".repeat(900_000)]) {
        const body = { prompt, stream };
        isError(await post(server, TEXT, body), { ...wanted, param: "prompt" }, "a text");
      }
      const messages = [{ role: "user", content: "and ".repeat(context) }];
      const body = { model: server.chat.id, messages, stream };
      isError(await post(server, CHAT, body), { ...wanted, param: "messages" }, "messages");
    }
    const { json } = await post(server, TEXT, {
      prompt: Array(context - 1).fill(5),
      max_tokens: 100,
      seed: 1,
    });
    equal([json.usage.total_tokens, json.choices[0].finish_reason], [context, "length"]);
  },
};

const template: Check = {
  name: "a conversation that the chat template refuses is an error with its words",
  run: async (server) => {
    const messages = [{ role: "user", content: "refuse me" }];
    const answer = await post(server, CHAT, { model: server.chat.id, messages });
    isError(answer, { ...wrong, param: "messages" }, "refused");
    ok(answer.json.error.message.includes("not this"), answer.text);
  },
};

const schemas: Check = {
  name: "a schema that cannot be followed is an error that names response_format",
  run: async (server) => {
    const messages = [{ role: "user", content: "x" }];
    const loop = { $ref: "#/$defs/a", $defs: { a: { $ref: "#/$defs/a" } } };
    for (
      const schema of [
        { type: "nothing" },
        { type: "string", pattern: "(" },
        { type: "object", properties: { a: { $ref: "#/nowhere" } } },
        { type: "string", pattern: "(?<=a)b" },
        { enum: [] },
        loop,
        JSON.parse("[".repeat(2000) + "]".repeat(2000)),
      ]
    ) {
      const json_schema = { name: "x", schema };
      const body = {
        messages,
        max_tokens: 2,
        response_format: { type: "json_schema", json_schema },
      };
      for (const stream of [false, true]) {
        const answer = await post(server, CHAT, { ...body, stream });
        const what = JSON.stringify(schema).slice(0, 80);
        equal(answer.status, 400, `${what}: ${answer.text.slice(0, 200)}`);
        const { param } = apiError.parse(answer.json).error;
        equal(param?.split(".")[0], "response_format", what);
      }
    }
  },
};

const nowhere: Check = {
  name: "paths that are not there are not found",
  run: async (server) => {
    const wanted = { status: 404, code: "unknown_url", type: "invalid_request_error" };
    for (const path of ["/nowhere", "/v1", "/v1/embeddings", "/v1/%00", "/..%2f..%2fetc/passwd"]) {
      isError(await read(await server.fetch(path)), wanted, path);
    }
    isError(await read(await server.fetch("/v1/embeddings", jsonRequest({}))), wanted, "POST");
    // What is wrong is the path, whatever is sent there.
    const file = new FormData();
    file.set("file", new Blob(["a recording"]));
    const forms = [
      { body: file },
      { body: "{", headers: { "content-type": "application/json" } },
      jsonRequest({ input: "x".repeat(3 << 20) }),
    ];
    for (const form of forms) {
      const path = "/v1/audio/transcriptions";
      isError(await read(await server.fetch(path, { ...form, method: "POST" })), wanted, path);
    }
  },
};

const methods: Check = {
  name: "a method that a path has not is refused, and those that it has are named",
  run: async (server) => {
    const wanted = { status: 405, code: "method_not_supported", type: "invalid_request_error" };
    const known = `/v1/models/${encodeURIComponent(server.plain.id)}`;
    for (
      const [method, path, allow] of [
        ["GET", CHAT, "POST"],
        ["PUT", TEXT, "POST"],
        ["GET", "/tokenize", "POST"],
        ["DELETE", known, "GET, HEAD"],
        ["POST", "/v1/models", "GET, HEAD"],
        ["DELETE", "/health", "GET, HEAD"],
        ["POST", "/", "GET, HEAD"],
        ["OPTIONS", "/openapi.json", "GET, HEAD"],
      ]
    ) {
      const answer = await read(await server.fetch(path, { method }));
      isError(answer, wanted, `${method} ${path}`);
      equal(answer.headers.get("allow"), allow, `${method} ${path}`);
      const { message } = apiError.parse(answer.json).error;
      ok(message.includes(allow.split(", ")[0]), message);
    }
    const head = await server.fetch(CHAT, { method: "HEAD" });
    equal([head.status, head.headers.get("allow"), await head.text()], [405, "POST", ""]);
  },
};

/** The checks. */
export const errorChecks: readonly Check[] = [
  refusals,
  validation,
  bodies,
  nesting,
  tooLarge,
  models,
  tooLong,
  template,
  schemas,
  nowhere,
  methods,
];
