import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { PAGES_MODULE, pagesModule } from "../../../scripts/build_pages.ts";
import { pageFiles, pageHeaders } from "../../../src/server/page/mod.ts";
import { fromRoot } from "../../support/paths.ts";

const pages = Object.entries(pageFiles).filter(([, { type }]) => type.startsWith("text/html"));
const source = (name: string) => readFile(fromRoot(`src/server/page/${name}`), "utf8");

describe("the pages' files", () => {
  test("are what lies in src/server/page (if not: bun scripts/build_pages.ts)", async () => {
    expect(await readFile(PAGES_MODULE, "utf8")).toBe(await pagesModule());
  });

  test("come out of the module as they went in", async () => {
    expect(pageFiles["/"].body).toBe(await source("playground.html"));
    expect(pageFiles["/docs"].body).toBe(await source("docs.html"));
    for (const [path, { body }] of Object.entries(pageFiles)) {
      if (path.startsWith("/page/")) expect(body).toBe(await source(path.slice("/page/".length)));
    }
  });

  test("have the hash of their bytes", () => {
    for (const { body, hash } of Object.values(pageFiles)) {
      expect(createHash("sha256").update(body).digest("hex").startsWith(hash)).toBe(true);
    }
  });

  test("leave most of an edge function's megabyte to others", () => {
    const bytes = Object.values(pageFiles).reduce((sum, { body }) => sum + body.length, 0);
    expect(bytes).toBeLessThan(150_000);
  });
});

describe("the pages", () => {
  test("load files that are there, of their own server only", () => {
    for (const [path, { body }] of pages) {
      const loaded = [...body.matchAll(/(?:src|href)="([^"#]+)"/g)].map(([, url]) => url);
      expect(loaded.length).toBeGreaterThan(2);
      for (const url of loaded) {
        const { origin, pathname } = new URL(url, `http://server.test${path}`);
        expect(origin).toBe("http://server.test");
        expect([...Object.keys(pageFiles), "/openapi.json"]).toContain(pathname);
      }
    }
  });

  test("import modules that are there", () => {
    for (const [path, { body }] of Object.entries(pageFiles)) {
      if (!path.endsWith(".js")) continue;
      for (const [, url] of body.matchAll(/^(?:import|export) .*?from "([^"]+)"/gms)) {
        const { pathname } = new URL(url, `http://server.test${path}`);
        expect(Object.keys(pageFiles)).toContain(pathname);
      }
    }
  });

  test("work under their policy: no script and no style inside them", () => {
    for (const [, { body }] of pages) {
      expect(body).not.toMatch(/<style|\sstyle=|\son[a-z]+=|<script(?![^>]* src=)/);
    }
    expect(pageHeaders["content-security-policy"]).not.toContain("unsafe");
  });

  test("never make markup of text", () => {
    for (const [path, { body }] of Object.entries(pageFiles)) {
      if (!path.endsWith(".js")) continue;
      expect(body).not.toMatch(
        /innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|\beval\(|new Function/,
      );
    }
  });
});
