// @ts-check
/**
 * The reference of the API: shows the server's `/openapi.json`.
 *
 * A page made by others would be larger than all else that goes to an edge function (swagger-ui has
 * 1.5 MB, and an edge function 1 MB) or come from another host, which the pages' policy forbids.
 *
 * @module
 */
import { button, byId, copyButton, make } from "./dom.js";
import { prose, Schemas } from "./schema.js";

/** @typedef {import("./schema.js").Schema} Schema */

/**
 * @typedef {object} Operation
 * @property {string[]} [tags]
 * @property {string} [summary]
 * @property {string} [description]
 * @property {object[]} [security] Empty where no key is needed.
 * @property {Parameter[]} [parameters]
 * @property {Body} [requestBody]
 * @property {Record<string, Body>} [responses]
 */
/** @typedef {{ name: string, in: string, required?: boolean, description?: string, schema?: Schema }} Parameter */
/** @typedef {{ schema?: Schema, example?: unknown, examples?: Record<string, { value?: unknown }> }} Media */
/** @typedef {{ description?: string, content?: Record<string, Media> }} Body */
/** @typedef {{ method: string, path: string, operation: Operation, id: string }} Route */

const METHODS = ["get", "post", "put", "patch", "delete"];
const OTHER = "Server";
const base = new URL("../", import.meta.url);
const main = byId("routes", HTMLElement);
const contents = byId("contents", HTMLElement);

async function start() {
  main.setAttribute("aria-busy", "true");
  main.replaceChildren(make("p", { class: "hint" }, "Reading the description …"));
  try {
    const response = await fetch(new URL("openapi.json", base));
    if (!response.ok) throw new Error(`The server answered ${response.status}.`);
    show(await response.json());
  } catch (error) {
    const message = error instanceof TypeError
      ? "The server cannot be reached."
      : /** @type {Error} */ (error).message;
    main.replaceChildren(
      make("p", { role: "alert" }, `The description could not be read. ${message}`),
      button("Try again", () => void start(), { class: "button" }),
    );
  }
  main.removeAttribute("aria-busy");
}

/** @param {any} api An OpenAPI document. */
function show(api) {
  const schemas = new Schemas(api);
  byId("version", HTMLElement).textContent = api.info?.version ?? "";
  byId("about", HTMLElement).replaceChildren(...prose(api.info?.description ?? ""));
  byId("base", HTMLElement).textContent = base.href.replace(/\/$/, "");
  main.replaceChildren();
  contents.replaceChildren();
  /** @type {Map<string, string | undefined>} */
  const described = new Map(
    (api.tags ?? []).map((/** @type {any} */ { name, description }) => [name, description]),
  );
  for (const [tag, routes] of byTag(api)) {
    const id = `tag-${tag.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}`;
    const description = described.get(tag);
    const section = make(
      "section",
      { class: "tag", "aria-labelledby": id },
      make("h2", { id }, tag),
      description && make("p", { class: "tag-about" }, ...prose(description)),
    );
    const list = make("ul");
    for (const route of routes) {
      section.append(showRoute(route, api, schemas));
      const name = route.operation.summary ?? route.path;
      list.append(make("li", {}, make("a", { href: `#${route.id}` }, name)));
    }
    main.append(section);
    contents.append(make("p", { class: "contents-tag" }, tag), list);
  }
  // The place that was asked for is there only now.
  const asked = location.hash && document.getElementById(location.hash.slice(1));
  if (asked) asked.scrollIntoView();
}

/**
 * @param {any} api
 * @returns {Map<string, Route[]>} In the order of the description's tags.
 */
function byTag({ tags = [], paths = {} }) {
  /** @type {Map<string, Route[]>} */
  const found = new Map(tags.map((/** @type {any} */ { name }) => [name, []]));
  for (const [path, item] of Object.entries(paths)) {
    for (const method of METHODS) {
      const operation = item[method];
      if (!operation) continue;
      const parameters = [...item.parameters ?? [], ...operation.parameters ?? []];
      const tag = operation.tags?.[0] ?? OTHER;
      const id = `${method}${path.replaceAll(/[^A-Za-z0-9]+/g, "-")}`.replace(/-$/, "");
      const routes = found.get(tag) ?? [];
      routes.push({ method, path, id, operation: { ...operation, parameters } });
      found.set(tag, routes);
    }
  }
  return new Map([...found].filter(([, routes]) => routes.length > 0));
}

/**
 * @param {Route} route
 * @param {any} api
 * @param {Schemas} schemas
 */
function showRoute(route, api, schemas) {
  const { method, path, operation, id } = route;
  const { summary, description, parameters = [], requestBody, responses = {} } = operation;
  const article = make(
    "article",
    { class: "route", id },
    make("h3", {}, make("a", { href: `#${id}` }, summary ?? path)),
    make(
      "p",
      { class: "route-path" },
      make("span", { class: "method" }, method.toUpperCase()),
      make("code", {}, path),
    ),
    description && make("p", { class: "route-about" }, ...prose(description)),
  );
  if (parameters.length > 0) {
    const list = make("ul", { class: "fields" });
    for (const parameter of parameters.map((each) => schemas.resolve(each))) {
      list.append(showParameter(parameter, schemas));
    }
    article.append(make("h4", {}, "Parameters"), list);
  }
  if (requestBody) article.append(make("h4", {}, "Body"), ...bodyOf(requestBody, schemas, true));
  article.append(showExample(route, api, schemas));
  article.append(make("h4", {}, "Answers"));
  for (const [status, response] of Object.entries(responses)) {
    article.append(showResponse(status, response, schemas));
  }
  return article;
}

/**
 * @param {Parameter} parameter
 * @param {Schemas} schemas
 */
function showParameter({ name, in: where, required, description, schema = {} }, schemas) {
  return make(
    "li",
    {},
    make("code", { class: "field-name" }, name),
    " ",
    make("span", { class: "field-type" }, `${schemas.nameOf(schema)}, in the ${where}`),
    required && make("span", { class: "field-required" }, " required"),
    description && make("p", {}, ...prose(description)),
  );
}

/**
 * @param {string} status
 * @param {Body} response
 * @param {Schemas} schemas
 */
function showResponse(status, response, schemas) {
  const { description = "", content } = schemas.resolve(response);
  const head = [
    make("code", { class: "status" }, status),
    " ",
    make("span", {}, ...prose(description)),
  ];
  if (!content) return make("p", { class: "response plain" }, ...head);
  const details = make("details", { class: "response" }, make("summary", {}, ...head));
  details.addEventListener("toggle", () => {
    if (details.childElementCount === 1) {
      details.append(make("div", {}, ...bodyOf({ content }, schemas, false)));
    }
  });
  return details;
}

/**
 * What a body may be, by media type.
 *
 * @param {Body} body
 * @param {Schemas} schemas
 * @param {boolean} open Whether the fields are there at once.
 */
function bodyOf(body, schemas, open) {
  const { content = {} } = schemas.resolve(body);
  return Object.entries(content).map(([type, { schema = {} }]) => {
    const head = [
      make("code", {}, type),
      " ",
      make("span", { class: "field-type" }, schemas.nameOf(schema)),
    ];
    const tree = schemas.tree(schema);
    if (!tree) return make("p", { class: "media" }, ...head);
    return make("details", { class: "media", open }, make("summary", {}, ...head), tree);
  });
}

/**
 * The route as a call of curl.
 *
 * @param {Route} route
 * @param {any} api
 * @param {Schemas} schemas
 */
function showExample({ method, path, operation }, api, schemas) {
  const lines = [
    `curl ${
      new URL(path.replace(/^\//, ""), base).href.replaceAll(
        /%7B|%7D/gi,
        (code) => decodeURIComponent(code),
      )
    }`,
  ];
  if (method !== "get" && method !== "post") lines.push(`-X ${method.toUpperCase()}`);
  const security = operation.security ?? api.security ?? [];
  if (security.length > 0) lines.push(`-H "Authorization: Bearer $ESPALIER_KEY"`);
  const json = operation.requestBody &&
    schemas.resolve(operation.requestBody).content?.["application/json"];
  if (json) {
    const example = json.example ?? Object.values(json.examples ?? {})[0]?.value ??
      schemas.example(json.schema ?? {});
    lines.push(`-H "Content-Type: application/json"`);
    // A quote within quotes of a shell.
    lines.push(`-d '${JSON.stringify(example, undefined, 2).replaceAll("'", "'\\''")}'`);
  } else if (method === "post") {
    lines.push("-X POST");
  }
  const text = lines.join(" \\\n  ");
  return make(
    "div",
    { class: "code" },
    make(
      "div",
      { class: "code-top" },
      make("span", {}, "curl"),
      copyButton(() => text, "the call"),
    ),
    make("pre", { tabindex: 0 }, make("code", {}, text)),
  );
}

void start();
